"""What the ledger of a run says of a candidate's making: its steps and their cost, its data, its settings.

A run on a cluster may have no ledger here, and one of an earlier version less in it: what is unknown is empty.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankline.io.files import read_json_object
from rankline.io.secret_queries import mask_secrets
from rankline.io.sources.settings import mask_passwords
from rankline.runtime import ledger

RECIPE, WATCHER = "recipe.json", "watcher.json"  # as pipelines/runs/folder.py writes them
DECIDE = "decide"
Curve = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class StepFacts:
    """What a step of the run took, and the digests of what it wrote."""

    step: str
    status: str
    seconds: float
    core_s: float
    peak_memory_bytes: int
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class DataFacts:
    """The data of the run, and how it differs from that of the last good run."""

    rows: Mapping[str, int]
    rejected: Mapping[str, int]
    changes: Mapping[str, float]  # <table>_rows_change and <label>_drift; empty where nothing was compared
    warnings: tuple[str, ...]
    first: str
    last: str
    compared: bool | None  # None: validate was reused or did not say, so an earlier good run may exist by now


@dataclass(frozen=True)
class RunFacts:
    """What is known of the run."""

    run_id: str
    steps: tuple[StepFacts, ...]
    data: DataFacts | None
    settings: Mapping[str, str] = field(default_factory=dict)  # that differ from the defaults, as JSON
    images: Mapping[str, str] = field(default_factory=dict)  # of a run in containers
    commands: tuple[str, ...] = ()  # that repeat the run, and the verdict
    curves: Mapping[str, Curve] = field(default_factory=dict)  # step and part -> one point per epoch

    @property
    def core_s(self) -> float:
        """The CPU time of all steps."""
        return sum(each.core_s for each in self.steps)


def read_run(folder: Path | None) -> RunFacts | None:
    """What the ledger in a run's folder says; None where no step before the decision left an entry."""
    entries = ledger.read_entries(folder) if folder is not None else {}
    entries.pop(DECIDE, None)  # it is under way
    if folder is None or not entries:
        return None
    return RunFacts(
        run_id=folder.name,
        steps=tuple(_step(entry) for entry in entries.values()),
        data=_data(entries),
        settings=dict(_settings(entries)),
        images=_images(folder),
        commands=_commands(folder),
        curves=dict(training_curves(entries)),
    )


def _step(entry: ledger.Entry) -> StepFacts:
    return StepFacts(
        entry.step, entry.status, entry.seconds, entry.core_s, entry.peak_memory_bytes, dict(entry.outputs)
    )


def _data(entries: Mapping[str, ledger.Entry]) -> DataFacts | None:
    results = {name: entries[name].result for name in ("ingest", "validate") if name in entries}
    ingest, validate = results.get("ingest", {}), results.get("validate", {})
    rows = _numbers(validate.get("rows") or ingest.get("rows"))
    if not rows:
        return None
    rejected = {table: sum(_numbers(reasons).values()) for table, reasons in _object(ingest.get("rejected")).items()}
    time, warnings = _object(ingest.get("event_time")), validate.get("warnings")
    return DataFacts(
        rows={name: int(value) for name, value in rows.items()},
        rejected={table: int(count) for table, count in rejected.items() if count},
        changes=_numbers(validate.get("changes")),
        warnings=tuple(map(str, warnings)) if isinstance(warnings, list) else (),
        first=str(time.get("first") or ""),
        last=str(time.get("last") or ""),
        compared=_compared(entries),
    )


def _compared(entries: Mapping[str, ledger.Entry]) -> bool | None:
    """Whether the data was compared with the last good run's; None where nothing says it of this run."""
    entry = entries.get("validate")
    value = entry.result.get("compared_with_previous") if entry else None
    return value if value is True or (value is False and entry and entry.status != "reused") else None


def training_curves(entries: Mapping[str, ledger.Entry]) -> Iterator[tuple[str, Curve]]:
    """The training curves that steps wrote, as far as their outputs are still here."""
    for step, entry in entries.items():
        for path in entry.paths.values():
            with contextlib.suppress(OSError, ValueError):
                content = json.loads((Path(path) / "curve.json").read_text())
                parts = content if isinstance(content, dict) else {"": content}
                for part, curve in parts.items():
                    yield f"{step}/{part}".rstrip("/"), [point for point in curve if isinstance(point, dict)]


def _settings(entries: Mapping[str, ledger.Entry]) -> Iterator[tuple[str, str]]:
    for step, entry in entries.items():
        for name, value in leaves(entry.settings):
            yield f"{step}.{name}", mask_secrets(mask_passwords(json.dumps(value, ensure_ascii=False)))


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of the settings in nested sections."""
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _images(folder: Path) -> dict[str, str]:
    """The images of a run in containers: one that this machine's processes ran used none."""
    if read_json_object(folder / WATCHER).get("runner") == "local":
        return {}
    cluster = _object(read_json_object(folder / RECIPE).get("cluster"))
    return {name: image for name, image in _object(cluster.get("images")).items() if isinstance(image, str) and image}


def _commands(folder: Path) -> tuple[str, ...]:
    """The commands that repeat the run, whose folder has its whole recipe, and the verdict from the stored scores."""
    if not (folder / RECIPE).is_file():
        return ()
    where = f"{shlex.quote(folder.name)} -w {shlex.quote(str(folder.parent.parent))}"
    return (f"rankline runs retry {where}", f"rankline gates check {where}")


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _numbers(value: Any) -> dict[str, float]:
    return {name: each for name, each in _object(value).items() if isinstance(each, int | float)}
