"""The events about a candidate that `decide` and `promote` append to the registry's log, each once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

from rankline.evaluation.decision import PromotionPolicy, Verdict
from rankline.evaluation.report import Report
from rankline.gates.state import NIGHT
from rankline.registry.event_text import one_line
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import BESIDE, FOUR_EYES, Event, Kind, judged_beside
from rankline.runtime.outcomes import Outcome

ACTOR = "the flow"


@dataclass(frozen=True)
class CandidateEvent:
    """An event about a candidate that is not in the registry's log yet."""

    kind: Kind
    model_id: str
    why: str
    digests: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] | None = None
    expected_champion: str | None = None


def verdict_drafts(
    decided: Verdict, report: Report, digests: dict[str, str], started_from: str, started_by: str
) -> list[CandidateEvent]:
    """The events of a verdict: registered, evaluated, and for outcomes other than "promote" the outcome."""
    evaluation = {"evaluation": digests["evaluation"]}
    origin = f"made by recipe {report.recipe}"
    if started_from not in ("", "scratch"):
        origin += f", started from model {started_from}"
    details: dict[str, Any] | None = {"began_from": started_from} if started_from else None
    drafts = [
        CandidateEvent("registered", decided.model_id, origin, details=details),
        CandidateEvent(
            "evaluated",
            decided.model_id,
            _score_summary(report, decided.policy),
            evaluation,
            {NIGHT: decided.night.model_dump(mode="json")} if decided.night else None,
        ),
    ]
    if event := Outcome.of_verdict(decided.outcome).event:
        details = {
            "outcome": decided.outcome,
            "failures": [check.name for check in decided.failures],
            "recipe": report.recipe,
            "started_by": started_by,
        }
        if decided.policy.four_eyes and decided.policy.mode == "review":
            details[FOUR_EYES] = True
        kind = cast(Kind, event)
        drafts.append(
            CandidateEvent(
                kind, decided.model_id, decided.sentence, digests, details, expected_champion=decided.champion
            )
        )
    return drafts


def append_once(models: ModelRegistry, draft: CandidateEvent, *, run_id: str) -> list[Event]:
    """Append an event unless the log has it; of a verdict with what it was given beside."""
    if draft.kind == "pending":
        beside = judged_beside(models.history(), draft.model_id)
        draft = replace(draft, details={**(draft.details or {}), BESIDE: beside})

    def is_new(history: list[Event]) -> None:
        if _is_recorded(history, draft):
            raise _RecordedError

    try:
        return [append_event(models, draft, run_id=run_id, condition=is_new)]
    except _RecordedError:
        return []


class _RecordedError(Exception):
    """The log has the event."""


def _is_recorded(history: list[Event], draft: CandidateEvent) -> bool:
    """Whether the log has an event with the same evidence since the model was last removed or decided on.

    The first of two approvals of a verdict stands for the verdict. One that was given beside another champion or
    catalogue is another one, even with the same evidence.
    """
    outcomes = ("pending", "approved", "rejected", "promoted")
    beside = (draft.details or {}).get(BESIDE)
    kinds = ("pending", "approved") if draft.kind == "pending" else (draft.kind,)
    for event in reversed(history):
        if event.model_id != draft.model_id:
            continue
        if event.kind == "removed" and "catalogue" not in event.digests:
            return False
        if event.kind in kinds and draft.digests.items() <= event.digests.items():
            return beside is None or judged_beside(history[: event.n - 1], draft.model_id) == beside
        if event.kind in outcomes and draft.kind in outcomes:  # a reviewer's, or another verdict
            return False
    return False


def append_event(
    models: ModelRegistry,
    draft: CandidateEvent,
    *,
    run_id: str,
    condition: Callable[[list[Event]], object] | None = None,
) -> Event:
    return models.append(
        draft.kind,
        draft.model_id,
        who=ACTOR,
        why=one_line(draft.why),  # it may hold names of the data
        run_id=run_id,
        digests=draft.digests,
        details=draft.details or {},
        expected_champion=draft.expected_champion,
        condition=condition,
    )


def _score_summary(report: Report, policy: PromotionPolicy) -> str:
    """The candidate's primary score in one line."""
    scored = report.systems.get("candidate")
    estimate = scored.metrics.get(policy.primary) if scored else None
    number = "not measured" if estimate is None or estimate.mean is None else f"{estimate.mean:.4f}"
    return f"{policy.primary} {number} over {report.requests} requests"
