"""The retention policy: what of an inventory is kept, and why; what is removed, and how many bytes that frees.

Nothing is read or removed here. A resource is removed only if no rule keeps it, and every decision names its reason.
Events are never removed: a model that is removed leaves its history and one more event.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from pipelines.retention.resources import KINDS, Inventory, Kind, Resource
from rankline.contracts import FrozenModel
from rankline.registry.anchor import anchor
from rankline.registry.registry_state import PROMOTING, Event
from rankline.registry.removal import removal_event
from rankline.utc import parse_utc

DAY_S = 86_400.0
YOUNG_S = DAY_S  # what nothing refers to may be on its way to where it belongs for this long
SERVES, WAITS = "it serves", "it waits for a reviewer"  # models with these reasons keep their runs, too
_IN_PROGRESS = ("registered", "pending", "approved", "rejected", "removed", *PROMOTING)


class Keep(FrozenModel):
    """How much is kept. More than this stays where something needs it."""

    runs: int = Field(20, ge=1, description="Latest runs of each recipe and flow.")
    bundles: int = Field(5, ge=2, description="Champions: the one that serves and those to roll back to.")
    catalogues: int = Field(5, ge=1, description="Latest published catalogue revisions of each kept model.")
    days: float = Field(7.0, ge=0, allow_inf_nan=False, description="Everything younger than this many days is kept.")

    def at_least(self, other: Keep) -> Keep:
        """The larger of each."""
        return Keep(**{name: max(getattr(self, name), getattr(other, name)) for name in type(self).model_fields})


@dataclass(frozen=True)
class Decision:
    """What becomes of a resource, and why."""

    resource: Resource
    remove: bool
    why: str


@dataclass(frozen=True)
class Plan:
    """What is kept and what is removed."""

    keep: Keep
    decisions: tuple[Decision, ...]
    ignored: tuple[str, ...] = ()

    @property
    def removals(self) -> list[Decision]:
        """What is removed."""
        return [decision for decision in self.decisions if decision.remove]

    def freed(self, kinds: Iterable[Kind] = KINDS) -> int:
        """How many bytes the file system gets back; a file is freed with the last of its names.

        A file that several kinds name counts for the first of them in the order of `KINDS`.
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
    """What becomes of everything in an inventory; ``now`` is in unix seconds."""
    return _Policy(inventory, keep, now).plan()


def plan_as_dict(plan: Plan) -> dict[str, Any]:
    """The plan as JSON holds it."""

    def row(decision: Decision) -> dict[str, Any]:
        resource = decision.resource
        return {"kind": resource.kind, "name": resource.name, "bytes": resource.bytes, "why": decision.why}

    return {
        "keep": plan.keep.model_dump(),
        "goes": [row(decision) for decision in plan.decisions if decision.remove],
        "kept": [row(decision) for decision in plan.decisions if not decision.remove],
        "left_alone": list(plan.ignored),
        "bytes_freed": plan.freed(),
    }


# -- models and their catalogues -------------------------------------------------------------------------------


def retained_models(history: Sequence[Event], keep: Keep, *, now: float) -> dict[str, str]:
    """Model -> why it is kept: it serves, is the anchor, may be rolled back to, waits for a reviewer, or is young."""
    events = list(history)
    retained: dict[str, str] = {}
    for event in reversed(events):
        new = event.kind in PROMOTING and event.model_id not in retained and len(retained) < keep.bundles
        if new and removal_event(events, event.model_id) is None:
            retained[event.model_id] = f"served before, among the last {keep.bundles}" if retained else SERVES
    if model := anchor(events):
        retained.setdefault(model, "it is the anchor: losses are measured against it")
    for model, why in _models_in_progress(events, keep, now).items():
        retained.setdefault(model, why)
    return retained


def _models_in_progress(events: list[Event], keep: Keep, now: float) -> dict[str, str]:
    last: dict[str, Event] = {}
    for event in events:
        of_a_catalogue = event.kind == "removed" and "catalogue" in event.digests
        if event.kind in _IN_PROGRESS and not of_a_catalogue:
            last[event.model_id] = event
    reasons: dict[str, str] = {}
    for model, event in last.items():
        if event.kind in ("pending", "approved"):
            reasons[model] = WAITS  # an approval is the first of two
        elif event.kind != "removed" and now - parse_utc(event.at).timestamp() < keep.days * DAY_S:
            reasons[model] = _age_sentence(keep)
    return reasons


