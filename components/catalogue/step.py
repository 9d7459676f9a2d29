"""catalogue: changed items become a new revision of the champion's catalogue, if every check of it is met.

Reads    raw/       items.parquet, summary.json; the champion's bundle with the catalogue it serves over
Writes   revision/  checks.json   what changed, every check with its sentence, and what follows from them
                    catalogue/    items, vectors, index and sources (absent where nothing changed, or too much did)

`publish` makes it the one that is served over. Which items are at fault where a check is not met stands in checks.json.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.catalogue.config import CatalogueConfig
from components.catalogue.merge import MergeResult, merge
from components.catalogue.rejected import RejectedItems, join_names
from rankline.model import catalogue as catalogues
from rankline.model.bundle import Bundle
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import ledger
from rankline.runtime.progress import Progress

if TYPE_CHECKING:
    from components.catalogue.checks import Check

CHECKS_FILE, CATALOGUE_FOLDER = "checks.json", "catalogue"
PUBLISH, UNCHANGED, REFUSED = "publish", "unchanged", "refused"
ACTOR = "rankline refresh"
MAX_UNKNOWN = 100  # unknown ids that checks.json names


def catalogue(
    raw: Path,
    revision: Path,
    *,
    config: CatalogueConfig,
    bundle: Bundle,
    progress: Progress = Progress(),
    serves_over: str = "",
) -> dict[str, Any]:
    """Make and check the catalogue of ``bundle`` with the items of ``raw``; the outcome is publish, unchanged, refused.

    ``serves_over`` is the revision that the model serves over now, as the repository has it.

    Raises:
        IntegrityError: the model is of an earlier version and cannot embed items, or a declared column of the items
            is not what it was in training.
        ServerError: the server does not start on the new catalogue, or does not answer a canary.
    """
    import pyarrow.parquet as parquet

    from components.catalogue import checks  # it asks a server, and `publish` runs in an image that knows none

    revision.mkdir(parents=True)
    maker = catalogues.CatalogueBuilder.from_bundle(bundle)
    told = json.loads((raw / "summary.json").read_text())
    progress.phase("laying the items over those that are there")
    current = parquet.read_table(bundle.catalogue / catalogues.ITEMS)
    rejected = RejectedItems.of(raw, {*current["item_id"].to_pylist()})
    merged = merge(
        current,
        parquet.read_table(raw / "items.parquet"),
        provided=told["items_tell"],
        whole=config.whole,
        only=told.get("items_only", False),
        rejected=rejected.items,
    )
    facts: dict[str, Any] = {"model_id": bundle.model_id, "serves_over": serves_over}
    facts |= {"counts": {**merged.counts, "set_aside": rejected.rows, "unknown": len(merged.unknown)}}
    facts |= {"notes": " ".join(_notes(merged, rejected)), "unknown": merged.unknown[:MAX_UNKNOWN]}
    if merged.is_unchanged:
        sentence = f"All {merged.unchanged} items are as they were: revision {bundle.revision} stays."
        return _write_result(revision, facts, UNCHANGED, sentence, [])

    met = [*checks.check_counts(merged, config), checks.check_words(current, merged, config)]
    if all(check.met for check in met):
        progress.phase("embedding")
        catalogue_folder = revision / CATALOGUE_FOLDER
        built = maker.build(
            merged.items,
            catalogue_folder,
            interaction_counts=catalogues.InteractionCounts.from_bundle(bundle),
            before=bundle.catalogue if config.reuse else None,
            progress=progress,
        )
        facts |= {"revision": built.revision, "embedded": built.embedded, **built.summary}
        progress.phase("checking")
        met += checks.check_vectors(catalogue_folder, bundle, items=len(merged.items))
        if all(check.met for check in met):  # a server would not load it
            met += checks.check_norms(catalogue_folder, bundle, config)
            met.append(checks.check_recall(catalogue_folder, config))
            progress.phase("asking the canaries")
            with tempfile.TemporaryDirectory(dir=revision.parent) as scratch:
                served = catalogues.assemble_bundle(bundle, catalogue_folder, Path(scratch) / "bundle")
                met += checks.check_canaries(
                    served, merged.items, folder=Path(scratch), config=config, progress=progress
                )
    if failed := [check for check in met if not check.met]:
        sentence = f"{len(failed)} of {len(met)} checks not met; revision {bundle.revision} stays."
        return _write_result(revision, facts, REFUSED, sentence, met)
    counts = merged.counts
    sentence = (
        f"Revision {facts['revision']}: {counts['added']} items added, {counts['changed']} changed "
        f"({counts['withdrawn']} of them withdrawn), {counts['gone']} taken out, {counts['unchanged']} as they were."
    )
    return _write_result(revision, facts, PUBLISH, sentence, met)


def _notes(merged: MergeResult, rejected: RejectedItems) -> Iterator[str]:
    """What was told and not taken up, a sentence each."""
    if rejected.rows:
        kept = (
            f"; {len(merged.retained)} items stay for that alone: {join_names(merged.retained)}"
            if merged.retained
            else ""
        )
        yield f"{rejected.rows} rows of items were set aside (rejected.parquet of ingest){kept}."
    if rejected.superseded:
        yield f"{rejected.superseded} rows gave way to a later row of the same item."
    if merged.unknown:
        yield f"{len(merged.unknown)} unknown items were not added, having no words: {join_names(merged.unknown)}."


def _write_result(folder: Path, facts: dict[str, Any], outcome: str, sentence: str, met: list[Check]) -> dict[str, Any]:
    """What follows, written down and returned."""
    result = {
        "outcome": outcome,
        "sentence": f"{sentence} {facts['notes']}".strip(),
        "failures": [check.sentence for check in met if not check.met],
        **facts,
    }
    ledger.write_json(folder / CHECKS_FILE, {**result, "checks": [check.model_dump() for check in met]})
    return result


def served_revision(champion: str, *, repository: str) -> str:
    """The published revision that the champion serves over; empty for the one it was exported with."""
    pointer = ModelRegistry(repository, repair_cache=False).champion_record()
    return pointer.revision if pointer is not None and pointer.model_id == champion else ""


def publish(
    revision: Path, *, repository: str, run_id: str = "", config: Any = None, progress: Progress = Progress()
) -> dict[str, Any]:
    """Put a checked catalogue into the repository and have the champion serve over it.

    Raises:
        StaleEvidence: another model, or the same over another catalogue, serves by now.
        IntegrityError: a byte of the catalogue is not what its digests promise.
    """
    checked = json.loads((revision / CHECKS_FILE).read_text())
    assert checked["outcome"] == PUBLISH, "the flow comes here only then"
    progress.phase("publishing")
    models = ModelRegistry(repository)
    event = models.publish(
        checked["model_id"],
        models.add_catalogue(checked["model_id"], revision / CATALOGUE_FOLDER),
        who=ACTOR,
        why=checked["sentence"],
        run_id=run_id,
        details={"counts": checked["counts"], "checks": {check["name"]: check["value"] for check in checked["checks"]}},
        expected_champion=checked["model_id"],
        expected_revision=checked["serves_over"],
    )
    return {"model_id": checked["model_id"], "revision": checked["revision"], "event": event.n}
