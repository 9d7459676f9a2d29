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

    identity: tuple[int, int]
    links: int
    bytes: int


@dataclass(frozen=True)
class Resource:
    """Something that takes room."""

    kind: Kind
    name: str  # as people know it
    path: str  # below the workspace, or below the repository
    at: float  # when it was last written, unix seconds
    files: tuple[Inode, ...] = ()
    stored: int = 0  # bytes, where files have no second names: in a bucket

    @property
    def bytes(self) -> int:
        """Its size, whatever shares its files."""
        return self.stored + sum(file.bytes for file in self.files)


@dataclass(frozen=True)
class StepWork:
    """What the ledger says of one step of a run."""

    key: str
    outputs: Mapping[str, str]  # output -> digest
    finished: bool


@dataclass(frozen=True)
class Inventory:
    """What lies in a workspace and its repository; facts are by a thing's ``place``."""

    resources: tuple[Resource, ...]
    history: tuple[Event, ...] = ()
    running: frozenset[str] = frozenset()  # runs that go on
    groups: Mapping[str, str] = field(default_factory=dict)  # run -> its recipe and flow
    awaited_runs: frozenset[str] = frozenset()  # runs of claims that have not come to their end
    work: Mapping[str, Mapping[str, StepWork]] = field(default_factory=dict)  # run -> step -> what it did
    cache_outputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # cache entry -> output -> digest
    latest: frozenset[str] = frozenset()  # cache entries that a changed step is compared with
    services: Mapping[str, str] = field(default_factory=dict)  # model -> the feature service it reads; "" unknown
    ignored: tuple[str, ...] = ()  # what is not looked at, and why
    unreadable: frozenset[str] = frozenset()  # runs whose summary is there and cannot be read
    other_histories: tuple[tuple[Event, ...], ...] = ()  # histories of other repositories that runs and schedules name


@dataclass(frozen=True)
class Decision:
    """What becomes of a thing, and why."""

    resource: Resource
    remove: bool
    why: str


@dataclass(frozen=True)
class Plan:
    """What is kept and what goes."""

    keep: Keep
    decisions: tuple[Decision, ...]
    ignored: tuple[str, ...] = ()

    @property
    def removals(self) -> list[Decision]:
        """What goes."""
        return [decision for decision in self.decisions if decision.remove]

    def freed(self, kinds: Iterable[Kind] = KINDS) -> int:
        """How many bytes the file system gets back: a file goes with the last of its names.

        Of a file that several kinds name, the first of them in the order of the list is told to free it.
        """
        wanted = set(kinds)
        names: dict[tuple[int, int], int] = defaultdict(int)
        first: dict[tuple[int, int], Kind] = {}
        sizes: dict[tuple[int, int], tuple[int, int]] = {}
        stored = 0
        for decision in sorted(self.removals, key=lambda decision: KINDS.index(decision.resource.kind)):
            stored += decision.resource.stored if decision.resource.kind in wanted else 0
            for file in decision.resource.files:
                names[file.identity] += 1
                first.setdefault(file.identity, decision.resource.kind)
                sizes[file.identity] = (file.links, file.bytes)
        return stored + sum(
            sizes[number][1] for number, count in names.items() if count >= sizes[number][0] and first[number] in wanted
        )


def plan(inventory: Inventory, keep: Keep, *, now: float) -> Plan:
    """What becomes of everything that was seen; ``now`` is unix seconds."""
    models = retained_models(inventory.history, keep, now=now)
    anywhere = dict(models)  # what runs and online features are kept for; only this repository's own is swept
    for history in inventory.other_histories:
        for model, why in retained_models(history, keep, now=now).items():
            anywhere[model] = SERVES if SERVES in (why, anywhere.get(model)) else anywhere.get(model, why)
    rules: dict[Kind, Callable[[Sequence[Resource]], Iterable[Decision]]] = {
        "run": lambda resources: _runs(resources, inventory, keep, anywhere, now),
        "bundle": lambda resources: [_model_decision(resource, inventory, models, now) for resource in resources],
        "weights": lambda resources: [_model_decision(resource, inventory, models, now) for resource in resources],
        "catalogue": lambda resources: _catalogues(resources, inventory, keep, models, now),
        "evidence": lambda resources: [_evidence(resource, inventory, models, now) for resource in resources],
        "online": lambda resources: [_online(resource, inventory, keep, anywhere, now) for resource in resources],
        "claim": lambda resources: [_by_age(resource, keep, now, "it ended: a line in ended.jsonl takes its place")
                                 for resource in resources],
        "fetched": lambda resources: [_fetched(resource, inventory, keep, now) for resource in resources],
        "leftover": lambda resources: [_leftover(resource, now) for resource in resources],
    }  # fmt: skip
    by_kind: dict[Kind, list[Resource]] = defaultdict(list)
    for resource in inventory.resources:
        by_kind[resource.kind].append(resource)
    decisions: list[Decision] = []
    for kind, rule in rules.items():
        decisions += rule(by_kind[kind])
    kept_runs = {
        decision.resource.name for decision in decisions if decision.resource.kind == "run" and not decision.remove
    }
    decisions += [_cache(resource, inventory, keep, kept_runs, now) for resource in by_kind["cache"]]
    decisions += [_checkpoint(resource, inventory, kept_runs, now) for resource in by_kind["checkpoint"]]
    decisions.sort(key=lambda decision: (KINDS.index(decision.resource.kind), decision.resource.path))
    return Plan(keep, tuple(decisions), inventory.ignored)


