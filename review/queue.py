"""The candidates of a registry and what became of them, as pure functions of its history.

A verdict begins a candidate's time at the desk: `pending`, or `rejected` and `promoted` by the gates. It ends with the
reviewer's `promoted` or `rejected`, or when another verdict on the same model takes its place.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import Literal

from rankline.contracts import FrozenModel
from rankline.errors import StaleEvidence, UsageError
from rankline.registry import registry_state, removal
from rankline.registry.anchor import BREAK_GLASS
from rankline.registry.registry_state import PROMOTING, PUBLISHING, REMOVED, Event

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
    four_eyes: bool = False  # any verdict on the model asked for them
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
    past = _Past(history)
    return [_candidate(events, past) for events in reversed(_by_verdict(history))]


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


class _Past:
    """A history, by model and by champion, so that the status of a candidate does not read all of it again."""

    def __init__(self, history: Sequence[Event]) -> None:
        self.history = history
        self.of_model: dict[str, list[Event]] = {}
        self._catalogues: dict[str, list[tuple[int, str, Event | None]]] = {}
        self.promotions: list[Event | None] = [None]  # [n]: what made the champion after n events serve
        for event in history:
            self.of_model.setdefault(event.model_id, []).append(event)
            self.promotions.append(event if event.kind in PROMOTING else self.promotions[-1])

    def catalogue(self, model: str, until: int) -> tuple[str, Event | None]:
        """The catalogue revision of a model after so many events, and what published it; None for the bundle's own."""
        states = self._catalogues.setdefault(model, []) or self._catalogue_states(model)
        place = bisect.bisect_right(states, until, key=lambda state: state[0])
        return states[place - 1][1:] if place else ("", None)

    def _catalogue_states(self, model: str) -> list[tuple[int, str, Event | None]]:
        """(event, revision, publication) after each event that changes the catalogue of a model."""
        states = self._catalogues[model]
        own = ""
        for event in self.of_model.get(model, []):
            if event.kind == PUBLISHING:
                states.append((event.n, event.digests["catalogue"], event))
            elif event.kind == "registered":
                own = event.digests.get("catalogue", "")
                if not states or states[-1][2] is None:
                    states.append((event.n, own, None))
            elif event.kind == REMOVED and "catalogue" not in event.digests:
                states.append((event.n, own, None))
        return states


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


def _candidate(events: Sequence[Event], past: _Past) -> Candidate:
    """The candidate of a verdict, from the events with it."""
    verdict, last = events[0], events[-1]
    approvals = [event for event in events[1:] if event.kind == "approved"]
    status, changed = _status(verdict, last, past)
    decided = last if last.kind != "approved" and REVIEW in last.details else None
    return Candidate(
        model_id=verdict.model_id,
        recipe=str(verdict.details.get("recipe") or _recipe(past.of_model[verdict.model_id])),
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
        four_eyes=registry_state.four_eyes(past.of_model[verdict.model_id], verdict.model_id),
        approvals=tuple(Approval(who=each.who, at=each.at, event=each.n) for each in approvals),
        reviewer=decided.who if decided else "",
        reason=decided.why if decided else "",
        changed=changed,
    )


def _status(verdict: Event, last: Event, past: _Past) -> tuple[Status, str]:
    """The status of a candidate, and what changed since its verdict."""
    if last.kind in ("promoted", "rejected"):
        return ("promoted" if last.kind == "promoted" else "rejected"), ""
    later = [event for event in past.of_model[verdict.model_id] if event.n > verdict.n]
    if removed := removal.removal_event(later, verdict.model_id):
        return "superseded", f"the model was removed by {removed.who} (event {removed.n}): {removed.why}"
    for event in later:
        if event.kind in _VERDICTS:
            how = "it was promoted past the gates" if event.details.get(BREAK_GLASS) else "it was judged again"
            return "superseded", f"{how} (event {event.n} by {event.who})"
    if changed := _changes(verdict, later, past):
        return "stale", changed
    return ("approved" if last.kind == "approved" else "pending"), ""


def _changes(verdict: Event, later: Sequence[Event], past: _Past) -> str:
    """What changed since a verdict of what it was given by: the champion, a catalogue, the bundle."""
    before, now = past.promotions[verdict.n], past.promotions[-1]
    was, serves = (event.model_id if event else "" for event in (before, now))
    if now is not None and serves != was:
        return (
            f"the champion: {was or 'no model'} served when it was judged, and {serves} serves since event {now.n} "
            f"({now.kind.replace('_', ' ')} by {now.who} at {now.at})"
        )
    for model, subject in ((serves, f"the catalogue of champion {serves}"), (verdict.model_id, "its own catalogue")):
        revision, publication = past.catalogue(model, len(past.history))
        if publication is not None and publication.n > verdict.n and revision != past.catalogue(model, verdict.n)[0]:
            return (
                f"{subject}: revision {revision} was published at {publication.at} by {publication.who} "
                f"(event {publication.n})"
            )
    registered = next((event for event in reversed(later) if event.kind == "registered"), None)
    return f"the bundle: it was registered again at {registered.at} (event {registered.n})" if registered else ""


def _recipe(events: Sequence[Event]) -> str:
    """The recipe that made a model, from the reason of its registration."""
    why = next((event.why for event in reversed(events) if event.kind == "registered"), "")
    return why.removeprefix(_ORIGIN).split(",", 1)[0] if why.startswith(_ORIGIN) else ""
