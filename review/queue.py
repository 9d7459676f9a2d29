"""The candidates of a registry and what became of them, as pure functions of its history.

A verdict begins a candidate's time at the desk: `pending`, or `rejected` and `promoted` by the gates. It ends with the
reviewer's `promoted` or `rejected`, or when another verdict on the same model takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from rankline.contracts import FrozenModel
from rankline.errors import StaleEvidence, UsageError
from rankline.registry import registry_state, removal
from rankline.registry.anchor import BREAK_GLASS
from rankline.registry.registry_state import Event

Status = Literal["pending", "approved", "stale", "superseded", "rejected", "promoted"]
WAITING = ("pending", "approved", "stale")
REVIEW = "review"  # in the details of an event that a reviewer wrote
MIN_DIGEST = 8  # characters of a digest that name it
_VERDICTS = ("pending", "rejected", "promoted")
_ORIGIN = "made by recipe "  # in the reason of a `registered` event


class Approval(FrozenModel):
    """A reviewer's approval."""

    who: str
    at: str
    event: int


class Candidate(FrozenModel):
    """A verdict on a model, and what became of it."""

    model_id: str
    recipe: str
    run_id: str
    at: str
    status: Status
    sentence: str
    event: int  # the number of the newest event that judged it, or decided on it
    verdict_event: int  # the number of the event that judged it
    verdict: str  # digest
    evaluation: str  # digest
    champion: str = ""  # when it was judged; empty for none
    started_by: str = ""  # who started the run; empty where nobody knows
    approvals: tuple[Approval, ...] = ()
    reviewer: str = ""
    reason: str = ""
    changed: str = ""  # what changed since the verdict, where the candidate is stale or superseded

    @property
    def command(self) -> str:
        """The command that approves it."""
        return registry_state.approval_command(self.model_id, self.verdict)


def candidates(history: Sequence[Event]) -> list[Candidate]:
    """Every candidate with its status, the newest first; one for each verdict on a model."""
    return [_candidate(events, history) for events in reversed(_by_verdict(history))]


def queue(history: Sequence[Event]) -> list[Candidate]:
    """The candidates that wait for a reviewer, the newest first."""
    return [each for each in candidates(history) if each.status in WAITING]


def find(history: Sequence[Event], model: str) -> Candidate:
    """The newest candidate whose model id begins like this.

    Raises:
        UsageError: there is none, or there are several models.
    """
    known = candidates(history)
    matches = [each for each in known if model and each.model_id.startswith(model)]
    if len({each.model_id for each in matches}) == 1:
        return matches[0]
    listed = list(dict.fromkeys(each.model_id for each in matches or known))[:10]
    raise UsageError(
        "several candidates begin like that" if matches else "there is no such candidate",
        expected="one of " + (", ".join(listed) or "the candidates, and there are none"),
        found=model or "no model id",
        hint="`rankline review list --all` lists every candidate",
    )


def still_waiting(history: Sequence[Event], candidate: Candidate, *, stale: bool = False) -> Candidate:
    """The candidate as this history has it, if it still waits; ``stale``: even if its evidence is stale.

    Raises:
        StaleEvidence: it was decided on, another verdict took its place, or something that it was judged by changed.
    """
    now = next(
        (
            each
            for each in candidates(history)
            if (each.model_id, each.verdict) == (candidate.model_id, candidate.verdict)
        ),
        candidate,
    )
    if now.status in ("pending", "approved") or (stale and now.status == "stale"):
        return now
    if now.status == "stale":
        raise stale_error(now)
    outcome = now.changed or f"{now.status} by {now.reviewer or 'the gates'} (event {now.event}): {now.reason}"
    raise StaleEvidence(
        f"candidate {now.model_id} does not wait for a review any more",
        expected="a candidate that waits",
        found=outcome,
        hint="`rankline review list` lists those that wait",
    )


def stale_error(candidate: Candidate) -> StaleEvidence:
    """The error for a candidate whose evidence says nothing about the present registry."""
    return StaleEvidence(
        f"the evidence for candidate {candidate.model_id} is stale",
        expected="what it was judged by, unchanged",
        found=candidate.changed,
        hint=f"`rankline evaluate --candidate {candidate.model_id[:12]}` measures it again, without training",
    )


