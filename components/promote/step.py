"""Decide whether a candidate may serve, and make it the champion.

`decide` reads a bundle and its evaluation, adds both to the model registry, and writes verdict.json, verdict.md, the
evidence page and the model card.
`promote` reads these and the run's features. It materializes the features online, appends the `promoted` event, which
is the commit. Both announce what they recorded: to MLflow, and to whom the recipe notifies.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from components.promote.commit import OnlinePlace, materialize_then_append
from components.promote.config import DecideConfig, PromoteConfig
from components.promote.run_measures import run_measures, save_run_measures, stored_run_measures
from components.promote.verdict_page import verdict_page
from rankline.announcer import Announcement, Announcer
from rankline.errors import EXIT_OK, IntegrityError, StaleEvidence, UsageError
from rankline.evaluation import decision
from rankline.evaluation.decision import PromotionPolicy, Verdict
from rankline.evaluation.report import Report, read_report
from rankline.evidence.comparisons import read_comparisons
from rankline.evidence.model_card import MODEL_CARD, model_card
from rankline.evidence.page import EVIDENCE_PAGE, evidence_page
from rankline.evidence.run_facts import read_run
from rankline.evidence.subject import Subject
from rankline.gates.evidence import Evidence, read_evidence
from rankline.gates.state import NIGHT, AnchorState, anchor_state
from rankline.io.files import read_model
from rankline.io.storage import FeatureStoreConfig
from rankline.model.bundle import Bundle, open_bundle
from rankline.pod import compare_again
from rankline.registry.anchor import anchor, warning
from rankline.registry.event_text import one_line
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import (
    ANCHORED,
    BESIDE,
    FOUR_EYES,
    Event,
    Kind,
    approval_command,
    four_eyes,
    judged_beside,
)
from rankline.runtime.bucket_workspace import BucketWorkspace
from rankline.runtime.outcomes import Outcome
from rankline.runtime.progress import Progress
from rankline.runtime.run_summary import Prices
from rankline.train import champion_weights

VERDICT, PAGE = "verdict.json", "verdict.md"
ACTOR, PROMOTION = "the flow", "promotion"


@dataclass(frozen=True)
class CandidateEvent:
    """An event about a candidate that is not in the registry's log yet."""

    kind: Kind
    model_id: str
    why: str
    digests: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] | None = None
    expected_champion: str | None = None


def decide(
    bundle: Path,
    evaluation: Path,
    verdict: Path,
    *,
    config: DecideConfig,
    repository: str,
    run_id: str,
    teacher: Path | None = None,
    checks: Path | None = None,
    ledger_folder: Path | None = None,
    prices: Prices | None = None,
    announcer: Announcer | None = None,
    started_by: str = "",
    progress: Progress = Progress(),
) -> dict[str, Any]:
    """Register the candidate and write the verdict; the teacher's weights are saved if the model may come to serve.

    The gates also read what validate reports in ``checks``, and what the run has cost by its ledger so far.
    ``started_by`` is who started the run, empty where nobody knows: with four eyes they may not approve it.
    The evidence page shows what the ledger of the run says as well.

    Raises:
        UsageError: ``bundle`` or ``evaluation`` is none, or the evaluation is of another model.
        IntegrityError: the bundle does not match its digests.
        StaleEvidence: the champion changed since the evaluation.
        RegistryError: the model registry cannot be written.
    """
    progress.phase("verdict")
    candidate = open_bundle(bundle)
    report, models = _read_report_of(candidate, evaluation), ModelRegistry(repository)
    champion_id, history, evidence = models.champion(), models.history(), read_evidence(evaluation)
    measured = stored_run_measures(models, history, candidate.model_id, evaluation, run_id=run_id) or run_measures(
        candidate.manifest, checks=checks, ledger_folder=ledger_folder, prices=prices
    )
    report = report.model_copy(update={"run_measures": measured})
    policy = _policy(config, history, candidate.model_id)
    state = _state_of_nights(history, champion_id, report, evidence, metric=policy.primary)
    decided = decision.decide(
        report,
        evidence,
        candidate.manifest,
        policy,
        champion_id=champion_id,
        champion_manifest=models.manifest(champion_id) if champion_id else None,
        state=state,
    )
    started_from = champion_weights.warm_start_source(teacher) if teacher else ""
    subject = Subject(
        report, decided, candidate.manifest, read_comparisons(evaluation), read_run(ledger_folder), started_from,
        warning(history),
    )  # fmt: skip
    _write_verdict(verdict, subject)
    outcome = Outcome.of_verdict(decided.outcome)

    if teacher and outcome.exit_code == EXIT_OK:  # it serves, or may come to
        champion_weights.save_weights(models, candidate.model_id, teacher)
    events: list[Event] = []
    digests: dict[str, str] = {}
    if outcome is not Outcome.ALREADY_SERVING:
        progress.phase("registering")
        models.add(bundle)
        digests = _add_evidence(models, decided, evaluation, verdict, with_verdict=bool(outcome.event))
        for draft in _drafts(decided, report, digests, started_from, started_by):
            events += _append_once(models, draft, run_id=run_id)
        events += _append_findings(models, report, evidence, decided, run_id=run_id)
    announced = Announcement()  # a promotion is announced once it has happened
    if outcome.event:
        announced = _announce(announcer, models, candidate.model_id, _verdicts(models, candidate.model_id, outcome))
    return {
        **_result(decided, report, digests),
        "events": [f"{event.n} {event.kind}" for event in events],
        **_champion_warning(models, champion_id),
        **({"mlflow": announced.mlflow} if announced.mlflow else {}),
    }


