"""A workspace with something of every kind that `rankline gc` knows, made in a second by the parts that make them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from pydantic import BaseModel

from components.summary.step import SUMMARY
from pipelines.schedules.firing import Firing
from pipelines.schedules.firings import Firings
from rankline.io.artifacts import link_or_copy, write_digests
from rankline.io.files import write_json
from rankline.model.bundle import Bundle
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import ledger
from rankline.runtime.step_cache import StepCache, cache_key
from tests.rankline.registry.test_model_registry import tiny_bundle

OLD_S = 30 * 86_400.0


class Settings(BaseModel):
    """A step's settings."""

    number: int


def aged(path: Path, *, by: float = OLD_S) -> None:
    """Make all of a folder look old."""
    timestamp = time.time() - by
    for each in [path, *path.rglob("*")]:
        if not each.is_symlink():
            os.utime(each, (timestamp, timestamp))


def key(workspace: Path, number: int) -> dict[str, object]:
    """The key of the featurize of a run."""
    return cache_key("featurize", Settings(number=number), workspace, inputs={}, lineage={})


def add_run(workspace: Path, number: int, *, summary: bool = True) -> Path:
    """A run whose featurize made something, kept in the cache under a second name."""
    from rankline.io import digest

    run = workspace / "runs" / f"202601{number:02}-000000-smoke"
    output = run / "artifacts" / "features"
    output.mkdir(parents=True)
    (output / "table.parquet").write_bytes(f"features {number} ".encode() * 100)
    write_digests(output)
    result = key(workspace, number)
    with StepCache(workspace / "cache" / "featurize").adding(result, {"features": output}, {"rows": number}, run.name):
        pass
    shutil.rmtree(output)
    link_or_copy(workspace / "cache" / "featurize" / digest.json_digest(result) / "features", output)
    entry = ledger.Entry(step="featurize", status="done", started=time.time(), key=digest.json_digest(result))
    from rankline.io.artifacts import declared_digest

    entry.outputs = {"features": declared_digest(output)}
    ledger.write_entry(run, entry)
    write_json(run / "recipe.json", {"name": "smoke"})
    if summary:
        write_json(run / SUMMARY, {"outcome": "promoted", "steps": []})
    return run


def add_model(models: ModelRegistry, folder: Path, number: int, *, promoted: bool = True) -> Bundle:
    """A model with its evidence and weights, which served or was refused."""
    bundle = tiny_bundle(folder / f"made-{number}", weights=f"weights {number}".encode())
    models.add(bundle.folder)
    evidence = folder / f"evidence-{number}"
    evidence.mkdir()
    (evidence / "report.json").write_text(str(number))
    result = {"evaluation": models.add_evidence(evidence)}
    run = f"202601{number:02}-000000-smoke"
    models.append("registered", bundle.model_id, who="t", why="t", run_id=run)
    models.append("evaluated", bundle.model_id, who="t", why="t", digests=result, run_id=run)
    models.append("promoted" if promoted else "rejected", bundle.model_id, who="t", why="t", run_id=run)
    return bundle


def add_firing(workspace: Path, day: int, *, exit_code: int | None = 0, run: str = "") -> Firing:
    """A fire time of the schedule `nightly`; without an exit code it has not ended."""
    at = f"2026-01-{day:02}T03:00:00+00:00"
    firing = Firing(
        schedule="nightly", scheduled_at=at, window_start=None, window_end=at, kind="scheduled", revision=1,
        claimed_at=at, run=run, exit_code=exit_code, started_at=at,
        ended_at="" if exit_code is None else at, status="running" if exit_code is None else "ended",
        outcome="" if exit_code is None else "promoted" if exit_code == 0 else "failed", notified="not asked for",
    )  # fmt: skip
    assert Firings(workspace / "schedules" / "nightly").create(firing)
    return firing


def make(workspace: Path, *, models: int = 4, runs: int = 4) -> list[str]:
    """The world; the ids of its models: the last but one serves and is the anchor. All but the events is old."""
    scratch = workspace.with_name(f"{workspace.name}-scratch")
    scratch.mkdir(parents=True)
    retained = ModelRegistry(workspace / "repository")
    ids = [add_model(retained, scratch, number).model_id for number in range(1, models + 1)]
    retained.append("anchored", ids[-1], who="t", why="so that the first one may go")
    ids.append(add_model(retained, scratch, models + 1, promoted=False).model_id)
    for number in range(1, runs + 1):
        add_run(workspace, number)
    for name in (
        "online/ranking_v1",
        "online/ranking_v0",
        "fetched/0123456789abcdef",
        "checkpoints/featurize/0123456789abcdef",
    ):
        (workspace / name).mkdir(parents=True)
        (workspace / name / "file").write_text(name)
    left = workspace / "cache" / "featurize" / f".half.{'0' * 32}"
    left.mkdir()
    (left / "entry.json").write_text("{")
    for day in (1, 2, 3):
        add_firing(workspace, day)
    Firings(workspace / "schedules" / "nightly").mark_handled(
        Firings(workspace / "schedules" / "nightly").all()[-1].instant
    )
    aged(workspace)
    return ids