def retained_revisions(history: Sequence[Event], model_id: str, keep: Keep) -> dict[str, str]:
    """Catalogue revision -> why it is kept, for a model that is kept."""
    retained: dict[str, str] = {}
    for event in reversed(history):
        revision = event.digests.get("catalogue", "")
        new = event.kind == "catalogue_published" and event.model_id == model_id and revision not in retained
        if new and len(retained) < keep.catalogues:
            retained[revision] = (
                f"published before, among the last {keep.catalogues}" if retained else "it is published"
            )
    return retained


def _age_sentence(keep: Keep) -> str:
    return f"younger than {keep.days:g} days"


# -- one rule for each kind ------------------------------------------------------------------------------------


class _Policy:
    """The rules, applied to one inventory."""

    def __init__(self, inventory: Inventory, keep: Keep, now: float) -> None:
        self.inventory, self.keep, self.now = inventory, keep, now
        self.history = list(inventory.history)
        self.models = retained_models(self.history, keep, now=now)
        self.models_anywhere = self._models_anywhere()
        self.retained_runs: list[str] = []  # latest first, once the runs are decided on
        self.resources: dict[Kind, list[Resource]] = defaultdict(list)
        for resource in inventory.resources:
            self.resources[resource.kind].append(resource)

    def _models_anywhere(self) -> dict[str, str]:
        """The models that runs and online features are kept for: those of the other repositories, too."""
        models = dict(self.models)
        for history in self.inventory.other_histories:
            for model, why in retained_models(history, self.keep, now=self.now).items():
                models[model] = SERVES if SERVES in (why, models.get(model)) else models.get(model, why)
        return models

    def plan(self) -> Plan:
        """Decide on everything, the runs first."""
        decisions = self._runs(self.resources["run"])
        remaining = [decision.resource.name for decision in decisions if not decision.remove]
        self.retained_runs = sorted(remaining, reverse=True)
        rules: dict[Kind, Callable[[Resource], Decision]] = {
            "bundle": self._model,
            "weights": self._model,
            "catalogue": self._catalogue,
            "evidence": self._evidence,
            "online": self._online,
            "claim": lambda resource: self._by_age(resource, "it ended: a line in ended.jsonl takes its place"),
            "fetched": self._download,
            "leftover": self._leftover,
            "cache": self._cache,
            "checkpoint": self._checkpoint,
        }
        for kind, rule in rules.items():
            decisions += [rule(resource) for resource in self.resources[kind]]
        decisions.sort(key=lambda decision: (KINDS.index(decision.resource.kind), decision.resource.path))
        return Plan(self.keep, tuple(decisions), tuple(self.inventory.ignored))

    def _model(self, resource: Resource) -> Decision:
        """A bundle, or the weights beside it."""
        model = resource.name
        if model in self.models:
            return Decision(resource, False, self.models[model])
        if (event := removal_event(self.history, model)) is not None:
            return Decision(resource, True, f"event {event.n} removed it, and its files are still here")
        if self._is_known(model):
            return Decision(resource, True, "it does not serve, and it is too old to roll back to")
        return self._unreferenced(resource)

    def _catalogue(self, resource: Resource) -> Decision:
        model, _, revision = resource.name.partition("/")
        retained = retained_revisions(self.history, model, self.keep)
        if model not in self.models:
            known = self._is_known(model) or removal_event(self.history, model)
            return Decision(resource, True, "its model is removed") if known else self._unreferenced(resource)
        if revision in retained:
            return Decision(resource, False, retained[revision])
        if removal_event(self.history, model, revision) is not None:
            return Decision(resource, True, "an event removed it, and its files are still here")
        if self.now - resource.at < max(self.keep.days * DAY_S, YOUNG_S):
            why = _age_sentence(self.keep) if self.keep.days >= 1 else "it may be about to be published"
            return Decision(resource, False, why)
        return Decision(resource, True, "later revisions were published")

    def _evidence(self, resource: Resource) -> Decision:
        naming = [event for event in self.history if resource.name in event.digests.values()]
        for event in naming:
            if event.model_id in self.models:
                return Decision(resource, False, f"event {event.n} of model {event.model_id} refers to it")
        if naming:
            return Decision(resource, True, "no event of a kept model refers to it")
        return self._unreferenced(resource)

    def _online(self, resource: Resource) -> Decision:
        if used := self._in_use(resource, "may write it"):
            return used
        readers = [
            model for model in self.models_anywhere if self.inventory.services.get(model) in (resource.name, "", None)
        ]
        if readers:
            return Decision(resource, False, f"model {readers[0]} reads it")
        if not self.models_anywhere:
            return Decision(resource, False, "no model says what it reads")
        return self._by_age(resource, "no kept model reads it")

    def _runs(self, resources: Sequence[Resource]) -> list[Decision]:
        by_group: dict[str, list[str]] = defaultdict(list)
        for name in sorted(resource.name for resource in resources):
            by_group[self.inventory.groups.get(name, "")].append(name)
        latest = {name for names in by_group.values() for name in names[-self.keep.runs :]}
        events = [event for history in (self.history, *self.inventory.other_histories) for event in history]
        models = {event.run_id: event.model_id for event in events if event.kind in ("registered", *PROMOTING)}
        return [self._run(resource, latest, models.get(resource.name, "")) for resource in resources]

    def _run(self, resource: Resource, latest: set[str], model: str) -> Decision:
        name = resource.name
        if name in self.inventory.running:
            return Decision(resource, False, "it is running")
        if name in self.inventory.unreadable:
            return Decision(resource, False, "its summary cannot be read")
        if name in self.inventory.awaited_runs:
            return Decision(resource, False, "its schedule continues it")
        if name in latest:
            return Decision(resource, False, f"one of the last {self.keep.runs} of its kind")
        if self.models_anywhere.get(model) in (SERVES, WAITS):
            return Decision(resource, False, f"it made model {model}: {self.models_anywhere[model]}")
        return self._by_age(resource, f"{self.keep.runs} later ones of its kind are kept")

    def _cache(self, resource: Resource) -> Decision:
        if used := self._in_use(resource, "may reuse it"):
            return used
        if resource.path in self.inventory.latest:
            return Decision(resource, False, "the latest of its step: a changed step is compared with it")
        step, _, key = resource.name.partition("/")
        outputs = dict(self.inventory.cache_outputs.get(resource.path, {}))
        for run in self.retained_runs:
            work = self.inventory.work.get(run, {}).get(step)
            # an entry of another lineage has another key and may have the same outputs
            if work is not None and (work.key == key or (outputs and dict(work.outputs) == outputs)):
                return Decision(resource, False, f"run {run} uses it")
        return self._by_age(resource, "no kept run uses it")

    def _checkpoint(self, resource: Resource) -> Decision:
        if used := self._in_use(resource, "may resume from it"):
            return used
        step, _, key = resource.name.partition("/")
        for run in self.retained_runs:
            work = self.inventory.work.get(run, {}).get(step)
            if work is not None and work.key.startswith(key) and not self._is_finished(step, work.key):
                return Decision(resource, False, f"the next run resumes where {run} stopped")
        if self.now - resource.at < YOUNG_S:
            return Decision(resource, False, "it was written within the last day")
        return Decision(resource, True, "its step is finished, or no run will resume it")

    def _is_finished(self, step: str, key: str) -> bool:
        """Whether any run has finished a step with this key."""
        return any(
            work.finished and work.key == key
            for steps in self.inventory.work.values()
            for name, work in steps.items()
            if name == step
        )

    def _download(self, resource: Resource) -> Decision:
        if used := self._in_use(resource, "may read it"):
            return used
        return self._by_age(resource, "a copy; it is downloaded again where it is needed")

    def _leftover(self, resource: Resource) -> Decision:
        if self.now - resource.at < YOUNG_S:
            return Decision(resource, False, "it was written within the last day and may still be in use")
        return Decision(resource, True, "a process that was killed left it")

    def _in_use(self, resource: Resource, why: str) -> Decision | None:
        """What is shared stays while any run is under way."""
        running = self.inventory.running
        return Decision(resource, False, f"run {min(running)} is running and {why}") if running else None

    def _by_age(self, resource: Resource, why: str) -> Decision:
        young = self.now - resource.at < self.keep.days * DAY_S
        return Decision(resource, not young, _age_sentence(self.keep) if young else why)

    def _unreferenced(self, resource: Resource) -> Decision:
        """What no event names is about to be named, or was left by a process that was killed before that."""
        if self.now - resource.at < YOUNG_S:
            return Decision(resource, False, "it was written within the last day and may be about to be registered")
        return Decision(resource, True, "no event names it")

    def _is_known(self, model: str) -> bool:
        return any(event.model_id == model for event in self.history)
