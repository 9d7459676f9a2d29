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
RUN_MEASURES = "run_measures.json"  # beside a verdict whose gates read them

CANDIDATE, CHAMPION, ANCHOR, TEACHER = "candidate", "champion", "anchor", "teacher"  # systems that are models
SOURCE, CONTROL = "source_", "control_"  # prefixes: a candidate source of the model alone; a control of the words


def is_baseline(system: str) -> bool:
    """Whether a system is a baseline: no model, no part of one, no control."""
    return system not in (CANDIDATE, CHAMPION, ANCHOR, TEACHER) and not system.startswith((SOURCE, CONTROL))


class Estimate(FrozenModel):
    """A mean over requests with its 95% bootstrap interval."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None


class SystemScores(FrozenModel):
    """A system's scores on all requests."""

    metrics: dict[str, Estimate] = Field(description='"ndcg@10", "hr@10", "mrr@10", "recall@50", "map@10"…')
    lists: dict[str, float | None] = Field(
        default={}, description="coverage, diversity, novelty, popularity lift and Gini coefficient of all its lists"
    )


class SliceScores(FrozenModel):
    """The means on a group of requests; of a small one only its size."""

    requests: int
    systems: dict[str, dict[str, float | None]] = Field(description="system -> metric -> mean; null on a small slice")


class GroupExposure(FrozenModel):
    """A group's shares: of the candidate's exposure, of the catalogue, and of the targets."""

    exposure: float
    catalogue: float
    relevance: float | None = Field(default=None, description="its share of the targets; null without a known target")


class ExposureScores(FrozenModel):
    """How the candidate's exposure is divided among the groups of an attribute of items (Singh & Joachims 2018)."""

    max_gap: float = Field(description="the largest difference of a group's share from its share of the catalogue")
    max_gap_to_relevance: float | None = Field(default=None, description="and from its share of the targets")
    groups: dict[str, GroupExposure] = Field(description="the groups with the largest differences, the largest first")


class RunMeasures(FrozenModel):
    """What is measured when the verdict is given: of the data, of its age, of the run's cost."""

    data: dict[str, float | None] = Field(
        default={}, description="rows, shares that were set aside, changes and drift since the last good run"
    )
    freshness: dict[str, float | None] = Field(default={}, description="age of the newest event and of the features")
    cost: dict[str, float | None] = Field(default={}, description="core-seconds, memory and money of the run so far")


class Latency(FrozenModel):
    """The server's answer times on the machine that evaluated, and the requests per second."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    throughput_rps: float | None = None
    provider: str | None = Field(default=None, description="where the graphs ran: cpu or cuda")


class ServedParity(FrozenModel):
    """How far the served answers are from torch's, on the same requests and candidates."""

    requests: int = 0
    provider: str | None = Field(default=None, description="where the graphs ran: cpu or cuda")
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
    slices: dict[str, SliceScores] = Field(
        default={}, description="new items, head and tail, values of attributes such as item.category=Drama…"
    )
    latency: Latency = Latency()
    parity: ServedParity = ServedParity()
    model: ModelFootprint = ModelFootprint()
    calibration: dict[str, float | None] = Field(default={}, description="of the rating head")
    heads: dict[str, HeadScores] = Field(default={}, description="of the declared labels, by label")
    exposure: dict[str, ExposureScores] = Field(default={}, description="of the candidate, by attribute of items")
    run_measures: RunMeasures = Field(default=RunMeasures(), description="added when the verdict is given")
    details: dict[str, Any] = Field(default={}, description="for readers: precisions, settings, timings")

    def metric(self, system: str, name: str) -> float | None:
        """The mean of a system's lists in a metric ("ndcg@10"); None if it was not measured."""
        scores = self.systems.get(system)
        return scores.metrics[name].mean if scores is not None and name in scores.metrics else None

    def strongest(self, metric: str, *, prefix: str = "") -> str:
        """The baseline with the highest mean, or with a ``prefix`` the system of that kind; empty for none."""
        names = [name for name in self.systems if (name.startswith(prefix) if prefix else is_baseline(name))]
        known = {name: mean for name in names if (mean := self.metric(name, metric)) is not None}
        return max(known, key=lambda name: (known[name], name), default="")


def write_report(folder: Path, report: Report) -> None:
    (folder / REPORT).write_text(report.model_dump_json(indent=2) + "\n")


def read_report(folder: Path, *, run_measures: Path | None = None) -> Report:
    """Read report.json; with the ``run_measures`` beside a verdict, if it has any, as its gates read it.

    Raises:
        UsageError: the folder has none.
        IntegrityError: it cannot be read.
    """
    path = folder / REPORT
    try:
        report = Report.model_validate(json.loads(path.read_text()))
        if run_measures is None or not run_measures.is_file():
            return report
        measured = RunMeasures.model_validate(json.loads(run_measures.read_text()))
        return report.model_copy(update={"run_measures": measured})
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