def _policy(config: DecideConfig, history: list[Event], model_id: str) -> PromotionPolicy:
    """The policy of a run; a model that four eyes were asked for once waits for them, whoever measures it again."""
    policy = PromotionPolicy(**config.model_dump())
    bound = four_eyes(history, model_id)
    return policy.model_copy(update={"four_eyes": True, "mode": "review"}) if bound else policy


def _append_findings(
    models: ModelRegistry, report: Report, evidence: Evidence, decided: Verdict, *, run_id: str
) -> list[Event]:
    """What the evaluation says of the champion beside the candidate."""
    past_gates = bool(warning(models.history()))
    return [
        models.append(kind, decided.champion, who=ACTOR, why=why, run_id=run_id)
        for kind, why in decision.champion_findings(report, evidence, decided, past_gates=past_gates)
    ]


def _result(decided: Verdict, report: Report, digests: dict[str, str]) -> dict[str, Any]:
    """What the run's ledger shows of a verdict."""
    return {
        "outcome": decided.outcome,
        "model_id": decided.model_id,
        "champion": decided.champion,
        "sentence": _sentence(decided, digests.get("verdict", "")),
        "checks": len(decided.checks),
        "failures": [check.name for check in decided.failures],
        "numbers": _numbers(decided, report),
        "insufficient": [check.name for check in decided.failures if check.status == "insufficient data"],
        "anchor": decided.state.anchor if decided.state else "",
    }


def _champion_warning(models: ModelRegistry, champion_id: str) -> dict[str, str]:
    """The warning of a champion that no gate has passed, this verdict's included."""
    past_gates = warning(models.history())
    return {"warning": f"champion {champion_id} was {past_gates}"} if past_gates else {}


def _numbers(decided: Verdict, report: Report) -> dict[str, float]:
    """The numbers of a verdict that the page of a run in Kubeflow shows."""
    primary = decided.policy.primary
    numbers: dict[str, float | None] = {
        "gates": len(decided.checks),
        "gates not met": len(decided.failures),
        "requests": report.requests,
        **{f"{name} {primary}": report.metric(name, primary) for name in report.systems},
        "p95 ms": report.latency.p95_ms,
    }
    return {name: float(value) for name, value in numbers.items() if value is not None and math.isfinite(value)}


