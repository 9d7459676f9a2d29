"""What of a workspace and its model repository is kept, and why; what may go, and how many bytes that frees.

Nothing is read or removed here: `plan` goes through what was seen (pipelines/retention/sweep.py looks and sweeps). A thing goes
only if no rule keeps it, and every rule that keeps something names itself.

Events are never removed: a model that goes leaves its history, and one event more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from rankline.contracts import FrozenModel
from rankline.registry.registry_state import PROMOTING, Event
from rankline.registry.removal import removal_event

Kind = Literal[
    "run", "cache", "checkpoint", "bundle", "weights", "catalogue", "evidence", "online", "claim", "fetched", "leftover"
]
KINDS: tuple[Kind, ...] = (
    "run", "cache", "checkpoint", "bundle", "weights", "catalogue", "evidence", "online", "claim", "fetched", "leftover"
)  # fmt: skip
DAY_S = 86_400.0
SERVES, WAITS = "it serves", "it waits for a reviewer"
YOUNG_S = DAY_S  # what was written within a day and nobody refers to may be on its way to where it belongs


class Keep(FrozenModel):
    """How much is kept. More than this stays where something needs it."""

    runs: int = Field(20, ge=1, description="Latest runs of each recipe and flow.")
    bundles: int = Field(5, ge=2, description="Champions: the one that serves and those that it can be taken back to.")
    catalogues: int = Field(5, ge=1, description="Published catalogue revisions of each kept model, the latest first.")
    days: float = Field(7.0, ge=0, allow_inf_nan=False, description="Nothing that is younger than so many days goes.")

    def at_least(self, other: Keep) -> Keep:
        """The larger of each."""
        return Keep(**{name: max(getattr(self, name), getattr(other, name)) for name in type(self).model_fields})


@dataclass(frozen=True)
class Inode:
    """One name of a file: which file it is, how many names that has in all, and its size in bytes."""

    number: tuple[int, int]
    names: int
    bytes: int


@dataclass(frozen=True)
class Thing:
    """Something that takes room."""

    kind: Kind
    name: str  # as people know it
    place: str  # below the workspace, or below the repository
    at: float  # when it was last written, unix seconds
    files: tuple[Inode, ...] = ()
    stored: int = 0  # bytes, where files have no second names: in a bucket

    @property
    def bytes(self) -> int:
        """Its size, whatever shares its files."""
        return self.stored + sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class Work:
    """What the ledger says of one step of a run."""

    key: str
    outputs: Mapping[str, str]  # output -> digest
    finished: bool


@dataclass(frozen=True)
class Seen:
    """What lies in a workspace and its repository; facts are by a thing's ``place``."""

    things: tuple[Thing, ...]
    history: tuple[Event, ...] = ()
    under_way: frozenset[str] = frozenset()  # runs that go on
    groups: Mapping[str, str] = field(default_factory=dict)  # run -> its recipe and flow
    awaited: frozenset[str] = frozenset()  # runs of claims that have not come to their end
    work: Mapping[str, Mapping[str, Work]] = field(default_factory=dict)  # run -> step -> what it did
    made: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # cache entry -> output -> digest
    latest: frozenset[str] = frozenset()  # cache entries that a changed step is compared with
    services: Mapping[str, str] = field(default_factory=dict)  # model -> the feature service it reads; "" unknown
    left_alone: tuple[str, ...] = ()  # what is not looked at, and why
    unreadable: frozenset[str] = frozenset()  # runs whose summary is there and cannot be read
    elsewhere: tuple[tuple[Event, ...], ...] = ()  # histories of other repositories that runs and schedules name


@dataclass(frozen=True)
class Fate:
    """What becomes of a thing, and why."""

    thing: Thing
    goes: bool
    why: str