# -- models ----------------------------------------------------------------------------------------------------


def retained_models(history: Sequence[Event], keep: Keep, *, now: float) -> dict[str, str]:
    """Model -> why it is kept: it serves, it is what one could go back to, it waits for somebody, or it is young."""
    events = list(history)
    found: dict[str, str] = {}
    for event in reversed(events):
        new = event.kind in PROMOTING and event.model_id not in found and len(found) < keep.bundles
        if new and removal_event(events, event.model_id) is None:
            found[event.model_id] = f"served before, among the last {keep.bundles}" if found else SERVES
    for model, why in _models_in_progress(events, keep, now).items():
        found.setdefault(model, why)
    return found


def _models_in_progress(events: list[Event], keep: Keep, now: float) -> dict[str, str]:
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
        elif now - _unix_time(event.at) < keep.days * DAY_S:
            found[model] = _age_sentence(keep)
    return found


def skipped(model_id: str, keep: Keep, *, now: float) -> Callable[[list[Event]], bool]:
    """Whether a history keeps a model, asked again when it is about to leave."""
    return lambda history: model_id in retained_models(history, keep, now=now)


def _model_decision(resource: Resource, inventory: Inventory, models: Mapping[str, str], now: float) -> Decision:
    """A bundle, or the weights beside it."""
    model = resource.name
    if model in models:
        return Decision(resource, False, models[model])
    event = removal_event(list(inventory.history), model)
    if event is not None:
        return Decision(resource, True, f"event {event.n} took it away, and its files are still here")
    if any(each.model_id == model for each in inventory.history):
        return Decision(resource, True, "it does not serve, and nobody would go back to it")
    return _unreferenced(resource, now)


def retained_revisions(history: Sequence[Event], model_id: str, keep: Keep) -> dict[str, str]:
    """Catalogue revision -> why it is kept, of a model that is."""
    found: dict[str, str] = {}
    for event in reversed(history):
        revision = event.digests.get("catalogue", "")
        new = event.kind == "catalogue_published" and event.model_id == model_id and revision not in found
        if new and len(found) < keep.catalogues:
            found[revision] = f"published before, among the last {keep.catalogues}" if found else "it is published"
    return found


def _catalogues(
    resources: Sequence[Resource], inventory: Inventory, keep: Keep, models: Mapping[str, str], now: float
) -> Iterable[Decision]:
    for resource in resources:
        model, _, revision = resource.name.partition("/")
        kept = retained_revisions(inventory.history, model, keep)
        if model not in models:
            event = removal_event(list(inventory.history), model)
            known = any(each.model_id == model for each in inventory.history)
            yield Decision(resource, True, "its model goes") if known or event else _unreferenced(resource, now)
        elif revision in kept:
            yield Decision(resource, False, kept[revision])
        elif removal_event(list(inventory.history), model, revision) is not None:
            yield Decision(resource, True, "an event took it away, and its files are still here")
        elif now - resource.at < max(keep.days * DAY_S, YOUNG_S):
            yield Decision(
                resource, False, _age_sentence(keep) if keep.days >= 1 else "it may be about to be published"
            )
        else:
            yield Decision(resource, True, "later revisions were published")


def _evidence(resource: Resource, inventory: Inventory, models: Mapping[str, str], now: float) -> Decision:
    naming = [event for event in inventory.history if resource.name in event.digests.values()]
    for event in naming:
        if event.model_id in models:
            return Decision(resource, False, f"event {event.n} of model {event.model_id} stands on it")
    return Decision(resource, True, "no kept model's event stands on it") if naming else _unreferenced(resource, now)


def _online(resource: Resource, inventory: Inventory, keep: Keep, models: Mapping[str, str], now: float) -> Decision:
    if inventory.running:
        return Decision(resource, False, f"run {min(inventory.running)} goes on and may write it")
    read_by = [model for model in models if inventory.services.get(model) in (resource.name, "", None)]
    if read_by or not models:
        return Decision(resource, False, f"model {read_by[0]} reads it" if read_by else "no model says what it reads")
    return _by_age(resource, keep, now, "no kept model reads it")