def _write_verdict(folder: Path, subject: Subject) -> None:
    """Write the verdict for programs and, with what the run's ledger says, for people."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VERDICT).write_text(subject.verdict.model_dump_json(indent=2) + "\n")
    save_run_measures(folder, subject.report.run_measures, subject.verdict.policy)
    (folder / PAGE).write_text(verdict_page(subject.verdict, subject.report, warning=subject.warning))
    (folder / EVIDENCE_PAGE).write_text(evidence_page(subject))
    (folder / MODEL_CARD).write_text(model_card(subject))


def _add_evidence(
    models: ModelRegistry, decided: Verdict, evaluation: Path, verdict: Path, *, with_verdict: bool
) -> dict[str, str]:
    """Store the evaluation and, where an event names it, the verdict; returns their digests."""
    digests = {"evaluation": models.add_evidence(evaluation)}
    if with_verdict:
        stored = _stored_verdict(models, decided.model_id, digests["evaluation"], verdict)
        digests["verdict"] = stored or models.add_evidence(verdict)
    return digests


def _stored_verdict(models: ModelRegistry, model_id: str, evaluation: str, verdict: Path) -> str:
    """The digest of the same verdict, if the registry has it.

    The pages beside verdict.json tell of the run, and so differ where another run comes to the same verdict.
    """
    content = (verdict / VERDICT).read_bytes()
    for event in reversed(models.history()):
        is_of_it = (event.model_id, event.digests.get("evaluation")) == (model_id, evaluation)
        if is_of_it and (stored := event.digests.get("verdict")):
            with contextlib.suppress(OSError):
                if models.fs.cat_file(f"{models.evidence(stored)}/{VERDICT}") == content:
                    return stored
    return ""


def _state_of_nights(
    history: list[Event], champion_id: str, report: Report, evidence: Evidence, *, metric: str
) -> AnchorState:
    """What the evaluations of earlier nights say of this recipe's candidates, the champion and the anchor."""
    return anchor_state(
        history,
        champion=champion_id,
        model_id=report.model_id,
        recipe=report.recipe,
        metric=metric,
        until=evidence.until,
    )


def promote(
    bundle: Path,
    evaluation: Path,
    verdict: Path,
    features: Path,
    *,
    config: PromoteConfig,
    repository: str,
    workspace: Path,
    run_id: str,
    stores: FeatureStoreConfig | None = None,
    bucket: BucketWorkspace | None = None,
    announcer: Announcer | None = None,
    progress: Progress = Progress(),
) -> dict[str, Any]:
    """Make the candidate the champion: what can fail comes before the event, only the announcement after it.

    With a ``bucket`` the online store is the one there.

    Raises:
        UsageError: the verdict does not promote this model, the features belong to another service, or the champion
            reads other definitions under the same name.
        IntegrityError: the bundle does not match its digests.
        StaleEvidence: the champion changed since the verdict.
        RegistryError: the features could not be materialized, or the registry cannot be written.
    """
    candidate = open_bundle(bundle)
    _read_report_of(candidate, evaluation)
    decided = _read_verdict_for(candidate, verdict)
    models = ModelRegistry(repository)
    place = OnlinePlace(workspace=workspace, config=config, stores=stores, bucket=bucket)

    def append(details: dict[str, Any]) -> Event:
        progress.phase("promoting")
        champion = models.champion_record()
        if champion and champion.model_id == candidate.model_id:  # an earlier attempt of this run got this far
            event = models.history()[champion.event - 1]
        else:
            models.add(bundle)
            event = _append(models, _draft(models, decided, evaluation, verdict, details), run_id=run_id)
        move_proven_anchor(models, decided, run_id=run_id)
        return event

    progress.phase("features online")
    event, watermark = materialize_then_append(
        models,
        candidate,
        features,
        place=place,
        owner={"who": PROMOTION, "run": run_id},
        check=lambda: _check_champion(models.champion(), decided, where=repository),
        append=append,
    )
    relisted = models.relisted_warning(event.champion_before, event.model_id)
    progress.phase("announcing")
    announced = _announce(announcer, models, candidate.model_id, [event])
    return {
        "model_id": candidate.model_id,
        "event": event.n,
        "champion_before": event.champion_before,
        "service": candidate.manifest.features.service,
        "online": watermark,
        "mlflow": announced.mlflow,
        **({"warning": relisted} if relisted else {}),
    }


def _draft(
    models: ModelRegistry, decided: Verdict, evaluation: Path, verdict: Path, details: dict[str, Any]
) -> CandidateEvent:
    """The promotion, with its evidence in the registry; it fails if the champion is not the one of the verdict."""
    digests = {"evaluation": models.add_evidence(evaluation), "verdict": models.add_evidence(verdict)}
    return CandidateEvent(
        "promoted", decided.model_id, decided.sentence, digests, details, expected_champion=decided.champion
    )


