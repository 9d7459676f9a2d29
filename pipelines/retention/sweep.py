"""Removes what a retention plan removes, in an order that leaves a sound workspace if the process is killed.

A model is removed by an event first, which fails if the history has changed: after that it cannot be promoted. Then
its bundle goes by one rename (in a bucket its manifest goes first), and then what only that model needed. Runs and
cache entries go by one rename each, into a `.trash` beside them that the next sweep empties.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.recipe import storage_settings
from pipelines.recipes import named
from pipelines.retention import policy
from pipelines.retention.inventory import (
    REPOSITORY_PARTS,
    is_run,
    is_running,
    is_workspace,
    list_folders,
    take_inventory,
)
from pipelines.retention.policy import Decision, Keep, Plan
from pipelines.retention.resources import Kind, Resource
from pipelines.schedules.store import ScheduleStore
from rankline.errors import RanklineError, UsageError
from rankline.io.files import first_line, locked
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event
from rankline.registry.removal import (
    TRASH,
    delete_atomically,
    delete_from_registry,
    empty_trash,
    removal_event,
    remove,
)
from rankline.runtime.current_user import current_user

LOCK = ".gc.lock"


@dataclass(frozen=True)
class SweepResult:
    """What was done of a plan."""

    removed: tuple[Decision, ...]
    skipped: tuple[Decision, ...]  # planned removals that stay; ``why`` says what has changed meanwhile
    freed: int  # bytes


def plan_sweep(workspace: Path, keep: Keep, *, repository: str = "", now: float | None = None) -> Plan:
    """What becomes of everything; nothing is written.

    Raises:
        RanklineError: the repository cannot be read, or its history is damaged.
    """
    inventory = take_inventory(workspace.resolve(), repository=repository)
    return policy.plan(inventory, keep, now=time.time() if now is None else now)


def clean(
    workspace: Path, keep: Keep, *, repository: str = "", why: str = "retention", say: Callable[[str], None] = print
) -> SweepResult:
    """Plan and sweep in one, as a schedule does after its runs.

    Raises:
        UsageError: another process sweeps this workspace.
    """
    return sweep(workspace, plan_sweep(workspace, keep, repository=repository), repository=repository, why=why, say=say)


def sweep_after_run(store: ScheduleStore, name: str, *, say: Callable[[str], None] = print) -> None:
    """Apply the retention of a schedule after a run of it has ended.

    Schedules of a workspace share what they make, so the largest value that any of them has for a setting counts. An
    error, of whatever kind, is written to the firing's log and does not change the outcome of the run.
    """
    try:
        latest = store.history(name)[-1]
        if latest.keep is None:
            return
        keep = latest.keep
        for other in (store.get(each) for each in store.names()):
            keep = keep.at_least(other.keep) if other.keep else keep
        recipe = named(latest.recipe, latest.settings, source=latest.source, map=latest.map)
        repository = storage_settings(recipe, str(store.workspace)).get("storage", {}).get("repository", "")
        result = clean(store.workspace, keep, repository=repository, why=f"schedule {name}", say=say)
        if result.removed:
            say(f"removed {len(result.removed)} items: {result.freed} bytes are free again")
        return
    except (RanklineError, OSError) as error:
        problem = str(error)
    except Exception:  # a bug here must not fail the run, which has ended
        problem = traceback.format_exc()
    with contextlib.suppress(OSError):  # nor must a full disk under the log
        say(f"cleaning after the run stopped: {problem}")


def sweep(
    workspace: Path, plan: Plan, *, repository: str = "", why: str = "retention", say: Callable[[str], None] = print
) -> SweepResult:
    """Remove what a plan removes; whatever has come into use since then stays.

    Raises:
        UsageError: another process sweeps this workspace.
        RepositoryError: the repository cannot be written.
    """
    workspace = workspace.resolve()
    with exclusive(workspace):
        models = ModelRegistry(repository or workspace / "repository")
        sweeper = _Sweep(workspace, models, plan, why)
        sweeper.run(say)
        removed = tuple(sweeper.removed)
        return SweepResult(removed, tuple(sweeper.skipped), Plan(plan.keep, removed).freed())


@contextlib.contextmanager
def exclusive(workspace: Path) -> Iterator[None]:
    """Keep other sweeps and erasures out of a workspace while the block runs.

    Raises:
        UsageError: one is at work there.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(workspace / LOCK, timeout_s=0))
        except TimeoutError as error:
            raise UsageError(
                "another `rankline gc`, or an erasure, is at work in this workspace",
                expected="one at a time",
                found="a lock that is held",
                where=str(workspace / LOCK),
                hint="wait for it to end",
            ) from error
        yield