# -- runs and their work ---------------------------------------------------------------------------------------


def _runs(
    resources: Sequence[Resource], inventory: Inventory, keep: Keep, models: Mapping[str, str], now: float
) -> Iterable[Decision]:
    by_group: dict[str, list[str]] = defaultdict(list)
    for resource in sorted(resources, key=lambda resource: resource.name):
        by_group[inventory.groups.get(resource.name, "")].append(resource.name)
    latest = {name for names in by_group.values() for name in names[-keep.runs :]}
    events = [event for history in (inventory.history, *inventory.other_histories) for event in history]
    makers = {event.run_id: event.model_id for event in events if event.kind in ("registered", *PROMOTING)}
    for resource in resources:
        model = makers.get(resource.name, "")
        if resource.name in inventory.running:
            yield Decision(resource, False, "it goes on")
        elif resource.name in inventory.unreadable:
            yield Decision(resource, False, "its summary cannot be read")
        elif resource.name in inventory.awaited_runs:
            yield Decision(resource, False, "its schedule goes on with it")
        elif resource.name in latest:
            yield Decision(resource, False, f"one of the last {keep.runs} of its kind")
        elif models.get(model) in (SERVES, WAITS):
            yield Decision(resource, False, f"it made model {model}: {models[model]}")
        else:
            yield _by_age(resource, keep, now, f"{keep.runs} later ones of its kind are kept")


def _cache(resource: Resource, inventory: Inventory, keep: Keep, kept_runs: set[str], now: float) -> Decision:
    step, _, key = resource.name.partition("/")
    if inventory.running:
        return Decision(resource, False, f"run {min(inventory.running)} goes on and may take it up")
    if resource.path in inventory.latest:
        return Decision(resource, False, "the last of its step: a changed step is compared with it")
    made = inventory.cache_outputs.get(resource.path, {})
    for run in sorted(kept_runs, reverse=True):
        work = inventory.work.get(run, {}).get(step)
        # one that was made beside another champion has another key and the same outputs
        if work is not None and (work.key == key or (made and dict(work.outputs) == dict(made))):
            return Decision(resource, False, f"run {run} stands on it")
    return _by_age(resource, keep, now, "no kept run stands on it")


def _checkpoint(resource: Resource, inventory: Inventory, kept_runs: set[str], now: float) -> Decision:
    step, _, key = resource.name.partition("/")
    if inventory.running:
        return Decision(resource, False, f"run {min(inventory.running)} goes on and may take it up")
    for run in sorted(kept_runs, reverse=True):
        work = inventory.work.get(run, {}).get(step)
        if work is not None and work.key.startswith(key) and not work.finished:
            done = any(
                other.key == work.key and other.finished for steps in inventory.work.values()
                for name, other in steps.items() if name == step
            )  # fmt: skip
            if not done:
                return Decision(resource, False, f"the next run goes on from where {run} was")
    if now - resource.at < YOUNG_S:
        return Decision(resource, False, "it was written within a day")
    return Decision(resource, True, "its step is finished, or nobody will go on with it")


def _fetched(resource: Resource, inventory: Inventory, keep: Keep, now: float) -> Decision:
    if inventory.running:
        return Decision(resource, False, f"run {min(inventory.running)} goes on and may read it")
    return _by_age(resource, keep, now, "a copy; it is fetched again where it is needed")


# -- shared ----------------------------------------------------------------------------------------------------


def _by_age(resource: Resource, keep: Keep, now: float, why: str) -> Decision:
    young = now - resource.at < keep.days * DAY_S
    return Decision(resource, not young, _age_sentence(keep) if young else why)


def _unreferenced(resource: Resource, now: float) -> Decision:
    """What no event names: about to be named, or left by somebody who was killed before that."""
    if now - resource.at < YOUNG_S:
        return Decision(resource, False, "it was written within a day and may be about to be registered")
    return Decision(resource, True, "no event names it")


def _leftover(resource: Resource, now: float) -> Decision:
    if now - resource.at < YOUNG_S:
        return Decision(resource, False, "it was written within a day: somebody may be at work on it")
    return Decision(resource, True, "a process that was killed left it")


def _age_sentence(keep: Keep) -> str:
    return f"younger than {keep.days:g} days"


def _unix_time(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def plan_as_dict(plan: Plan) -> dict[str, Any]:
    """The plan for programs."""

    def line(decision: Decision) -> dict[str, Any]:
        resource = decision.resource
        return {"kind": resource.kind, "name": resource.name, "bytes": resource.bytes, "why": decision.why}

    return {
        "keep": plan.keep.model_dump(),
        "goes": [line(decision) for decision in plan.decisions if decision.remove],
        "kept": [line(decision) for decision in plan.decisions if not decision.remove],
        "left_alone": list(plan.ignored),
        "bytes_freed": plan.freed(),
    }
