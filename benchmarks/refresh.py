"""Times a refresh of the champion's catalogue: new prices, some new titles, nothing reused. Nothing is published."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Change some items of a workspace's champion, and build and check the catalogue."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=Path(".rankline"))
    parser.add_argument("--share", type=float, default=0.1, help="share of the items whose titles change")
    arguments = parser.parse_args()

    from rankline.registry.model_registry import ModelRegistry

    models = ModelRegistry(arguments.workspace / "repository", repair_cache=False)
    bundle = models.bundle(models.champion())
    print("| what changed | items | texts embedded again | embedding and index, s | with all checks, s | recall |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, share, overrides in (
        ("every price", 0.0, {}),
        (f"every price, the titles of {arguments.share:.0%}", arguments.share, {}),
        ("the same, nothing reused", arguments.share, {"reuse": False}),
    ):
        result, build_s, step_s = measure(bundle, share=share, **overrides)
        print(
            f"| {name} | {result['items']} | {result['embedded']} | {build_s:.1f} | {step_s:.1f} "
            f"| {result['index_recall@100']:.3f} |"
        )


def measure(bundle: Any, *, share: float, **overrides: Any) -> tuple[dict[str, Any], float, float]:
    """(the result of the step, the seconds to build the catalogue, the seconds of the whole step)."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from components.catalogue.config import CatalogueConfig
    from components.catalogue.step import catalogue
    from rankline.contracts import ITEMS
    from rankline.model import catalogue as catalogues

    present = parquet.read_table(bundle.catalogue / "items.parquet")
    rows = present.to_pylist()
    every = round(1 / share) if share else len(rows) + 1
    for place, row in enumerate(rows):
        row["price"] = (row["price"] or 1.0) * 1.1
        if place % every == every - 1:
            row["title"] = f"{row['title']}, again"
    config = CatalogueConfig(min_agreement=0.0, **overrides)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        raw.mkdir()
        parquet.write_table(pa.Table.from_pylist(rows, schema=present.schema), raw / "items.parquet")
        (raw / "summary.json").write_text(json.dumps({"items_tell": [n for n in ITEMS.names if n != "item_id"]}))
        started = time.monotonic()
        result = catalogue(raw, Path(folder) / "revision", config=config, bundle=bundle)
        step_s = time.monotonic() - started
        assert result["outcome"] == "publish", result["failures"]
        items = parquet.read_table(Path(folder) / "revision" / "catalogue" / "items.parquet")
        before = bundle.catalogue if config.reuse else None
        started = time.monotonic()
        catalogues.build(bundle, items, Path(folder) / "again", before=before)
        return result, time.monotonic() - started, step_s


if __name__ == "__main__":
    main()