def move_proven_anchor(models: ModelRegistry, decided: Verdict, *, run_id: str) -> None:
    """Make a model the anchor that was proven to be better than the one before."""
    if decision.anchors(decided) and anchor(models.history()) != decided.model_id:
        why = f"proven to be better than anchor {decided.state.anchor if decided.state else ''}"
        models.append(ANCHORED, decided.model_id, who=ACTOR, why=why, run_id=run_id)


def _read_report_of(candidate: Bundle, evaluation: Path) -> Report:
    """The evaluation's report, which must be of this model."""
    report = read_report(evaluation)
    if report.model_id != candidate.model_id:
        raise UsageError(
            "the evaluation is of another model",
            expected=f"model {candidate.model_id}, the bundle in {candidate.folder}",
            found=f"model {report.model_id}",
            where=str(evaluation),
            hint="evaluate this bundle first: `rankline step evaluate`",
        )
    return report


def _read_verdict_for(candidate: Bundle, verdict: Path) -> Verdict:
    """A verdict that promotes this model."""
    decided = read_model(
        verdict / VERDICT,
        Verdict,
        what="the verdict",
        error=IntegrityError,
        missing="run `rankline step decide` first",
        damaged="run `rankline step decide` again",
    )
    if decided.outcome != "promote" or decided.model_id != candidate.model_id:
        raise UsageError(
            "this verdict does not promote this model",
            expected=f"outcome promote for model {candidate.model_id}",
            found=f"outcome {decided.outcome} for model {decided.model_id}",
            where=str(verdict),
            hint="verdict.md in that folder has the reasons",
        )
    return decided


def _check_champion(champion_id: str, decided: Verdict, *, where: str) -> None:
    """Refuse a champion that is neither the one of the verdict nor the candidate itself."""
    if champion_id not in (decided.champion, decided.model_id):
        raise StaleEvidence(
            "the champion changed since the verdict",
            expected=f"champion {decided.champion}" if decided.champion else "no champion, as at the verdict",
            found=f"champion {champion_id}" if champion_id else "no champion",
            where=where,
            hint=compare_again(),
        )


def _sentence(decided: Verdict, digest: str) -> str:
    """The verdict in one line; of a candidate that waits with the command that approves it."""
    if decided.outcome != "pending":
        return decided.sentence
    return f"{decided.sentence} Approve it with `{approval_command(decided.model_id, digest)}`."


def _drafts(
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


def _append_once(models: ModelRegistry, draft: CandidateEvent, *, run_id: str) -> list[Event]:
    """Append an event unless the log has it; of a verdict with what it was given beside."""
    if draft.kind == "pending":
        beside = judged_beside(models.history(), draft.model_id)
        draft = replace(draft, details={**(draft.details or {}), BESIDE: beside})

    def is_new(history: list[Event]) -> None:
        if _is_recorded(history, draft):
            raise _RecordedError

    try:
        return [_append(models, draft, run_id=run_id, condition=is_new)]
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


def _append(
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


def _verdicts(models: ModelRegistry, model_id: str, outcome: Outcome) -> list[Event]:
    """The newest verdict of this kind on a model, which an attempt before this one may have written."""
    return [event for event in models.history() if (event.model_id, event.kind) == (model_id, outcome.event)][-1:]


def _announce(announcer: Announcer | None, models: ModelRegistry, model_id: str, events: list[Event]) -> Announcement:
    """Announce events; a failure is a line in the step's log, since what was recorded stands without it."""
    announced = announcer.announce(models, model_id, events) if announcer else Announcement()
    for warning_line in announced.warnings:
        print(f"warning: {warning_line}", file=sys.stderr)
    return announced


def _score_summary(report: Report, policy: PromotionPolicy) -> str:
    """The candidate's primary score in one line."""
    scored = report.systems.get("candidate")
    estimate = scored.metrics.get(policy.primary) if scored else None
    number = "not measured" if estimate is None or estimate.mean is None else f"{estimate.mean:.4f}"
    return f"{policy.primary} {number} over {report.requests} requests"
