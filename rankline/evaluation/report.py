"""The evaluation artifact: what `evaluate` measured and what the decision reads.

    report.json          a Report: every system's scores, slices, latency, parity, size
    per_request.parquet  request_id, system, and one column a metric: the same requests for every system

A number that could not be measured is null, never zero and never left to guess; the decision refuses it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rankline.contracts import FrozenModel
from rankline.errors import IntegrityError, UsageError

REPORT = "report.json"
PER_REQUEST = "per_request.parquet"

CANDIDATE, CHAMPION = "candidate", "champion"
# Who may appear in a report; all but the first two are there to be beaten.
SYSTEMS = (
    CANDIDATE,
    CHAMPION,
    "teacher",
    "popularity",
    "fresh_popularity",
    "item_knn",
    "item_knn_decay",
    "untuned_encoder",
)


class Estimate(FrozenModel):
    """A mean over requests with its 95% bootstrap interval."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None


class SystemScores(FrozenModel):
    """What one way of ranking scored on all requests."""

    metrics: dict[str, Estimate] = Field(description='"ndcg@10", "hr@10", "mrr@10", "recall@50", "map@10"…')
    lists: dict[str, float | None] = Field(
        default={}, description="what its lists look like as a whole: coverage, diversity, novelty"
    )


class SliceScores(FrozenModel):
    """The same scores on some of the requests."""

    requests: int
    systems: dict[str, dict[str, float | None]] = Field(description="system -> metric -> mean")


class Latency(FrozenModel):
    """What the server took to answer, measured on the machine that evaluated."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    throughput_rps: float | None = None


class ServedParity(FrozenModel):
    """How far the served answers are from torch's, on the same requests and candidates."""

    requests: int = 0
    served_max_abs_difference: float | None = None
    same_top10_share: float | None = Field(default=None, description="ties within the tolerance aside")


class ModelFootprint(FrozenModel):
    """What it costs to hold the model."""

    size_bytes: int | None = None
    memory_bytes: int | None = Field(default=None, description="the server's peak resident memory")


class Report(FrozenModel):
    """Everything measured of one candidate bundle, on one set of frozen requests."""

    model_id: str
    recipe: str
    run_id: str
    champion: str = Field(default="", description="the model measured beside it; empty for none")
    requests: int
    systems: dict[str, SystemScores]
    slices: dict[str, SliceScores] = Field(default={}, description="new items, head and tail, categories…")
    latency: Latency = Latency()
    parity: ServedParity = ServedParity()
    model: ModelFootprint = ModelFootprint()
    calibration: dict[str, float | None] = Field(default={}, description="of the rating head")
    details: dict[str, Any] = Field(default={}, description="for readers: precisions, settings, timings")


def write_report(folder: Path, report: Report) -> None:
    """Write ``report`` where :func:`read_report` finds it."""
    (folder / REPORT).write_text(report.model_dump_json(indent=2) + "\n")


def read_report(folder: Path) -> Report:
    """The report of an evaluation folder.

    Raises:
        UsageError: there is none.
        IntegrityError: it is there and cannot be read.
    """
    path = folder / REPORT
    try:
        return Report.model_validate(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise UsageError(
            "this is not an evaluation",
            expected=f"{REPORT} and {PER_REQUEST}",
            found=f"no {REPORT}",
            where=str(folder),
            hint="give the folder that `rankline step evaluate` wrote",
        ) from error
    except (ValidationError, ValueError) as error:
        raise IntegrityError(
            "the evaluation report cannot be read",
            expected="the fields of rankline.evaluation.report.Report",
            found="; ".join(str(error).splitlines()[:3]),
            where=str(path),
            hint="evaluate the bundle again with this version of Rankline",
        ) from error


def read_scores(folder: Path, metric: str) -> dict[str, dict[str, float]]:
    """System -> request id -> that request's ``metric``; empty where the column is missing.

    Raises:
        IntegrityError: the file is missing, unreadable, or scores one request twice for one system.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = folder / PER_REQUEST
    hint = "evaluate the bundle again"
    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(
            "the per-request scores cannot be read",
            expected=f"{PER_REQUEST} with request_id, system and a column a metric",
            found=str(error).splitlines()[0],
            where=str(path),
            hint=hint,
        ) from error
    if not {"request_id", "system", metric} <= set(table.column_names):
        return {}
    scores: dict[str, dict[str, float]] = {}
    columns = (table[name].to_pylist() for name in ("system", "request_id", metric))
    for system, request, value in zip(*columns, strict=True):
        of_system = scores.setdefault(system, {})
        if request in of_system:
            raise IntegrityError(
                "a request is scored twice",
                expected="one row for each request and system",
                found=f"two rows for request {request} of {system}",
                where=str(path),
                hint=hint,
            )
        of_system[request] = float("nan") if value is None else float(value)
    return scores
