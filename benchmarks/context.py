"""Users without a history in a synthetic shop where one declared field decides: nDCG@10 by a real server.

    python -m benchmarks.context [gender|age|about|device|holiday …]

Three seeds each, at about half a minute per seed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.components.context_world import World
from tests.components.test_profile import served_ndcg, train

FIELDS = ("gender", "age", "about", "device", "holiday")
SEEDS = (0, 1, 2)


def main(fields: list[str]) -> None:
    """Print one row for each field and seed."""
    print("| field that decides | seed | with the field | without it | popularity |\n| --- | --- | --- | --- | --- |")
    for field in fields or FIELDS:
        setting = "context_features" if field in ("device", "holiday") else "user_features"
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as scratch:
                trained = train(Path(scratch), World(field, seed=seed), {setting: (field,)})
                ndcg = served_ndcg(trained, Path(scratch) / "server")
            print(
                f"| {field} | {seed} | {ndcg['declared']:.3f} | {ndcg['bare']:.3f} | {ndcg['popularity']:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
