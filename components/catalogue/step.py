"""catalogue: changed items become a new revision of the champion's catalogue, if it passes every check.

Reads    raw/       items.parquet, summary.json; the champion's bundle with the catalogue it serves over
Writes   revision/  checks.json   the changes, every check with its sentence, and the outcome
                    catalogue/    items, vectors, index and sources (missing if nothing changed, or too much did)

`publish` makes it the revision that the champion serves over. checks.json names the items that fail a check.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.catalogue.config import CatalogueConfig
from components.catalogue.merge import Changes, MergeResult, merge
from components.catalogue.rejected import RejectedItems, join_names
from rankline.io.files import write_json
from rankline.model import catalogue as catalogues
from rankline.model.bundle import Bundle
from rankline.registry.event_text import one_line
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.outcomes import Outcome
from rankline.runtime.progress import Progress

if TYPE_CHECKING:
    from components.catalogue.checks import Check

CHECKS_FILE, CATALOGUE_FOLDER = "checks.json", "catalogue"
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
    """Build and check the catalogue of ``bundle`` with new items; the outcome is publish, unchanged or refused.

    ``serves_over`` is the revision that the registry says the model serves over now.

    Raises:
        IntegrityError: the model is of an earlier version and cannot embed items, or a declared column of the items
            differs from training.
        ServerError: the server does not start on the new catalogue, or does not answer a canary.
    """
    import pyarrow.parquet as parquet

    from components.catalogue import checks as checking  # it starts a server, and the image of `publish` has none

    revision.mkdir(parents=True)
    builder = catalogues.CatalogueBuilder.from_bundle(bundle)
    progress.phase("merging items")
    current = parquet.read_table(bundle.catalogue / catalogues.ITEMS)
    rejected = RejectedItems.read(raw, {*current["item_id"].to_pylist()})
    merged = _merge_items(raw, current, rejected, config)
    facts: dict[str, Any] = {
        "model_id": bundle.model_id,
        "serves_over": serves_over,
        "counts": {**merged.counts, "set_aside": rejected.rows, "unknown": len(merged.unknown)},
        "notes": " ".join(_notes(merged, rejected)),
        "unknown": merged.unknown[:MAX_UNKNOWN],
    }
    if merged.is_unchanged:
        sentence = f"All {merged.unchanged} items are unchanged: revision {bundle.revision} stays."
        return _write_result(revision, facts, Outcome.UNCHANGED.verdict, sentence, [])

    checks = [*checking.check_counts(merged, config), checking.check_words(current, merged, config)]
    if all(check.met for check in checks):
        progress.phase("embedding")
        built = builder.build(
            merged.items,
            revision / CATALOGUE_FOLDER,
            interaction_counts=catalogues.InteractionCounts.from_bundle(bundle),
            before=bundle.catalogue if config.reuse else None,
            progress=progress,
        )
        facts |= {"revision": built.revision, "embedded": built.embedded, **built.summary}
        checks += _check_built(revision / CATALOGUE_FOLDER, bundle, merged.items, config, progress)
    if failed := [check for check in checks if not check.met]:
        sentence = f"{len(failed)} of {len(checks)} checks not met; revision {bundle.revision} stays."
        return _write_result(revision, facts, Outcome.REFUSED.verdict, sentence, checks)
    counts = merged.counts
    sentence = (
        f"Revision {facts['revision']}: {counts['added']} items added, {counts['changed']} changed "
        f"({counts['withdrawn']} of them withdrawn), {counts['gone']} removed, {counts['unchanged']} unchanged."
    )
    return _write_result(revision, facts, Outcome.PUBLISHED.verdict, sentence, checks)


def _merge_items(raw: Path, current: Any, rejected: RejectedItems, config: CatalogueConfig) -> MergeResult:
    import pyarrow.parquet as parquet

    summary = json.loads((raw / "summary.json").read_text())
    changes = Changes(
        provided=summary["items_tell"],
        whole=config.whole,
        partial=summary.get("items_only", False),
        rejected=rejected.items,
    )
    return merge(current, parquet.read_table(raw / "items.parquet"), changes)


def _check_built(folder: Path, bundle: Bundle, items: Any, config: CatalogueConfig, progress: Progress) -> list[Check]:
    """Check a catalogue that was built; vectors that no server would load are not checked further."""
    from components.catalogue import checks as checking

    progress.phase("checking")
    checks = list(checking.check_vectors(folder, bundle, items=len(items)))
    if not all(check.met for check in checks):
        return checks
    checks += checking.check_norms(folder, bundle, config)
    checks.append(checking.check_recall(folder, config))
    progress.phase("querying canaries")
    with tempfile.TemporaryDirectory(dir=folder.parents[1]) as scratch:
        served = catalogues.assemble_bundle(bundle, folder, Path(scratch) / "bundle")
        checks += checking.check_canaries(served, items, folder=Path(scratch), config=config, progress=progress)
    return checks


def _notes(merged: MergeResult, rejected: RejectedItems) -> Iterator[str]:
    """A sentence for everything of the source that was not applied."""
    if rejected.rows:
        retained = ""
        if merged.retained:
            retained = f"; {len(merged.retained)} items stay because of that: {join_names(merged.retained)}"
        yield f"{rejected.rows} rows of items were rejected (rejected.parquet of ingest){retained}."
    if rejected.superseded:
        yield f"{rejected.superseded} rows were superseded by a later row of the same item."
    if merged.unknown:
        yield f"{len(merged.unknown)} unknown items without words were not added: {join_names(merged.unknown)}."


def _write_result(
    folder: Path, facts: dict[str, Any], outcome: str, sentence: str, checks: list[Check]
) -> dict[str, Any]:
    """Write checks.json; returns it without the checks that are met."""
    result = {
        "outcome": outcome,
        "sentence": f"{sentence} {facts['notes']}".strip(),
        "failures": [check.sentence for check in checks if not check.met],
        **facts,
    }
    write_json(folder / CHECKS_FILE, {**result, "checks": [check.model_dump() for check in checks]})
    return result


def served_revision(champion: str, *, repository: str) -> str:
    """The published revision that the champion serves over; empty for the one it was exported with."""
    record = ModelRegistry(repository, repair_cache=False).champion_record()
    return record.revision if record is not None and record.model_id == champion else ""


def publish(
    revision: Path, *, repository: str, run_id: str = "", config: Any = None, progress: Progress = Progress()
) -> dict[str, Any]:
    """Add a checked catalogue to the registry and let the champion serve over it.

    Raises:
        StaleEvidence: the champion, or its revision, changed since the checks.
        IntegrityError: the catalogue does not match its digests.
    """
    checked = json.loads((revision / CHECKS_FILE).read_text())
    assert checked["outcome"] == Outcome.PUBLISHED.verdict, "the pipeline publishes nothing else"
    progress.phase("publishing")
    models = ModelRegistry(repository)
    event = models.publish(
        checked["model_id"],
        models.add_catalogue(checked["model_id"], revision / CATALOGUE_FOLDER),
        who=ACTOR,
        why=one_line(checked["sentence"]),
        run_id=run_id,
        details={"counts": checked["counts"], "checks": {check["name"]: check["value"] for check in checked["checks"]}},
        expected_champion=checked["model_id"],
        expected_revision=checked["serves_over"],
    )
    return {"model_id": checked["model_id"], "revision": checked["revision"], "event": event.n}