class _Sweep:
    """One pass over a plan."""

    def __init__(self, workspace: Path, models: ModelRegistry, plan: Plan, why: str) -> None:
        self.workspace, self.models, self.plan, self.why = workspace, models, plan, why
        self.actor = f"rankline gc ({current_user()})"
        self.removed: list[Decision] = []
        self.skipped: list[Decision] = []
        self.retained_models: set[str] = set()  # models that have come into use since the plan

    def run(self, say: Callable[[str], None]) -> None:
        """Remove everything, the models first."""
        self._empty_trash()
        for decision in self.plan.removals:
            if decision.resource.kind in ("bundle", "weights", "catalogue"):
                self._record_removal(decision)
        # each returns why the resource stays; empty where it is gone
        removers: dict[Kind, Callable[[Resource], str]] = {
            "run": self._remove_run,
            "cache": self._remove_unless_in_use,
            "bundle": self._remove_of_repository,
            "weights": self._remove_of_repository,
            "catalogue": self._remove_of_repository,
            "evidence": self._remove_of_repository,
            "online": self._remove_online,
            "claim": self._archive_firing,
            "checkpoint": self._remove_unless_in_use,
            "fetched": self._remove_unless_in_use,
            "leftover": self._remove_path,
        }
        of_repository = [kind for _, kind, _ in REPOSITORY_PARTS]
        for decision in sorted(self.plan.removals, key=lambda each: each.resource.kind not in of_repository):
            resource = decision.resource
            try:
                reason = removers[resource.kind](resource)
            except (OSError, RanklineError) as error:  # the others are removed all the same
                reason = getattr(error, "strerror", "") or first_line(error)
            if reason:
                self.skipped.append(Decision(resource, False, reason))
                say(f"{resource.kind} {resource.name} stays: {reason}")
            else:
                self.removed.append(decision)

    def _empty_trash(self) -> None:
        """Delete what a sweep that was killed has left."""
        places: list[Path] = []
        if is_workspace(self.workspace):
            places += [self.workspace / name for name in ("runs", "online", "fetched", "material")]
            for pattern in ("cache/*", "checkpoints/*", "schedules/*", "checkpoints/*/*"):
                places += self.workspace.glob(pattern)
        if self.models.local:
            root = Path(self.models.root)
            places += [root, *(root / part for part, _, _ in REPOSITORY_PARTS)]
            places += [root / "events", *root.glob("catalogues/*")]
        for place in places:
            if place.is_dir() and not place.is_symlink() and (place / TRASH).is_dir():
                empty_trash(place)

    def _record_removal(self, decision: Decision) -> None:
        """Write the event that comes before a model's files, or a revision's, are removed."""
        model, _, revision = decision.resource.name.partition("/")
        history = self.models.history()
        if not _is_known(history, model) or model in self.retained_models:
            return
        if removal_event(history, model, revision) is not None:
            return
        keep, now = self.plan.keep, time.time()

        def is_retained(history: list[Event]) -> bool:
            retained = model in policy.retained_models(history, keep, now=now)
            return retained and (not revision or revision in policy.retained_revisions(history, model, keep))

        # a revision of a model that is removed as a whole needs no event of its own
        whole = model not in policy.retained_models(history, keep, now=now)
        event = remove(
            self.models,
            model,
            who=self.actor,
            why=f"{self.why}: {decision.why}",
            skipped=is_retained,
            revision="" if whole else revision,
            details={"bytes": decision.resource.bytes},
        )
        if event is None:
            self.retained_models.add(model)

    def _remove_of_repository(self, resource: Resource) -> str:
        history = self.models.history()
        if resource.kind == "evidence":
            retained = policy.retained_models(history, self.plan.keep, now=time.time())
            if any(resource.name in event.digests.values() and event.model_id in retained for event in history):
                return "an event of a kept model refers to it now"
        else:
            model, _, revision = resource.name.partition("/")
            unrecorded = _is_known(history, model) and removal_event(history, model, revision) is None
            if model in self.retained_models or unrecorded:
                return "its model is kept after all"
        delete_from_registry(self.models, resource.path)
        return ""

    def _remove_run(self, resource: Resource) -> str:
        folder = self.workspace / resource.path
        if self._is_in_place(folder) and folder.is_dir() and is_running(folder):
            return "it is running now"
        return self._remove_path(resource)

    def _remove_unless_in_use(self, resource: Resource) -> str:
        for folder in list_folders(self.workspace / "runs", is_ours=is_run):
            if is_running(folder):  # it may have just found this resource
                return f"run {folder.name} has started and may use it"
        return self._remove_path(resource)

    def _remove_online(self, resource: Resource) -> str:
        from components.promote.store_lock import store_lock

        with store_lock(self.workspace / resource.path, timeout_s=1.0):
            return self._remove_unless_in_use(resource)

    def _archive_firing(self, resource: Resource) -> str:
        name, _, stamp = resource.name.partition("/")
        return ScheduleStore(self.workspace).firings(name).archive(stamp)

    def _remove_path(self, resource: Resource) -> str:
        path = self.workspace / resource.path
        if not self._is_in_place(path):
            return "a link is in its place"
        delete_atomically(path)
        return ""

    def _is_in_place(self, path: Path) -> bool:
        """Whether a path still leads where it did, and not out of the workspace."""
        return not path.is_symlink() and path.parent.resolve() == path.parent


def _is_known(history: list[Event], model: str) -> bool:
    return any(event.model_id == model for event in history)
