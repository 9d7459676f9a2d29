"""Decide whether a candidate may serve, and make it the champion.

`decide` reads a bundle and its evaluation, puts both into the model repository, and writes verdict.json and
verdict.md. `promote` reads these and the run's features; it brings the features online, appends the
`promoted` event, which is the commit, and mirrors it into MLflow.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from components.promote import online
from components.promote.config import DecideConfig, PromoteConfig
from components.promote.mirror import mirror, training_curves
from rankline.errors import EXIT_OK, IntegrityError, StaleEvidence, UsageError
from rankline.evaluation import decision
from rankline.evaluation.decision import PromotionPolicy, Verdict
from rankline.evaluation.report import Report, read_report, read_scores
from rankline.io.storage import FeatureStoreConfig
from rankline.model.bundle import Bundle, open_bundle
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event, Kind
from rankline.runtime.outcomes import Outcome
from rankline.runtime.progress import Progress
from rankline.train import champion_weights

VERDICT, PAGE = "verdict.json", "verdict.md"
ACTOR, PROMOTION = "the flow", "promotion"


def decide(
    bundle: Path,
    evaluation: Path,
    verdict: Path,
    *,
    config: DecideConfig,
    repository: str,
    run_id: str,
    teacher: Path | None = None,
    progress: Progress = Progress(),
) -> dict[str, Any]:
    """Register the candidate and write the verdict on it; of one that may come to serve, keep the teacher's weights.

    Raises:
        UsageError: the bundle or the evaluation is none, or the evaluation is of another model.
        IntegrityError: a byte of the bundle is not what its digests promise.
        StaleEvidence: the champion changed since the evaluation.
        RepositoryError: the model repository cannot be written.
    """
    progress.phase("verdict")
    candidate = open_bundle(bundle)
    report = _read_report_of(candidate, evaluation)
    policy = PromotionPolicy(**config.model_dump())
    models = ModelRegistry(repository)
    serving = models.champion()
    decided = decision.decide(
        report,
        read_scores(evaluation, policy.primary),
        candidate.manifest,
        policy,
        serving=serving,
        champion=models.manifest(serving) if serving else None,
    )
    verdict.mkdir(parents=True, exist_ok=True)
    (verdict / VERDICT).write_text(decided.model_dump_json(indent=2) + "\n")
    (verdict / PAGE).write_text(verdict_page(decided, report))
    outcome = Outcome.of_verdict(decided.outcome)

    if teacher and outcome.exit_code == EXIT_OK:  # it serves, or may come to
        champion_weights.save_weights(models, candidate.model_id, teacher)
    events: list[Event] = []
    if outcome is not Outcome.ALREADY_SERVING:
        progress.phase("registering")
        models.add(bundle)
        evidence = {"evaluation": models.add_evidence(evaluation)}
        warm_start = champion_weights.warm_start_source(teacher) if teacher else ""
        events += _append_once(
            models,
            "registered",
            candidate,
            {},
            why=f"made by recipe {report.recipe}"
            + (f", begun with model {warm_start}" * (warm_start not in ("", "scratch"))),
            run_id=run_id,
            details={"began_from": warm_start} if warm_start else None,
        )
        events += _append_once(
            models, "evaluated", candidate, evidence, why=_score_summary(report, policy), run_id=run_id
        )
        if outcome.event:
            evidence["verdict"] = models.add_evidence(verdict)
            events += _append_once(
                models,
                cast(Kind, outcome.event),
                candidate,
                evidence,
                why=decided.sentence,
                run_id=run_id,
                details={"outcome": decided.outcome, "failures": [c.name for c in decided.failures]},
                expected_champion=decided.champion,
            )
    return {
        "outcome": decided.outcome,
        "model_id": decided.model_id,
        "champion": decided.champion,
        "sentence": decided.sentence,
        "checks": len(decided.checks),
        "failures": [check.name for check in decided.failures],
        "events": [f"{event.n} {event.kind}" for event in events],
    }


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
    ledger_folder: Path | None = None,
    stores: FeatureStoreConfig | None = None,
    progress: Progress = Progress(),
) -> dict[str, Any]:
    """Make the candidate the champion: whatever can fail comes before the event, only the mirror after it.

    Raises:
        UsageError: the verdict does not promote this model, the features are of another service, or other
            definitions bear the name of the one that the champion reads.
        IntegrityError: a byte of the bundle changed.
        StaleEvidence: the champion changed since the verdict.
        RepositoryError: the features could not be brought online, or the repository cannot be written.
    """
    candidate = open_bundle(bundle)
    report = _read_report_of(candidate, evaluation)
    decided = _read_verdict_for(candidate, verdict)
    models = ModelRegistry(repository)
    service = _check_service(candidate, features)
    store_folder = workspace / "online" / service

    progress.phase("features online")
    # from the look at who serves to the event nobody else promotes here: who loses has written nothing
    with online.store_lock(store_folder, timeout_s=config.lock_timeout_s, who=PROMOTION, run=run_id):
        pointer = models.champion_record()
        serving = pointer.model_id if pointer else ""
        if serving not in (decided.champion, candidate.model_id):
            raise StaleEvidence(
                "the champion changed since the verdict",
                expected=f"champion {decided.champion or '(none)'}",
                found=f"champion {serving}",
                where=repository,
                hint="run the flow again: the model will be evaluated beside the new champion",
            )
        started = time.monotonic()
        # until the event the champion reads on: of its definitions nothing changes under it
        champion_reads = (
            serving not in ("", candidate.model_id) and models.manifest(serving).features.service == service
        )
        owner = {"who": PROMOTION, "run": run_id}
        watermark = online.materialize_online(
            features, store_folder, stores=stores, owner=owner, champion_reads=champion_reads
        )
        online_s = time.monotonic() - started

        progress.phase("promoting")
        if pointer and serving == candidate.model_id:  # an earlier attempt of this run got this far
            event = models.history()[pointer.event - 1]
        else:
            models.add(bundle)
            event = models.append(
                "promoted",
                candidate.model_id,
                who=ACTOR,
                why=decided.sentence,
                run_id=run_id,
                digests={"evaluation": models.add_evidence(evaluation), "verdict": models.add_evidence(verdict)},
                details={"service": service, "online_until": watermark["until"]},
                expected_champion=decided.champion,
            )

    warning = models.relisted_warning(event.champion_before, event.model_id)

    progress.phase("mirroring")
    try:
        mirrored: dict[str, Any] = mirror(
            event,
            report,
            source=models.fs.unstrip_protocol(f"{models.root}/bundles/{candidate.model_id}"),
            pages=[verdict / PAGE, evaluation / "report.html"],
            curves=training_curves(ledger_folder) if ledger_folder else {},
            config=config,
            workspace=workspace,
        )
    except Exception as error:  # the promotion stands; the mirror is only a mirror
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        mirrored = {"error": f"MLflow does not show this promotion: {why}; `rankline mirror` shows it later"}
    return {
        "model_id": candidate.model_id,
        "event": event.n,
        "champion_before": event.champion_before,
        "service": service,
        "online": {**watermark, "seconds": round(online_s, 2)},
        "mlflow": mirrored,
        **({"warning": warning} if warning else {}),
    }


def verdict_page(decided: Verdict, report: Report) -> str:
    """The verdict for people: the outcome, every check, and the systems side by side."""
    primary = decided.policy.primary
    lines = [
        f"# {decided.outcome.replace('_', ' ').capitalize()}",
        "",
        decided.sentence,
        "",
        f"Model `{decided.model_id}`, recipe {report.recipe}, run {report.run_id or '(none)'}, "
        f"{report.requests} requests; champion {f'`{decided.champion}`' if decided.champion else '(none)'}.",
        "",
    ]
    if decided.checks:
        lines += ["| | check | found | asked for | |", "| --- | --- | --- | --- | --- |"]
        for check in decided.checks:
            sign = "met" if check.passed else "**not met**"
            observed = f"{check.observed:.4g}" if isinstance(check.observed, float) else check.observed
            observed = "(not measured)" if observed is None else observed
            lines.append(f"| {sign} | {check.name} | {observed} | {check.required} | {check.sentence} |")
        lines.append("")
    lines += [f"| system | {primary} | interval |", "| --- | --- | --- |"]
    for name, system in report.systems.items():
        estimate = system.metrics.get(primary)
        numbers = [estimate.mean, estimate.low, estimate.high] if estimate else [None] * 3
        mean, low, high = ("-" if n is None else f"{n:.4f}" for n in numbers)
        lines.append(f"| {name} | {mean} | {low} to {high} |")
    return "\n".join(lines) + "\n"


def _read_report_of(candidate: Bundle, evaluation: Path) -> Report:
    """The evaluation's report, which has to be of this very model."""
    report = read_report(evaluation)
    if report.model_id != candidate.model_id:
        raise UsageError(
            "the evaluation is of another model",
            expected=f"model {candidate.model_id}, which lies in {candidate.folder}",
            found=f"model {report.model_id}",
            where=str(evaluation),
            hint="evaluate this bundle first: `rankline step evaluate`",
        )
    return report