@dataclass(frozen=True)
class Plan:
    """What is kept and what goes."""

    keep: Keep
    fates: tuple[Fate, ...]
    left_alone: tuple[str, ...] = ()

    @property
    def going(self) -> list[Fate]:
        """What goes."""
        return [fate for fate in self.fates if fate.goes]

    def freed(self, kinds: Iterable[Kind] = KINDS) -> int:
        """How many bytes the file system gets back: a file goes with the last of its names.

        Of a file that several kinds name, the first of them in the order of the list is told to free it.
        """
        wanted = set(kinds)
        names: dict[tuple[int, int], int] = defaultdict(int)
        first: dict[tuple[int, int], Kind] = {}
        sizes: dict[tuple[int, int], tuple[int, int]] = {}
        stored = 0
        for fate in sorted(self.going, key=lambda fate: KINDS.index(fate.thing.kind)):
            stored += fate.thing.stored if fate.thing.kind in wanted else 0
            for file in fate.thing.files:
                names[file.number] += 1
                first.setdefault(file.number, fate.thing.kind)
                sizes[file.number] = (file.names, file.bytes)
        return stored + sum(
            sizes[number][1] for number, count in names.items() if count >= sizes[number][0] and first[number] in wanted
        )


def plan(seen: Seen, keep: Keep, *, now: float) -> Plan:
    """What becomes of everything that was seen; ``now`` is unix seconds."""
    models = models_kept(seen.history, keep, now=now)
    anywhere = dict(models)  # what runs and online features are kept for; only this repository's own is swept
    for history in seen.elsewhere:
        for model, why in models_kept(history, keep, now=now).items():
            anywhere[model] = SERVES if SERVES in (why, anywhere.get(model)) else anywhere.get(model, why)
    rules: dict[Kind, Callable[[Sequence[Thing]], Iterable[Fate]]] = {
        "run": lambda things: _runs(things, seen, keep, anywhere, now),
        "bundle": lambda things: [_of_model(thing, seen, models, now) for thing in things],
        "weights": lambda things: [_of_model(thing, seen, models, now) for thing in things],
        "catalogue": lambda things: _catalogues(things, seen, keep, models, now),
        "evidence": lambda things: [_evidence(thing, seen, models, now) for thing in things],
        "online": lambda things: [_online(thing, seen, keep, anywhere, now) for thing in things],
        "claim": lambda things: [_by_age(thing, keep, now, "it ended: a line in ended.jsonl takes its place")
                                 for thing in things],
        "fetched": lambda things: [_fetched(thing, seen, keep, now) for thing in things],
        "leftover": lambda things: [_leftover(thing, now) for thing in things],
    }  # fmt: skip
    by_kind: dict[Kind, list[Thing]] = defaultdict(list)
    for thing in seen.things:
        by_kind[thing.kind].append(thing)
    fates: list[Fate] = []
    for kind, rule in rules.items():
        fates += rule(by_kind[kind])
    kept_runs = {fate.thing.name for fate in fates if fate.thing.kind == "run" and not fate.goes}
    fates += [_cache(thing, seen, keep, kept_runs, now) for thing in by_kind["cache"]]
    fates += [_checkpoint(thing, seen, kept_runs, now) for thing in by_kind["checkpoint"]]
    fates.sort(key=lambda fate: (KINDS.index(fate.thing.kind), fate.thing.place))
    return Plan(keep, tuple(fates), seen.left_alone)


# -- models ----------------------------------------------------------------------------------------------------


def models_kept(history: Sequence[Event], keep: Keep, *, now: float) -> dict[str, str]:
    """Model -> why it is kept: it serves, it is what one could go back to, it waits for somebody, or it is young."""
    events = list(history)
    found: dict[str, str] = {}
    for event in reversed(events):
        new = event.kind in PROMOTING and event.model_id not in found and len(found) < keep.bundles
        if new and removal_event(events, event.model_id) is None:
            found[event.model_id] = f"served before, among the last {keep.bundles}" if found else SERVES
    for model, why in _said(events, keep, now).items():
        found.setdefault(model, why)
    return found


def _said(events: list[Event], keep: Keep, now: float) -> dict[str, str]:
    last: dict[str, Event] = {}
    for event in events:
        of_a_catalogue = event.kind == "removed" and "catalogue" in event.digests
        if (
            event.kind in ("registered", "pending", "approved", "rejected", "removed", *PROMOTING)
            and not of_a_catalogue
        ):
            last[event.model_id] = event
    found: dict[str, str] = {}
    for model, event in last.items():
        if event.kind == "removed":
            continue
        if event.kind in ("pending", "approved"):
            found[model] = WAITS if event.kind == "pending" else "it was approved"
        elif now - _moment(event.at) < keep.days * DAY_S:
            found[model] = _younger(keep)
    return found