def _by_verdict(history: Iterable[Event]) -> list[list[Event]]:
    """The events of each verdict, in the order of its newest verdict event."""
    groups: dict[tuple[str, str], list[Event]] = {}
    for event in history:
        verdict = event.digests.get("verdict", "")
        if not verdict or event.details.get(BREAK_GLASS):
            continue
        key = (event.model_id, verdict)
        if event.kind in _VERDICTS and REVIEW not in event.details:  # judged, or judged again
            groups.pop(key, None)
            groups[key] = [event]
        elif event.kind in ("approved", "promoted", "rejected") and key in groups:
            groups[key].append(event)
    return list(groups.values())


def _candidate(events: Sequence[Event], history: Sequence[Event]) -> Candidate:
    """The candidate of a verdict, from the events with it."""
    verdict, last = events[0], events[-1]
    approvals = [event for event in events[1:] if event.kind == "approved"]
    status, changed = _status(verdict, last, history)
    decided = last if REVIEW in last.details else None
    return Candidate(
        model_id=verdict.model_id,
        recipe=str(verdict.details.get("recipe") or _recipe(history, verdict.model_id)),
        run_id=verdict.run_id,
        at=verdict.at,
        status=status,
        sentence=verdict.why,
        event=last.n if last.kind in _VERDICTS else verdict.n,
        verdict_event=verdict.n,
        verdict=verdict.digests["verdict"],
        evaluation=verdict.digests.get("evaluation", ""),
        champion=verdict.champion_before,
        started_by=str(verdict.details.get("started_by", "")),
        approvals=tuple(Approval(who=each.who, at=each.at, event=each.n) for each in approvals),
        reviewer=decided.who if decided else "",
        reason=decided.why if decided else "",
        changed=changed,
    )


def _status(verdict: Event, last: Event, history: Sequence[Event]) -> tuple[Status, str]:
    """The status of a candidate, and what changed since its verdict."""
    if last.kind in ("promoted", "rejected"):
        return ("promoted" if last.kind == "promoted" else "rejected"), ""
    later = history[verdict.n :]
    if removed := removal.removal_event(list(later), verdict.model_id):
        return "superseded", f"the model was removed by {removed.who} (event {removed.n}): {removed.why}"
    for event in later:
        if event.model_id == verdict.model_id and event.kind in _VERDICTS and event is not last:
            how = "it was promoted past the gates" if event.details.get(BREAK_GLASS) else "it was judged again"
            return "superseded", f"{how} (event {event.n} by {event.who})"
    if changed := changes(verdict, history):
        return "stale", changed
    return ("approved" if last.kind == "approved" else "pending"), ""


def changes(verdict: Event, history: Sequence[Event]) -> str:
    """What changed since a verdict of what it was given by: the champion, its catalogue, the bundle's catalogue."""
    before = registry_state.champion(history[: verdict.n])
    now = registry_state.champion(history)
    was, serves = (each.model_id if each else "" for each in (before, now))
    if serves != was:
        assert now is not None, "a champion never ends without another"
        event = history[now.event - 1]
        return (
            f"the champion: {was or 'no model'} served when it was judged, and {serves} serves since event {event.n} "
            f"({event.kind.replace('_', ' ')} by {event.who} at {event.at})"
        )
    for model, subject in ((serves, f"the catalogue of champion {serves}"), (verdict.model_id, "its own catalogue")):
        event_before = registry_state.last_publication(history[: verdict.n], model)
        event_now = registry_state.last_publication(history, model)
        if (
            event_now
            and event_now != event_before
            and _catalogue(event_now, history) != _catalogue(event_before, history, model)
        ):
            return (
                f"{subject}: revision {event_now.digests['catalogue']} was published at {event_now.at} by "
                f"{event_now.who} (event {event_now.n})"
            )
    registered = [event for event in history[verdict.n :] if _registers(event, verdict.model_id)]
    return (
        f"the bundle: it was registered again at {registered[-1].at} (event {registered[-1].n})" if registered else ""
    )


def _catalogue(publication: Event | None, history: Sequence[Event], model: str = "") -> str:
    """The revision of a publication, or the one that the model's bundle was registered with."""
    if publication is not None:
        return publication.digests["catalogue"]
    return next((event.digests.get("catalogue", "") for event in history if _registers(event, model)), "")


def _registers(event: Event, model: str) -> bool:
    return event.kind == "registered" and event.model_id == model


def _recipe(history: Sequence[Event], model: str) -> str:
    """The recipe that made a model, from the reason of its registration."""
    why = next((event.why for event in reversed(history) if _registers(event, model)), "")
    return why.removeprefix(_ORIGIN).split(",", 1)[0] if why.startswith(_ORIGIN) else ""
