"""The events since the last training, by the recipe's own ingest, and those of training that they are compared with.

Reading the source is what a check costs. Where its digest is that of the check before, nothing is read. The days of
training are counted once and stored: the run's tables may be removed later.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from components.ingest.config import IngestConfig
from components.ingest.lineage import erased_users
from components.ingest.step import ingest
from pipelines.recipe import Recipe, run_context, step_settings
from pipelines.runs.artifacts import find_output
from pipelines.schedules.triggers.columns import Bins, Column, DailyCounts, reference_start
from pipelines.schedules.triggers.observation import MAX_CHECK_TIME
from pipelines.schedules.triggers.training import Training
from rankline.contracts import FrozenModel
from rankline.errors import TooSmall, UsageError
from rankline.io import sources
from rankline.io.files import read_json_object, write_json
from rankline.io.sql import memory_database

Stored = TypeVar("Stored", bound=FrozenModel)
MEMORY_MB = 512
_TEMPORARY = ".live-"
REFERENCE, LIVE = "training.json", "live.json"


class ColumnDays(FrozenModel):
    """The days of one column, by the bins of training."""

    bins: Bins
    days: DailyCounts


class Reference(FrozenModel):
    """The days of the last training."""

    run: str
    columns: dict[str, ColumnDays] = Field(default={})
    problems: dict[str, str] = Field(default={}, description="column -> why there is none")


class Live(FrozenModel):
    """What came since the last training."""

    source: str
    run: str
    until: str
    events: int
    columns: dict[str, ColumnDays] = Field(default={})


def read_reference(
    folder: Path, training: Training, recipe: Recipe, workspace: Path, names: Sequence[str], *, zone: str
) -> Reference:
    """The days of training of these columns, from the tables of its run or as stored by an earlier check.

    Raises:
        UsageError: the tables of the run are gone.
    """
    stored = _read(folder / REFERENCE, Reference)
    if stored and stored.run == training.run and set(names) <= {*stored.columns, *stored.problems}:
        return stored
    raw = find_output([training.run], "ingest", "raw", run_context(recipe, workspace))
    if raw is None:
        raise UsageError(
            f"the tables of run {training.run} are gone, so nothing can be compared with them",
            expected="the output of ingest, or a check while it was there",
            where=str(workspace / "runs" / training.run),
            hint="the next training is compared with from its first check on; `--keep` keeps more runs",
        )
    since, until = reference_start(training.data_end), training.data_end
    columns, problems = {}, {}
    with memory_database(memory_mb=MEMORY_MB) as db:
        for name in names:
            try:
                column = Column(db, raw, name)
            except UsageError as error:
                problems[name] = str(error)
                continue
            bins, first = column.bins(since, until), max(since, column.first_event())
            columns[name] = ColumnDays(bins=bins, days=column.daily(bins, first, until, zone))
    reference = Reference(run=training.run, columns=columns, problems=problems)
    write_json(folder / REFERENCE, reference.model_dump())
    return reference


def read_live(
    folder: Path,
    training: Training | None,
    recipe: Recipe,
    workspace: Path,
    bins: Mapping[str, Bins],
    *,
    until: datetime,
    zone: str,
) -> Live:
    """The events from the end of training up to ``until``.

    Raises:
        RanklineError: the source cannot be read as the recipe says.
    """
    settings = step_settings(recipe, str(workspace))["ingest"]
    config = IngestConfig(**settings)
    source, run = sources.source_digest(config), "" if training is None else training.run
    stored = _read(folder / LIVE, Live)
    same_day = stored is not None and stored.until[:10] == until.isoformat()[:10]
    if stored and same_day and (stored.source, stored.run) == (source, run) and set(bins) <= set(stored.columns):
        return stored
    since = training.data_end if training else None
    window = {"window_start": since and since.isoformat(), "window_end": until.isoformat()}
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder) as temporary:
        raw = Path(temporary)
        summary = _ingest(raw, IngestConfig(**{**config.model_dump(), **window}), recipe, workspace)
        columns = {}
        with memory_database(memory_mb=MEMORY_MB) as db:
            for name, each in bins.items():
                assert since is not None, "bins come from a training"
                columns[name] = ColumnDays(bins=each, days=Column(db, raw, name).daily(each, since, until, zone))
    live = Live(source=source, run=run, until=until.isoformat(), events=summary["rows"]["events"], columns=columns)
    write_json(folder / LIVE, live.model_dump())
    return live


def _remove_leftovers(folder: Path) -> None:
    """Remove what checks that were killed have left."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        if time.time() - path.stat().st_mtime > MAX_CHECK_TIME.total_seconds():
            shutil.rmtree(path, ignore_errors=True)


def _ingest(raw: Path, config: IngestConfig, recipe: Recipe, workspace: Path) -> dict[str, Any]:
    """Ingest a window, which may hold no event."""
    with contextlib.suppress(TooSmall):
        ingest(raw, config=config, erased=erased_users(run_context(recipe, workspace)))
    summary = read_json_object(raw / "summary.json")
    assert summary is not None, "ingest writes it before it counts"
    return summary


def _read(path: Path, kind: type[Stored]) -> Stored | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
