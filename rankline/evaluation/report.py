"""The evaluation artifact, which `evaluate` writes and the decision reads.

    report.json          a Report: every system's scores, slices, latency, parity, size
    per_request.parquet  request_id, system, and one column per metric: the same requests for every system
    requests.parquet     request_id, cluster (whose requests are alike: the user, or the query), at (unix seconds)

A number that was not measured is null, and fails its check.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rankline.contracts import FrozenModel
from rankline.errors import IntegrityError, UsageError

REPORT = "report.json"
PER_REQUEST, REQUESTS, SLICES = "per_request.parquet", "requests.parquet", "slices.parquet"

CANDIDATE, CHAMPION, ANCHOR = "candidate", "champion", "anchor"  # systems; the others are baselines


class Estimate(FrozenModel):
    """A mean over requests with its 95% bootstrap interval."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None


class SystemScores(FrozenModel):
    """A system's scores on all requests."""

    metrics: dict[str, Estimate] = Field(description='"ndcg@10", "hr@10", "mrr@10", "recall@50", "map@10"…')
    lists: dict[str, float | None] = Field(default={}, description="coverage, diversity and novelty of all its lists")


class SliceScores(FrozenModel):
    requests: int
    systems: dict[str, dict[str, float | None]] = Field(description="system -> metric -> mean")


class Latency(FrozenModel):
    """The server's answer times on the machine that evaluated."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    throughput_rps: float | None = None
    provider: str | None = Field(default=None, description="where the graphs ran: cpu or cuda")


class ServedParity(FrozenModel):
    """How far the served answers are from torch's, on the same requests and candidates."""

    requests: int = 0
    served_max_abs_difference: float | None = None
    same_top10_share: float | None = Field(default=None, description="apart from ties within the tolerance")


class ModelFootprint(FrozenModel):
    """The size of the bundle, on disk and in memory."""

    size_bytes: int | None = None
    memory_bytes: int | None = Field(default=None, description="the server's peak resident memory")


class Decile(FrozenModel):
    """A tenth of the impressions by the chance that was served for them."""

    count: int
    mean_chance: float
    share: float = Field(description="of the impressions in which the label happened")

    @property
    def gap(self) -> float:
        """How much the chance exceeds what happened."""
        return self.mean_chance - self.share


class HeadScores(FrozenModel):
    """How well the head of a declared label predicts, on the test exposures sent through the server."""

    type: str = Field(description="binary, graded, count or continuous")
    impressions: int = Field(description="of which the label is known")
    metrics: dict[str, float | None] = Field(
        description="auc, pr_auc, log_loss, ece, worst_decile, precision, recall, f1; mse and mae of values"
    )
    deciles: list[Decile] = Field(default=[], description="of a binary label, by the served chance")
    validation: dict[str, float | None] = Field(
        default={}, description="what the head reaches across folds, and without what positions add"
    )


class Report(FrozenModel):
    """The measurements of a candidate bundle on one set of snapshot requests."""

    model_id: str
    recipe: str
    run_id: str
    champion: str = Field(default="", description="the model id of the champion it was compared with; empty for none")
    anchor: str = Field(default="", description="the model id of the system `anchor`; empty for none, or the champion")
    requests: int
    systems: dict[str, SystemScores]
    slices: dict[str, SliceScores] = Field(default={}, description="new items, head and tail, categories…")
    latency: Latency = Latency()
    parity: ServedParity = ServedParity()
    model: ModelFootprint = ModelFootprint()
    calibration: dict[str, float | None] = Field(default={}, description="of the rating head")
    heads: dict[str, HeadScores] = Field(default={}, description="of the declared labels, by label")
    details: dict[str, Any] = Field(default={}, description="for readers: precisions, settings, timings")

    def metric(self, system: str, name: str) -> float | None:
        """The mean of a system's lists in a metric ("ndcg@10"); None if it was not measured."""
        scores = self.systems.get(system)
        return scores.metrics[name].mean if scores is not None and name in scores.metrics else None


def write_report(folder: Path, report: Report) -> None:
    (folder / REPORT).write_text(report.model_dump_json(indent=2) + "\n")


def read_report(folder: Path) -> Report:
    """Read report.json.

    Raises:
        UsageError: the folder has none.
        IntegrityError: it cannot be read.
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
            hint="pass the folder that `rankline step evaluate` wrote",
        ) from error
    except (ValidationError, ValueError) as error:
        raise IntegrityError(
            "the evaluation report cannot be read",
            expected="the fields of rankline.evaluation.report.Report",
            found="; ".join(str(error).splitlines()[:3]),
            where=str(path),
            hint="evaluate the bundle again with this version of Rankline",
        ) from error
