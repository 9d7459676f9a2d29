"""What reviewers and operators do: each action is an event with their name, and ends in a page that can be reloaded."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter
from starlette.responses import Response

from rankline.errors import RanklineError, StaleEvidence
from rankline.registry.registry_state import Event
from review.console.errors import Forbidden, InvalidForm
from review.console.forms import reason_of
from review.console.routes.candidates import ModelId, candidate_of, candidate_page
from review.console.routes.registry import serving_page
from review.console.visit import Operator, Reviewer, Visit
from review.desk import Desk
from review.queue import Candidate

router = APIRouter()


@router.post("/candidates/{model}/approve")
def approve(visit: Reviewer, model: ModelId) -> Response:
    """Approve a candidate by its evidence."""
    return _decide(visit, model, "approval", Desk.approve, check=_refuse_scripts_for_eyes)


@router.post("/candidates/{model}/reject")
def reject(visit: Reviewer, model: ModelId) -> Response:
    """Reject a candidate."""
    return _decide(visit, model, "rejection", Desk.reject)


@router.post("/roll-back")
def roll_back(visit: Operator) -> Response:
    """Make a former champion serve again."""

    def action(desk: Desk) -> Event:
        why = reason_of(visit.form, "reason")
        return desk.roll_back(
            visit.form.get("model", ""), who=visit.identity.name, why=why, champion=visit.form.get("champion")
        )

    return _attempt(visit, action, "/serving", lambda error: serving_page(visit, error=error, typed=visit.form))


@router.post("/candidates/{model}/break-glass")
def break_glass(visit: Operator, model: ModelId) -> Response:
    """Make a model serve that no gate has passed."""
    chosen = candidate_of(visit.snapshot, model)

    def action(desk: Desk) -> Event:
        why = reason_of(visit.form, "emergency")
        if visit.form.get("confirm") != "yes":
            raise InvalidForm(
                "Confirm that this model has to serve at once", field="confirm", expected="confirm=yes", found="nothing"
            )
        _refuse_changed_champion(visit)
        return desk.break_glass(chosen.model_id, who=visit.identity.name, why=why)

    return _attempt(visit, action, "/serving", lambda error: _candidate_again(visit, chosen.model_id, error))


def _decide(
    visit: Visit,
    model: str,
    field: str,
    decision: Callable[..., Event],
    *,
    check: Callable[[Visit, Candidate], None] = lambda *_: None,
) -> Response:
    """Decide on a candidate; the form names the evidence that its reader had before them."""
    chosen = candidate_of(visit.snapshot, model, visit.form.get("verdict", ""))

    def action(desk: Desk) -> Event:
        if not visit.form.get("verdict"):
            raise InvalidForm("Name the evidence", field="verdict", expected="the digest of the verdict")
        why = reason_of(visit.form, field)
        check(visit, chosen)
        return decision(desk, chosen.model_id, verdict=chosen.verdict, who=visit.identity.name, why=why)

    path = f"/candidates/{chosen.model_id}"
    return _attempt(visit, action, path, lambda error: _candidate_again(visit, chosen.model_id, error))


def _attempt(
    visit: Visit, action: Callable[[Desk], Event], path: str, page: Callable[[RanklineError], Response]
) -> Response:
    """The page that shows the event of an action; if it is refused, the page of its form with the error in front."""
    warnings: list[str] = []
    try:
        event = action(visit.console.desk.warning(warnings.append))
    except RanklineError as error:
        if visit.wants_json:
            raise
        return page(error)
    visit.console.desk.announce_later(event)
    return visit.done(event, path, warnings)


def _candidate_again(visit: Visit, model_id: str, error: RanklineError) -> Response:
    visit.__dict__.pop("snapshot", None)  # the registry may have changed, which may be the reason
    return candidate_page(visit, candidate_of(visit.snapshot, model_id), error=error, typed=visit.form)


def _refuse_scripts_for_eyes(visit: Visit, chosen: Candidate) -> None:
    """Refuse a script where four eyes are asked for: whoever may create tokens would have as many eyes as tokens."""
    asked = chosen.four_eyes or visit.console.desk.evidence(chosen).verdict.policy.four_eyes
    if visit.identity.is_script and asked:
        raise Forbidden(
            "a script is no reviewer where four eyes are asked for",
            expected="an approval by a signed-in user (decide.four_eyes)",
            found=visit.identity.name,
            hint="approve it in the console",
        )


def _refuse_changed_champion(visit: Visit) -> None:
    """Refuse an action if another model serves than on the page that its form was on."""
    shown = visit.form.get("champion")
    serving = visit.console.desk.models.champion()
    if shown is not None and shown != serving:
        raise StaleEvidence(
            "the champion changed since you opened the page",
            expected=f"champion {shown or '(none)'}",
            found=f"champion {serving or '(none)'}",
            hint="check what serves now, and send the form again if it still should change",
        )
