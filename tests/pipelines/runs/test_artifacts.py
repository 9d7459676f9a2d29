"""The outputs of a finished step, wherever a whole copy of them still is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.runs.artifacts import find_output
from rankline.io.artifacts import declared_digest, write_digests
from rankline.io.storage import StorageConfig
from rankline.runtime import ledger, references
from rankline.runtime.run_context import RunContext

RUN = "20260101-000000-smoke"


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    """The context of a run whose step has an output in the run's folder, and in the cache under another key."""
    context = RunContext(tmp_path, RUN, StorageConfig())
    output = context.folder / "artifacts" / "features"
    for folder in (output, context.cache_folder("featurize") / "other" / "features"):
        folder.mkdir(parents=True)
        (folder / "rows.txt").write_text("rows")
        write_digests(folder)
    entry = ledger.Entry(step="featurize", status="done", started=0.0, key="gone", paths={"features": str(output)})
    ledger.write_entry(context.folder, entry.model_copy(update={"outputs": {"features": declared_digest(output)}}))
    return context


def output_of(context: RunContext, *runs: str) -> Path | None:
    return find_output(runs or (RUN,), "featurize", "features", context)


def test_the_runs_own_output_comes_first(context: RunContext) -> None:
    assert output_of(context, "unknown", RUN) == context.folder / "artifacts" / "features"
    assert output_of(context, "unknown") is None


@pytest.mark.parametrize("damage", ["gone", "changed", "reference"])
def test_the_same_output_in_the_cache_takes_its_place(context: RunContext, damage: str) -> None:
    output = context.folder / "artifacts" / "features"
    if damage == "changed":
        (output / "rows.txt").write_text("other rows")
    else:
        shutil.rmtree(output)
    if damage == "reference":
        references.write(output, references.Reference(step="featurize", key="k", output="features", digest="d"))
    assert output_of(context) == context.cache_folder("featurize") / "other" / "features"


def test_what_is_whole_nowhere_is_none(context: RunContext) -> None:
    shutil.rmtree(context.folder / "artifacts")
    (context.cache_folder("featurize") / "other" / "features" / "rows.txt").write_text("other rows")
    assert output_of(context) is None


def test_a_step_that_failed_has_no_output(context: RunContext) -> None:
    (entry,) = ledger.read_entries(context.folder).values()
    ledger.write_entry(context.folder, entry.model_copy(update={"status": "failed"}))
    assert output_of(context) is None