def _read_verdict_for(candidate: Bundle, verdict: Path) -> Verdict:
    """A verdict that promotes this very model."""
    try:
        decided = Verdict.model_validate_json((verdict / VERDICT).read_text())
    except (OSError, ValidationError) as error:
        raise IntegrityError(
            "the verdict cannot be read",
            expected=f"{VERDICT}, as `rankline step decide` writes it",
            found=str(error).splitlines()[0],
            where=str(verdict),
            hint="decide again",
        ) from error
    if decided.outcome != "promote" or decided.model_id != candidate.model_id:
        raise UsageError(
            "this verdict does not promote this model",
            expected=f"outcome promote for model {candidate.model_id}",
            found=f"outcome {decided.outcome} for model {decided.model_id}",
            where=str(verdict),
            hint="see verdict.md beside it for the reasons",
        )
    return decided


def _check_service(candidate: Bundle, features: Path) -> str:
    """The feature service that the model asks for, which has to be the one these features were made for."""
    expected_service = candidate.manifest.features.service
    run_service: str = json.loads((features / "summary.json").read_text())["service"]
    if run_service != expected_service:
        raise UsageError(
            "the features are of another feature service than the model's",
            expected=expected_service,
            found=run_service,
            where=str(features),
            hint="give the features that this model was trained on",
        )
    return expected_service


def _append_once(
    models: ModelRegistry,
    kind: Kind,
    candidate: Bundle,
    evidence: dict[str, str],
    *,
    why: str,
    run_id: str,
    details: dict[str, Any] | None = None,
    expected_champion: str | None = None,
) -> list[Event]:
    """Append an event unless the same was said before on the same evidence; what was appended.

    What was said before the model was taken away counts no more.
    """
    for event in reversed(models.history()):
        same = event.model_id == candidate.model_id
        if same and event.kind == "removed" and "catalogue" not in event.digests:
            break
        if same and event.kind == kind and evidence.items() <= event.digests.items():
            return []
    return [
        models.append(
            kind,
            candidate.model_id,
            who=ACTOR,
            why=why,
            run_id=run_id,
            digests=evidence,
            details=details,
            expected_champion=expected_champion,
        )
    ]


def _score_summary(report: Report, policy: PromotionPolicy) -> str:
    """The candidate's main score in one line."""
    scored = report.systems.get("candidate")
    estimate = scored.metrics.get(policy.primary) if scored else None
    number = "not measured" if estimate is None or estimate.mean is None else f"{estimate.mean:.4f}"
    return f"{policy.primary} {number} over {report.requests} requests"