def skipped(model_id: str, keep: Keep, *, now: float) -> Callable[[list[Event]], bool]:
    """Whether a history keeps a model, asked again when it is about to leave."""
    return lambda history: model_id in models_kept(history, keep, now=now)


def _of_model(thing: Thing, seen: Seen, models: Mapping[str, str], now: float) -> Fate:
    """A bundle, or the weights beside it."""
    model = thing.name
    if model in models:
        return Fate(thing, False, models[model])
    event = removal_event(list(seen.history), model)
    if event is not None:
        return Fate(thing, True, f"event {event.n} took it away, and its files are still here")
    if any(each.model_id == model for each in seen.history):
        return Fate(thing, True, "it does not serve, and nobody would go back to it")
    return _unknown(thing, now)


def revisions_kept(history: Sequence[Event], model_id: str, keep: Keep) -> dict[str, str]:
    """Catalogue revision -> why it is kept, of a model that is."""
    found: dict[str, str] = {}
    for event in reversed(history):
        revision = event.digests.get("catalogue", "")
        new = event.kind == "catalogue_published" and event.model_id == model_id and revision not in found
        if new and len(found) < keep.catalogues:
            found[revision] = f"published before, among the last {keep.catalogues}" if found else "it is published"
    return found


def _catalogues(
    things: Sequence[Thing], seen: Seen, keep: Keep, models: Mapping[str, str], now: float
) -> Iterable[Fate]:
    for thing in things:
        model, _, revision = thing.name.partition("/")
        kept = revisions_kept(seen.history, model, keep)
        if model not in models:
            event = removal_event(list(seen.history), model)
            known = any(each.model_id == model for each in seen.history)
            yield Fate(thing, True, "its model goes") if known or event else _unknown(thing, now)
        elif revision in kept:
            yield Fate(thing, False, kept[revision])
        elif removal_event(list(seen.history), model, revision) is not None:
            yield Fate(thing, True, "an event took it away, and its files are still here")
        elif now - thing.at < max(keep.days * DAY_S, YOUNG_S):
            yield Fate(thing, False, _younger(keep) if keep.days >= 1 else "it may be about to be published")
        else:
            yield Fate(thing, True, "later revisions were published")


def _evidence(thing: Thing, seen: Seen, models: Mapping[str, str], now: float) -> Fate:
    naming = [event for event in seen.history if thing.name in event.digests.values()]
    for event in naming:
        if event.model_id in models:
            return Fate(thing, False, f"event {event.n} of model {event.model_id} stands on it")
    return Fate(thing, True, "no kept model's event stands on it") if naming else _unknown(thing, now)


def _online(thing: Thing, seen: Seen, keep: Keep, models: Mapping[str, str], now: float) -> Fate:
    if seen.under_way:
        return Fate(thing, False, f"run {min(seen.under_way)} goes on and may write it")
    read_by = [model for model in models if seen.services.get(model) in (thing.name, "", None)]
    if read_by or not models:
        return Fate(thing, False, f"model {read_by[0]} reads it" if read_by else "no model says what it reads")
    return _by_age(thing, keep, now, "no kept model reads it")


# -- runs and their work ---------------------------------------------------------------------------------------


