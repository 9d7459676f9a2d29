"""The candidate that evidence is about, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from rankline.contracts import Manifest
from rankline.evaluation.decision import Verdict
from rankline.evaluation.report import ANCHOR, CANDIDATE, CHAMPION, Estimate, Report
from rankline.evidence.comparisons import Comparisons
from rankline.evidence.run_facts import RunFacts

UNKNOWN_LANGUAGE = "unknown"
MAX_METRICS = 6  # that are plotted


@dataclass(frozen=True)
class Group:
    """Slices of one kind, such as those of users: the candidate's metric on each, and how far they are apart."""

    name: str
    means: Mapping[str, float]
    requests: Mapping[str, int]

    @property
    def best(self) -> str:
        """The slice with the highest mean."""
        return max(self.means, key=lambda name: self.means[name])

    @property
    def worst(self) -> str:
        """The slice with the lowest mean."""
        return min(self.means, key=lambda name: self.means[name])

    @property
    def gap(self) -> float:
        """How much the best slice's mean exceeds the worst one's."""
        return self.means[self.best] - self.means[self.worst]


@dataclass(frozen=True)
class Subject:
    """What is known of a candidate; what comes from its run or its evaluation may be missing."""

    report: Report
    verdict: Verdict
    manifest: Manifest
    comparisons: Comparisons | None = None
    run: RunFacts | None = None
    started_from: str = ""  # the model whose weights the training began with
    warning: str = ""  # of the champion

    @property
    def primary(self) -> str:
        """The metric in which systems are compared."""
        return self.verdict.policy.primary

    @property
    def systems(self) -> list[str]:
        """The systems of the report: candidate, champion, anchor, then the others, the best first."""
        first = [name for name in (CANDIDATE, CHAMPION, ANCHOR) if name in self.report.systems]
        others = [name for name in self.report.systems if name not in first]
        return first + sorted(others, key=lambda name: -(self.report.metric(name, self.primary) or 0.0))

    @property
    def strongest_baseline(self) -> str:
        """The baseline with the highest primary metric; empty without any."""
        return self.report.strongest(self.primary)

    @property
    def better_baseline(self) -> str:
        """The strongest baseline, if it beats the candidate in the primary metric; empty if none does."""
        name, own = self.strongest_baseline, self.report.metric(CANDIDATE, self.primary)
        best = self.report.metric(name, self.primary) if name else None
        return name if own is not None and best is not None and best > own else ""

    @property
    def compared_systems(self) -> list[str]:
        """The systems that slices are shown for: candidate, champion, anchor, the strongest baseline."""
        shown = [name for name in (CANDIDATE, CHAMPION, ANCHOR) if name in self.report.systems]
        return [*shown, *filter(None, [self.strongest_baseline])]

    @property
    def metrics(self) -> list[str]:
        """All metrics of the systems, the primary one and those of its length first."""
        names = list(dict.fromkeys(name for system in self.report.systems.values() for name in system.metrics))
        return sorted(names, key=lambda name: (name != self.primary, not self._is_of_primary_length(name)))

    @property
    def plotted_metrics(self) -> list[str]:
        """The metrics that are plotted."""
        return [name for name in self.metrics if self._is_of_primary_length(name)][:MAX_METRICS]

    def _is_of_primary_length(self, metric: str) -> bool:
        """Whether a metric is of lists as long as those of the primary one: hr@10 of ndcg@10."""
        return metric.partition("@")[2] == self.primary.partition("@")[2]

    @property
    def differences(self) -> dict[str, Estimate]:
        """System -> candidate minus system in the primary metric, paired by request."""
        differences: dict[str, Estimate] = {}
        for name in self.systems:
            value = _nested(self.report.details, "differences", name, self.primary)
            try:
                differences |= {name: Estimate.model_validate(value)} if value else {}
            except ValidationError:  # of another version
                continue
        return differences

    @property
    def groups(self) -> list[Group]:
        """The slices by kind, of which there are at least two with a mean."""
        kinds: dict[str, dict[str, float]] = {}
        for name, part in self.report.slices.items():
            mean = part.systems.get(CANDIDATE, {}).get(self.primary)
            if mean is not None:
                kinds.setdefault(_kind(name), {})[name] = mean
        counts = {name: part.requests for name, part in self.report.slices.items()}
        return [
            Group(kind, means, {name: counts[name] for name in means})
            for kind, means in kinds.items()
            if len(means) > 1
        ]

    @property
    def items(self) -> dict[str, Any]:
        """What the evaluation says of the catalogue; empty in one of another version."""
        value = self.report.details.get("items")
        return value if isinstance(value, dict) else {}

    @property
    def languages(self) -> dict[str, int]:
        """Language -> number of items, the most frequent first; empty where none is known."""
        value = self.items.get("languages")
        counts = {name: int(count) for name, count in value.items()} if isinstance(value, dict) else {}
        return {} if set(counts) == {UNKNOWN_LANGUAGE} else counts


def _kind(name: str) -> str:
    """The kind of a slice by its name: "user" of "user: new", "item.category" of "item.category=Drama"."""
    for separator in ("=", ":"):
        if separator in name:
            return name.partition(separator)[0].strip()
    return name


def _nested(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
