"""Decide whether a candidate may serve, and make it the champion.

`decide` reads a bundle and its evaluation, adds both to the model registry, and writes verdict.json, verdict.md, the
evidence page and the model card.
`promote` reads these and the run's features. It materializes the features online, appends the `promoted` event, which
is the commit. Both announce what they recorded: to MLflow, and to whom the recipe notifies.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from components.promote.candidate_events import ACTOR, CandidateEvent, append_event, append_once, verdict_drafts
from components.promote.commit import OnlinePlace, materialize_then_append
from components.promote.config import DecideConfig, PromoteConfig
from components.promote.run_measures import run_measures, stored_run_measures
from components.promote.verdict_files import add_evidence, read_verdict_for, write_verdict
from rankline.announcer import Announcement, Announcer
from rankline.errors import EXIT_OK, StaleEvidence, UsageError
from rankline.evaluation import decision
from rankline.evaluation.decision import PromotionPolicy, Verdict
from rankline.evaluation.report import Report, read_report
from rankline.evidence.comparisons import read_comparisons
from rankline.evidence.run_facts import read_run
from rankline.evidence.subject import Subject
from rankline.gates.evidence import Evidence, read_evidence
from rankline.gates.state import anchor_state
from rankline.io.storage import FeatureStoreConfig
from rankline.model.bundle import Bundle, open_bundle
from rankline.pod import compare_again
from rankline.registry.anchor import anchor, warning
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import (
    ANCHORED,
    Event,
    approval_command,
    four_eyes,
)
from rankline.runtime.bucket_workspace import BucketWorkspace
from rankline.runtime.outcomes import Outcome
from rankline.runtime.progress import Progress
from rankline.runtime.run_summary import Prices
from rankline.train import champion_weights

PROMOTION = "promotion"


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
    decided = _judge(models, candidate, report, evidence, policy, champion_id=champion_id)
    started_from = champion_weights.warm_start_source(teacher) if teacher else ""
    comparisons, run = read_comparisons(evaluation), read_run(ledger_folder)
    write_verdict(
        verdict, Subject(report, decided, candidate.manifest, comparisons, run, started_from, warning(history))
    )
    outcome = Outcome.of_verdict(decided.outcome)

    if teacher and outcome.exit_code == EXIT_OK:  # it serves, or may come to
        champion_weights.save_weights(models, candidate.model_id, teacher)
    events: list[Event] = []
    digests: dict[str, str] = {}
    if outcome is not Outcome.ALREADY_SERVING:
        progress.phase("registering")
        models.add(bundle)
        digests = add_evidence(models, decided, evaluation, verdict, with_verdict=bool(outcome.event))
        drafts = verdict_drafts(decided, report, digests, started_from, started_by)
        events = [event for draft in drafts for event in append_once(models, draft, run_id=run_id)]
        events += _append_findings(models, report, evidence, decided, run_id=run_id)
    # a promotion is announced once it has happened
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


def _judge(
    models: ModelRegistry,
    candidate: Bundle,
    report: Report,
    evidence: Evidence,
    policy: PromotionPolicy,
    *,
    champion_id: str,
) -> Verdict:
    """The verdict on the candidate, with what the evaluations of earlier nights say of champion and anchor."""
    state = anchor_state(
        models.history(),
        champion=champion_id,
        model_id=report.model_id,
        recipe=report.recipe,
        metric=policy.primary,
        until=evidence.until,
    )
    return decision.decide(
        report,
        evidence,
        candidate.manifest,
        policy,
        champion_id=champion_id,
        champion_manifest=models.manifest(champion_id) if champion_id else None,
        state=state,
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
    decided = read_verdict_for(candidate, verdict)
    models = ModelRegistry(repository)
    place = OnlinePlace(workspace=workspace, config=config, stores=stores, bucket=bucket)

    def append(details: dict[str, Any]) -> Event:
        progress.phase("promoting")
        champion = models.champion_record()
        if champion and champion.model_id == candidate.model_id:  # an earlier attempt of this run got this far
            event = models.history()[champion.event - 1]
        else:
            models.add(bundle)
            event = append_event(models, _draft(models, decided, evaluation, verdict, details), run_id=run_id)
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


def _verdicts(models: ModelRegistry, model_id: str, outcome: Outcome) -> list[Event]:
    """The newest verdict of this kind on a model, which an attempt before this one may have written."""
    return [event for event in models.history() if (event.model_id, event.kind) == (model_id, outcome.event)][-1:]


def _announce(announcer: Announcer | None, models: ModelRegistry, model_id: str, events: list[Event]) -> Announcement:
    """Announce events; a failure is a line in the step's log, since what was recorded stands without it."""
    announced = announcer.announce(models, model_id, events) if announcer and events else Announcement()
    for warning_line in announced.warnings:
        print(f"warning: {warning_line}", file=sys.stderr)
    return announced
