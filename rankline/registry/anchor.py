"""The anchor, a past champion that losses are measured against, and promotions past the gates.

Both are functions of the history: `anchored` moves the anchor, and a promotion whose details have `break_glass` stays
unconfirmed until `confirmed` follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rankline.errors import UsageError
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import ANCHORED, CONFIRMED, PROMOTING, Champion, Event
from rankline.registry.removal import not_found_error, removal_event

BREAK_GLASS = "break_glass"  # in the details of a promotion past the gates


def anchor_event(history: Sequence[Event]) -> Event | None:
    """The event that made the anchor what it is: the last move, else the first promotion of a model still there."""
    events = list(history)
    moves = [event for event in events if event.kind == ANCHORED]
    promotions = [event for event in events if event.kind in PROMOTING and not event.details.get(BREAK_GLASS)]
    for event in [*reversed(moves), *promotions]:
        if removal_event(events, event.model_id) is None:
            return event
    return None


def anchor(history: Sequence[Event]) -> str:
    """The model that losses are measured against; empty without one."""
    event = anchor_event(history)
    return event.model_id if event else ""


def unconfirmed(history: Sequence[Event]) -> Event | None:
    """The promotion past the gates by which the champion serves, unless a gate has passed the champion since."""
    last = next((event for event in reversed(history) if event.kind in PROMOTING), None)
    if last is None or not last.details.get(BREAK_GLASS):
        return None
    passed = any(event.kind == CONFIRMED and event.model_id == last.model_id for event in history[last.n :])
    return None if passed else last


def warning(history: Sequence[Event]) -> str:
    """What every place that shows the champion says of a promotion past the gates; empty without one."""
    event = unconfirmed(history)
    if event is None:
        return ""
    return f"promoted past the gates by {event.who} (event {event.n}): {event.why}; no gate has passed it since"


def warning_of(models: ModelRegistry, champion: Champion) -> str:
    """The same, for the champion as a server reads it: all events are read only where there may be a warning."""
    past_gates = models.event(champion.event).details.get(BREAK_GLASS)
    return warning(models.history()) if past_gates else ""


def move_anchor(models: ModelRegistry, model: str, *, who: str, why: str) -> Event:
    """Measure losses against another model from now on; ``model`` may be the beginning of an id.

    Raises:
        UsageError: no such model has served, or several ids begin like that.
        RegistryError: it was removed.
    """
    served = [event.model_id for event in models.history() if event.kind in PROMOTING]
    return models.append(ANCHORED, _chosen(models, model, served), who=who, why=why)


def break_glass(models: ModelRegistry, model: str, *, who: str, why: str, check: Callable[[str], None]) -> Event:
    """Make a registered model serve that no gate has passed; the event says who did it and why.

    ``check`` raises if the model cannot serve in this place.

    Raises:
        UsageError: there is no reason, or no such model, or several ids begin like that, or it serves already.
        RegistryError: it was removed.
        IntegrityError: a file of its bundle changed.
        StaleEvidence: the champion changed meanwhile; nothing was written.
    """
    if len(why.split()) < 2:
        raise UsageError(
            "a promotion past the gates needs a reason",
            expected="a sentence that others will understand",
            found=why or "nothing",
            hint='--reason "the champion recommends recalled items"',
        )
    history, serving = models.history(), models.champion()
    chosen = _chosen(models, model, [event.model_id for event in history if event.kind == "registered"])
    if chosen == serving:
        raise UsageError(f"model {chosen} already serves", expected="another model", found=chosen, where=models.root)
    check(chosen)
    details = {BREAK_GLASS: True, "failures": _failures(history, chosen)}
    return models.append(
        "promoted", chosen, who=who, why=why, details=details, digests=_evidence(history, chosen),
        expected_champion=serving,
    )  # fmt: skip


def _chosen(models: ModelRegistry, beginning: str, ids: Sequence[str]) -> str:
    """The one model among ``ids`` that begins like this and is still there."""
    known = list(dict.fromkeys(ids))
    matches = [each for each in known if beginning and each.startswith(beginning)]
    if len(matches) != 1:
        raise UsageError(
            "several model ids begin like that" if matches else "there is no such model here",
            expected="one of " + (", ".join((matches or known)[-10:]) or "the models, and there are none"),
            found=beginning or "no model id",
            where=models.root,
            hint="`rankline history` lists every model",
        )
    if removal_event(models.history(), matches[0]) is not None:
        raise not_found_error(models, matches[0])
    return matches[0]


def _failures(history: Sequence[Event], model_id: str) -> list[str]:
    """The gates that the model's last verdict names."""
    for event in reversed(history):
        if event.model_id == model_id and event.kind in ("rejected", "pending"):
            return [str(name) for name in event.details.get("failures", [])]
    return []


def _evidence(history: Sequence[Event], model_id: str) -> dict[str, str]:
    """The digests of the model's last evaluation, and of the verdict on it, if there are any."""
    digests: dict[str, str] = {}
    for event in history:
        if event.model_id == model_id:
            digests |= {name: event.digests[name] for name in ("evaluation", "verdict") if name in event.digests}
    return digests