def _runs(things: Sequence[Thing], seen: Seen, keep: Keep, models: Mapping[str, str], now: float) -> Iterable[Fate]:
    by_group: dict[str, list[str]] = defaultdict(list)
    for thing in sorted(things, key=lambda thing: thing.name):
        by_group[seen.groups.get(thing.name, "")].append(thing.name)
    latest = {name for names in by_group.values() for name in names[-keep.runs :]}
    events = [event for history in (seen.history, *seen.elsewhere) for event in history]
    makers = {event.run_id: event.model_id for event in events if event.kind in ("registered", *PROMOTING)}
    for thing in things:
        model = makers.get(thing.name, "")
        if thing.name in seen.under_way:
            yield Fate(thing, False, "it goes on")
        elif thing.name in seen.unreadable:
            yield Fate(thing, False, "its summary cannot be read")
        elif thing.name in seen.awaited:
            yield Fate(thing, False, "its schedule goes on with it")
        elif thing.name in latest:
            yield Fate(thing, False, f"one of the last {keep.runs} of its kind")
        elif models.get(model) in (SERVES, WAITS):
            yield Fate(thing, False, f"it made model {model}: {models[model]}")
        else:
            yield _by_age(thing, keep, now, f"{keep.runs} later ones of its kind are kept")


def _cache(thing: Thing, seen: Seen, keep: Keep, kept_runs: set[str], now: float) -> Fate:
    step, _, key = thing.name.partition("/")
    if seen.under_way:
        return Fate(thing, False, f"run {min(seen.under_way)} goes on and may take it up")
    if thing.place in seen.latest:
        return Fate(thing, False, "the last of its step: a changed step is compared with it")
    made = seen.made.get(thing.place, {})
    for run in sorted(kept_runs, reverse=True):
        work = seen.work.get(run, {}).get(step)
        # one that was made beside another champion has another key and the same outputs
        if work is not None and (work.key == key or (made and dict(work.outputs) == dict(made))):
            return Fate(thing, False, f"run {run} stands on it")
    return _by_age(thing, keep, now, "no kept run stands on it")


def _checkpoint(thing: Thing, seen: Seen, kept_runs: set[str], now: float) -> Fate:
    step, _, key = thing.name.partition("/")
    if seen.under_way:
        return Fate(thing, False, f"run {min(seen.under_way)} goes on and may take it up")
    for run in sorted(kept_runs, reverse=True):
        work = seen.work.get(run, {}).get(step)
        if work is not None and work.key.startswith(key) and not work.finished:
            done = any(
                other.key == work.key and other.finished for steps in seen.work.values()
                for name, other in steps.items() if name == step
            )  # fmt: skip
            if not done:
                return Fate(thing, False, f"the next run goes on from where {run} was")
    if now - thing.at < YOUNG_S:
        return Fate(thing, False, "it was written within a day")
    return Fate(thing, True, "its step is finished, or nobody will go on with it")


def _fetched(thing: Thing, seen: Seen, keep: Keep, now: float) -> Fate:
    if seen.under_way:
        return Fate(thing, False, f"run {min(seen.under_way)} goes on and may read it")
    return _by_age(thing, keep, now, "a copy; it is fetched again where it is needed")


# -- shared ----------------------------------------------------------------------------------------------------


def _by_age(thing: Thing, keep: Keep, now: float, why: str) -> Fate:
    young = now - thing.at < keep.days * DAY_S
    return Fate(thing, not young, _younger(keep) if young else why)


def _unknown(thing: Thing, now: float) -> Fate:
    """What no event names: about to be named, or left by somebody who was killed before that."""
    if now - thing.at < YOUNG_S:
        return Fate(thing, False, "it was written within a day and may be about to be registered")
    return Fate(thing, True, "no event names it")


def _leftover(thing: Thing, now: float) -> Fate:
    if now - thing.at < YOUNG_S:
        return Fate(thing, False, "it was written within a day: somebody may be at work on it")
    return Fate(thing, True, "a process that was killed left it")


def _younger(keep: Keep) -> str:
    return f"younger than {keep.days:g} days"


def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def told(plan: Plan) -> dict[str, Any]:
    """The plan for programs."""

    def line(fate: Fate) -> dict[str, Any]:
        thing = fate.thing
        return {"kind": thing.kind, "name": thing.name, "bytes": thing.bytes, "why": fate.why}

    return {
        "keep": plan.keep.model_dump(),
        "goes": [line(fate) for fate in plan.fates if fate.goes],
        "kept": [line(fate) for fate in plan.fates if not fate.goes],
        "left_alone": list(plan.left_alone),
        "bytes_freed": plan.freed(),
    }
