"""The queue, and a candidate with its evidence."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from rankline.errors import NotPermitted, RanklineError
from rankline.evaluation.report import ANCHOR, CANDIDATE, CHAMPION, Report
from review.console.errors import InvalidForm, NotFound, status_of
from review.console.headers import CONTENT_SECURITY_POLICY, EVIDENCE_POLICY
from review.console.paging import page_of
from review.console.snapshots import Snapshot
from review.console.visit import Viewer, Visit
from review.desk import Evidence, next_step
from review.queue import MIN_DIGEST, WAITING, Candidate

router = APIRouter()

ModelId = Annotated[str, Path(max_length=100)]
Digest = Annotated[str, Query(max_length=100)]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000)]


@router.get("/")
def queue(visit: Viewer, page: PageNumber = 1) -> Response:
    """The candidates that wait."""
    return visit.page("queue.html", candidates=page_of(visit.snapshot.waiting, page), shows="waiting")


@router.get("/decided")
def decided(visit: Viewer, page: PageNumber = 1) -> Response:
    """The candidates on which somebody, or the gates, decided."""
    return visit.page("queue.html", candidates=page_of(visit.snapshot.decided, page), shows="decided")


@router.get("/candidates/{model}")
def candidate(visit: Viewer, model: ModelId, verdict: Digest = "", event: int = 0) -> Response:
    """A candidate, its evidence, and the forms to decide on it."""
    return candidate_page(visit, candidate_of(visit.snapshot, model, verdict), event=event)


@router.get("/candidates/{model}/evidence")
def evidence_page(visit: Viewer, model: ModelId, verdict: Digest = "") -> Response:
    """The evidence page alone, under a policy of its own."""
    chosen = candidate_of(visit.snapshot, model, verdict)
    evidence = visit.console.desk.evidence(chosen)
    if evidence.page is None:
        raise NotFound(
            "there is no evidence page",
            expected="evidence.html",
            found="evidence of an earlier version",
            hint=f"`rankline evaluate --candidate {chosen.model_id[:12]}` measures the model again",
        )
    headers = {CONTENT_SECURITY_POLICY: EVIDENCE_POLICY}
    return Response(evidence.page, media_type="text/html; charset=utf-8", headers=headers)


def candidate_of(snapshot: Snapshot, model: str, verdict: str = "") -> Candidate:
    """The newest candidate of a model, or that with this verdict; both may be abbreviated.

    Raises:
        NotFound: there is none, or several.
    """
    matches = [each for each in snapshot.candidates if each.model_id.startswith(model)]
    if verdict:
        matches = [each for each in matches if len(verdict) >= MIN_DIGEST and each.verdict.startswith(verdict)]
    if len({each.model_id for each in matches}) != 1:
        raise NotFound(
            "several candidates begin like that" if matches else "there is no such candidate",
            expected="the id of a model that a verdict is about",
            found=f"{model} with verdict {verdict}" if verdict else model,
            hint="the queue and the decided candidates link to all of them",
        )
    return matches[0]


def candidate_page(
    visit: Visit,
    chosen: Candidate,
    *,
    event: int = 0,
    error: RanklineError | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    """The page of a candidate; after a refused action with the error and what was typed."""
    evidence, problem = _evidence(visit, chosen)
    snapshot = visit.snapshot
    waits = chosen.status in WAITING
    return visit.page(
        "candidate.html",
        status=status_of(error) if error else 200,
        candidate=chosen,
        verdict=evidence.verdict if evidence else None,
        metrics=metric_rows(evidence.report, evidence.verdict.policy.primary) if evidence else [],
        problem=problem,
        has_page=bool(evidence and evidence.page),
        card=evidence.card if evidence else None,
        others=[each for each in snapshot.candidates if each.model_id == chosen.model_id and each != chosen],
        champion=snapshot.champion.model_id if snapshot.champion else "",
        waits=waits,
        eyes=eyes_note(chosen, evidence, visit.identity.name) if chosen.status in ("pending", "approved") else "",
        done=_event_of(snapshot, event, chosen.model_id),
        error=error,
        field=error.field if isinstance(error, InvalidForm) else "",
        typed=typed or {},
    )


def _evidence(visit: Visit, chosen: Candidate) -> tuple[Evidence | None, str]:
    """The evidence, or why it cannot be read."""
    try:
        return visit.console.desk.evidence(chosen), ""
    except RanklineError as error:
        return None, error.one_line


def eyes_note(chosen: Candidate, evidence: Evidence | None, user: str) -> str:
    """What four eyes ask for, as far as it concerns this reviewer; empty where two eyes do."""
    if evidence is None or not (chosen.four_eyes or evidence.verdict.policy.four_eyes):
        return ""
    started_by, approvals = chosen.started_by, chosen.approvals
    try:
        step = next_step(chosen, user, four_eyes=True)
    except NotPermitted:
        return f"A second reviewer is needed: you {'started this run' if started_by else 'approved this candidate'}."
    if step == "approved":
        return "Two reviewers are needed: it is not known who started this run. Your approval is the first."
    if started_by:
        return f"{started_by} started this run and may not approve it; you may."
    return f"{approvals[0].who} approved this candidate; your approval is the second and promotes it."


def metric_rows(report: Report, primary: str) -> list[dict[str, Any]]:
    """A row for each metric of the candidate, the primary one first; beside it champion, anchor and the best other."""
    candidate_scores = report.systems.get(CANDIDATE)
    if candidate_scores is None:
        return []
    named = [system for system in (CANDIDATE, CHAMPION, ANCHOR) if system in report.systems]
    others = [system for system in report.systems if system not in named]
    columns = named + sorted(others, key=lambda system: -(report.metric(system, primary) or 0.0))[:1]
    return [
        {"metric": metric, "systems": [(system, report.systems[system].metrics.get(metric)) for system in columns]}
        for metric in sorted(candidate_scores.metrics, key=lambda name: name != primary)
    ]


def _event_of(snapshot: Snapshot, n: int, model_id: str) -> Any:
    """The event that an action has just written, if it is of this model."""
    if not 0 < n <= len(snapshot.history):
        return None
    event = snapshot.history[n - 1]
    return event if event.model_id == model_id else None
