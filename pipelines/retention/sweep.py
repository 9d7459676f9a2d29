"""Look at all that takes room in a workspace and its repository, and remove what a plan lets go.

The order is such that a kill leaves a sound workspace at every moment. A model leaves by an event first, which nobody
can have overtaken: from then on it cannot be promoted. Then its bundle, whole by one rename (in a bucket its manifest
goes first, without which it is none), and what only it needed. Runs and kept work leave by one rename each, into a
`.trash` beside them that the next sweep empties, too. Nothing is followed out of the workspace.

A folder is a workspace where something in it shows that Rankline made it, and of what lies there only that may go which
has the name and the marks that Rankline gives; the rest is left alone, and said.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.summary.step import SUMMARY
from pipelines.retention import policy
from pipelines.retention.policy import Decision, Inode, Inventory, Keep, Kind, Plan, Resource, StepWork
from pipelines.runs.runner import RECIPE, WATCHER
from pipelines.runs.store import RUNNING, last_activity, read_summary, run_state
from pipelines.schedules.firing import UNREADABLE, Firing
from pipelines.schedules.store import FOLDER as SCHEDULES
from pipelines.schedules.store import ScheduleStore
from rankline.errors import RanklineError, UsageError
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
from rankline.runtime import ledger
from rankline.runtime.step_cache import StepCache

LOCK = ".gc.lock"
REMOTE_SILENCE_S = 3600.0  # a run of another machine that was silent for so long is over
_MADE_BY_MKDTEMP = re.compile(r"tmp[a-z0-9_]{8}")
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}", re.DOTALL)  # a name that is being written
_KEY, _CHECKPOINT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{16}")
_FETCHED, _MODEL = re.compile(r"[0-9a-f]{16}(\..+)?"), re.compile(r"[0-9a-f]{16,64}")
_ONLINE = re.compile(r"[a-z]\w*_v\d+")
_RUN = re.compile(r"\d{8}-\d{6}-.+")
_REPOSITORY: tuple[tuple[str, Kind, int], ...] = (
    ("bundles", "bundle", 1), ("weights", "weights", 1), ("catalogues", "catalogue", 2), ("evidence", "evidence", 1)
)  # fmt: skip


@dataclass(frozen=True)
class SweepResult:
    """What was done of a plan."""

    removed: tuple[Decision, ...]
    skipped: tuple[Decision, ...]  # what was to go and stayed: ``why`` says what has changed meanwhile
    freed: int  # bytes


def clean(
    workspace: Path, keep: Keep, *, repository: str = "", why: str = "retention", say: Callable[[str], None] = print
) -> SweepResult:
    """Plan and sweep in one, as a schedule does after its runs.

    Raises:
        UsageError: another one is at work in this workspace.
    """
    return sweep(workspace, plan_sweep(workspace, keep, repository=repository), repository=repository, why=why, say=say)


def sweep_after_run(store: ScheduleStore, name: str, *, say: Callable[[str], None] = print) -> None:
    """What a schedule that says what to keep removes when a run of it has ended.

    Schedules of a workspace share what they make, so of each setting the largest that any of them has is heeded. What
    goes wrong, whatever it is, is said in the claim's log and costs the run nothing.
    """
    from pipelines.recipes import named, storage_settings

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
            say(f"removed {len(result.removed)} things: {result.freed} bytes are free again")
    except (RanklineError, OSError) as error:
        problem = str(error)
    except Exception:  # a fault of cleaning is none of the run, which has ended
        problem = traceback.format_exc()
    else:
        return
    with contextlib.suppress(OSError):  # nor is a full disk that the log lies on
        say(f"cleaning after the run stopped: {problem}")


# -- looking ---------------------------------------------------------------------------------------------------


def plan_sweep(workspace: Path, keep: Keep, *, repository: str = "", now: float | None = None) -> Plan:
    """What would become of everything; reads, and writes nothing.

    Raises:
        RanklineError: the repository cannot be read, or its history is damaged.
    """
    workspace = workspace.resolve()
    timestamp = time.time() if now is None else now
    return policy.plan(take_inventory(workspace, repository=repository), keep, now=timestamp)


def take_inventory(workspace: Path, *, repository: str = "") -> Inventory:
    """Everything that takes room, and what decides its fate.

    Raises:
        UsageError: this is no workspace, or what serves cannot be known.
        RanklineError: a repository cannot be read.
    """
    ignored: list[str] = []
    is_ours = is_workspace(workspace)
    if not is_ours and not repository:
        raise UsageError(
            "this folder is no workspace of Rankline, and nothing in it is removed",
            expected="a run with its ledger, a schedule, or repository/ with bundles or events",
            found="nothing that Rankline has made",
            where=str(workspace),
            hint="-w FOLDER names the workspace",
        )
    models = (
        _require_repository(repository) if repository else ModelRegistry(workspace / "repository", repair_cache=False)
    )
    resources = [*_repository(models, ignored)]
    history = tuple(models.history())
    if not is_ours:
        ignored.append(f"{workspace}: nothing in it shows that Rankline made it")
        services = {
            resource.name: _feature_service(models, resource.name)
            for resource in resources
            if resource.kind == "bundle"
        }
        return Inventory(tuple(resources), history, services=services, ignored=tuple(ignored))
    other_histories = tuple(tuple(other.history()) for other in _other_repositories(workspace, models))
    _refuse_unknown_champions(workspace, (history, *other_histories), models)
    services = {
        resource.name: _feature_service(models, resource.name) for resource in resources if resource.kind == "bundle"
    }

    work: dict[str, dict[str, StepWork]] = {}
    running, groups, unreadable = set(), {}, set()
    for folder in _folders(workspace / "runs", ignored, _is_run):
        resources.append(_resource("run", folder.name, folder, workspace, at=last_activity(folder)))
        work[folder.name] = {
            step: StepWork(entry.key, dict(entry.outputs), entry.status in ("done", "reused"))
            for step, entry in ledger.read_entries(folder).items()
        }
        groups[folder.name] = _run_group(folder)
        if is_running(folder):
            running.add(folder.name)
        if (folder / SUMMARY).is_file() and read_summary(folder) is None:
            unreadable.add(folder.name)
            ignored.append(f"{folder / SUMMARY} cannot be read")

    cache_outputs, latest = {}, set()
    for step in _folders(workspace / "cache", ignored):
        store = StepCache(step)
        last = store.latest()
        for folder in _folders(step, ignored, _is_cache_entry):
            entry = store.at(folder.name)
            resource = _resource("cache", f"{step.name}/{folder.name}", folder, workspace)
            resources.append(resource)
            if entry is not None:
                cache_outputs[resource.path] = {output: entry.declared_digest(output) for output in entry.files}
            if last is not None and last.folder == folder:
                latest.add(resource.path)

    for step in _folders(workspace / "checkpoints", ignored):
        for folder in _folders(step, ignored, lambda path: bool(_CHECKPOINT.fullmatch(path.name))):
            newest = max((path.lstat().st_mtime for path in folder.rglob("*")), default=folder.stat().st_mtime)
            resources.append(_resource("checkpoint", f"{step.name}/{folder.name}", folder, workspace, at=newest))
    for folder in _folders(workspace / "online", ignored, _is_online):
        resources.append(_resource("online", folder.name, folder, workspace))
    for folder in _folders(workspace / "fetched", ignored, lambda path: bool(_FETCHED.fullmatch(path.name))):
        resources.append(_resource("fetched", folder.name, folder, workspace))
    firings, awaited_runs = _archivable_firings(workspace, ignored)
    resources += firings
    resources += [
        _resource("leftover", str(path.relative_to(workspace)), path, workspace) for path in _leftovers(workspace)
    ]
    return Inventory(
        resources=tuple(resources),
        history=history,
        running=frozenset(running),
        groups=groups,
        awaited_runs=frozenset(awaited_runs),
        work=work,
        cache_outputs=cache_outputs,
        latest=frozenset(latest),
        services=services,
        ignored=tuple(ignored),
        unreadable=frozenset(unreadable),
        other_histories=other_histories,
    )


def repository_of(workspace: Path) -> str:
    """Where the runs of a workspace keep their models, as the last of them was told; empty for the workspace's own."""
    for folder in sorted(_folders(workspace / "runs", []), reverse=True):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            url: str = json.loads((folder / RECIPE).read_text())["storage"]["repository"]
            return url.replace("{workspace}", str(workspace))
    return ""


def is_workspace(folder: Path) -> bool:
    """Whether something in a folder shows that Rankline made it."""
    if any((folder / "repository" / name).is_dir() for name in ("events", *(part for part, _, _ in _REPOSITORY))):
        return True
    if any((folder / SCHEDULES).glob("*/revisions/[0-9]*.json")):
        return True
    return any(_is_run(path) for path in _folders(folder / "runs", []))


def _require_repository(url: str) -> ModelRegistry:
    """The repository of this place, which somebody named.

    Raises:
        UsageError: there is none.
    """
    models = ModelRegistry(url, repair_cache=False)
    parts = ("events", *(part for part, _, _ in _REPOSITORY))
    if not any(models.fs.exists(f"{models.root.rstrip('/')}/{part}") for part in parts):
        raise UsageError(
            "there is no model repository here, so what serves is not known, and nothing is removed",
            expected="one with events/ and bundles/",
            found="neither",
            where=models.root,
            hint="--repository names the place that the runs' models are registered in",
        )
    return models


def _other_repositories(workspace: Path, models: ModelRegistry) -> Iterator[ModelRegistry]:
    """The repositories beside the one that is swept which the workspace has, or its runs and schedules name."""
    urls = [str(workspace / "repository")]
    for folder in _folders(workspace / "runs", [], _is_run):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            repository_url = json.loads((folder / RECIPE).read_text())["storage"]["repository"]
            urls.append(repository_url.replace("{workspace}", str(workspace)))
    store = ScheduleStore(workspace)
    for name in store.names():
        for setting in store.get(name).settings:
            key, _, value = setting.partition("=")
            if key.strip() == "storage.repository":
                urls.append(value.strip().replace("{workspace}", str(workspace)))
    known_roots = {models.root}
    for url in filter(None, urls):
        other = ModelRegistry(url, repair_cache=False)
        if other.root not in known_roots:
            known_roots.add(other.root)
            yield other


def _refuse_unknown_champions(workspace: Path, histories: tuple[tuple[Event, ...], ...], models: ModelRegistry) -> None:
    """Stop where a run's model came to serve and no history that was looked at knows it.

    Raises:
        UsageError: that is so.
    """
    known = {event.model_id for history in histories for event in history}
    for folder in _folders(workspace / "runs", [], _is_run):
        summary = read_summary(folder) or {}
        model = summary.get("model_id")
        if summary.get("outcome") == "promoted" and model and model not in known:
            raise UsageError(
                f"model {model} came to serve by run {folder.name}, and no history knows it",
                expected="the repository that it was promoted in",
                found=f"{len(histories)} looked at, without it",
                where=models.root,
                hint="--repository names that place; if it is gone for good, remove the run's folder by hand",
            )


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run's: it says so, or has a run's name and nothing in it yet."""
    if (folder / WATCHER).is_file() or any(_is_entry(folder / f"{step}.json") for step in ledger.ALL_STEPS):
        return True
    if not _RUN.fullmatch(folder.name):
        return False
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return not visible or any((folder / name).is_file() for name in (RECIPE, SUMMARY))


def _is_entry(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(ledger.Entry.model_validate_json(path.read_bytes()))
    return False


def _is_cache_entry(folder: Path) -> bool:
    return bool(_KEY.fullmatch(folder.name)) and (folder / "entry.json").is_file()


def _is_online(folder: Path) -> bool:
    return bool(_ONLINE.fullmatch(folder.name)) or (folder / "watermark.json").is_file()


def is_running(folder: Path) -> bool:
    """Whether a run is under way, here or, as far as its signs of life tell, on another machine or in a cluster."""
    if (folder / SUMMARY).is_file():
        return False
    if run_state(folder) == RUNNING:
        return True
    host = ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        host = json.loads((folder / WATCHER).read_text())["host"]
    if host == socket.gethostname() or time.time() - last_activity(folder) > REMOTE_SILENCE_S:
        return False
    # in a pod nobody watches, and its processes cannot be seen from here
    return bool(host) or any(entry.status == "running" for entry in ledger.read_entries(folder).values())


def _run_group(folder: Path) -> str:
    """The recipe (or the recipe and its one step) of a run, and its flow: of each some are kept."""
    flow = "train"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        flow = json.loads((folder / WATCHER).read_text())["flow"]
    return f"{folder.name.split('-', 2)[-1]} {flow}"


def _folders(parent: Path, ignored: list[str], is_ours: Callable[[Path], bool] = lambda _: True) -> list[Path]:
    """The folders in one of the workspace; whatever is a link, or does not look as Rankline makes it, stays alone."""
    if parent.is_symlink():
        ignored.append(f"{parent} is a link")
        return []
    if not parent.is_dir():
        return []
    folders = []
    for path in sorted(parent.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_symlink():
            ignored.append(f"{path} is a link")
        elif path.is_dir() and is_ours(path):
            folders.append(path)
        elif path.is_dir():
            ignored.append(f"{path} does not look like what Rankline keeps there")
    return folders


def _resource(kind: Kind, name: str, path: Path, root: Path, *, at: float | None = None) -> Resource:
    relative_path = path.relative_to(root).as_posix()
    return Resource(kind, name, relative_path, path.lstat().st_mtime if at is None else at, tuple(_inodes(path)))


def _inodes(path: Path) -> Iterator[Inode]:
    paths: Iterable[Path] = [path]
    if path.is_dir() and not path.is_symlink():
        paths = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    for each in paths:
        with contextlib.suppress(OSError):
            status = each.lstat()
            yield Inode((status.st_dev, status.st_ino), status.st_nlink, status.st_size)


def _repository(models: ModelRegistry, ignored: list[str]) -> Iterator[Resource]:
    """Bundles, weights, catalogue revisions and evidence, of a folder or a bucket."""
    for part, kind, depth in _REPOSITORY:
        if not models.local:
            yield from _in_bucket(models, part, kind, depth)
            continue
        root = Path(models.root)
        folders = _folders(root / part, ignored, lambda path: bool(_MODEL.fullmatch(path.name)))
        if depth == 2:
            folders = [revision for model in folders for revision in _folders(model, ignored)]
        for folder in folders:
            name = folder.relative_to(root / part).as_posix()
            yield _resource(kind, name, folder, root)


def _in_bucket(models: ModelRegistry, part: str, kind: Kind, depth: int) -> Iterator[Resource]:
    prefix = f"{models.root.rstrip('/')}/{part}"
    models.fs.invalidate_cache()
    sizes: dict[str, int] = {}
    times: dict[str, float] = {}
    for path, file_info in models.fs.find(prefix, detail=True).items():
        names = path.removeprefix(prefix).strip("/").split("/")
        if len(names) <= depth or not _MODEL.fullmatch(names[0]):
            continue
        name = "/".join(names[:depth])
        sizes[name] = sizes.get(name, 0) + int(file_info.get("size") or 0)
        when = file_info.get("LastModified") or file_info.get("created") or file_info.get("mtime")
        modified_at = when.timestamp() if hasattr(when, "timestamp") else float(when or time.time())
        times[name] = max(times.get(name, 0.0), modified_at)
    for name, size in sorted(sizes.items()):
        yield Resource(kind, name, f"{part}/{name}", times[name], stored=size)


def _feature_service(models: ModelRegistry, model_id: str) -> str:
    with contextlib.suppress(RanklineError, ValueError, OSError):
        return models.manifest(model_id).features.service
    return ""


def _archivable_firings(workspace: Path, ignored: list[str]) -> tuple[list[Resource], set[str]]:
    """Claims that have come to their end for good, and the runs of those that have not."""
    resources, awaited_runs = [], set()
    store = ScheduleStore(workspace)
    for folder in _folders(workspace / SCHEDULES, ignored):
        firings = store.firings(folder.name)
        if problems := firings.unreadable():
            ignored += problems
        until = firings.handled()["until"]
        for firing in firings.unarchived():
            if firing.status != "ended":
                awaited_runs.add(firing.run)
            elif firing.outcome != UNREADABLE and not problems and _is_settled(firing, until):
                path = firings.path(firing.instant)
                files = [file for each in path.parent.glob(f"{path.stem}.*") for file in _inodes(each)]
                relative_path = path.relative_to(workspace).as_posix()
                resources.append(
                    Resource("claim", f"{folder.name}/{path.stem}", relative_path, _ended_at(firing), tuple(files))
                )
    return resources, awaited_runs - {""}


def _is_settled(firing: Firing, until: str) -> bool:
    """Whether nobody will write into it again: a failed one may be run again, an untold one may still be told."""
    notified = firing.exit_code == 0 or bool(firing.notified) or firing.kind == "backfill"
    return not firing.failed and notified and (firing.kind == "backfill" or firing.scheduled_at <= until)


def _ended_at(firing: Firing) -> float:
    return policy._unix_time(firing.ended_at or firing.claimed_at)


def _leftovers(workspace: Path) -> Iterator[Path]:
    """What processes that were killed half-way may have left: hidden names that only their writers know."""
    patterns = (
        "cache/*/.*.*", "repository/bundles/.*.*", "repository/weights/.*.*", "repository/catalogues/*/.*.*",
        "repository/evidence/.*.*", "repository/events/.*.*", "repository/.champion.json.*", "material/.partial-*",
        "material/encoders/.partial-*", "material/tmp*", "checkpoints/*/*/partial.*", "checkpoints/*/*/*/partial.*",
        "schedules/*/claims/.*.*", "schedules/*/.*.*", "runs/*/.reserve", "runs/*/.*.json.*",
    )  # fmt: skip
    for pattern in patterns:
        for path in sorted(workspace.glob(pattern)):
            if path.is_symlink() or not path.resolve().is_relative_to(workspace):
                continue
            if pattern.endswith("/.*.*") and not _PARTIAL.fullmatch(path.name):
                continue
            if pattern.startswith("checkpoints/") and not _CHECKPOINT.fullmatch(path.relative_to(workspace).parts[2]):
                continue
            if pattern.startswith("runs/") and not _is_run(path.parent):
                continue
            if pattern == "material/tmp*" and not _MADE_BY_MKDTEMP.fullmatch(path.name):
                continue
            if pattern.startswith("runs/") and is_running(path.parent):
                continue
            yield path


# -- sweeping --------------------------------------------------------------------------------------------------


def sweep(
    workspace: Path, plan: Plan, *, repository: str = "", why: str = "retention", say: Callable[[str], None] = print
) -> SweepResult:
    """Remove what a plan lets go; whatever has come into use since then stays.

    Raises:
        UsageError: another one is at work in this workspace.
        RepositoryError: the repository cannot be written.
    """
    workspace = workspace.resolve()
    with _exclusive_lock(workspace):
        models = ModelRegistry(repository or workspace / "repository")
        sweeper = _Sweep(workspace, models, plan, why)
        sweeper.run(say)
        skipped_ids = {id(decision) for decision in sweeper.skipped_decisions}
        removed = tuple(decision for decision in plan.removals if id(decision) not in skipped_ids)
        freed = Plan(plan.keep, removed).freed()
        return SweepResult(removed, tuple(sweeper.skipped), freed)


@contextlib.contextmanager
def _exclusive_lock(workspace: Path) -> Iterator[None]:
    with (workspace / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                "another `rankline gc` is at work in this workspace",
                expected="one at a time",
                found="a lock that is held",
                where=str(workspace / LOCK),
                hint="wait for it to end",
            ) from None
        yield


class _Sweep:
    """One going through a plan."""

    def __init__(self, workspace: Path, models: ModelRegistry, plan: Plan, why: str) -> None:
        from rankline.runtime.current_user import current_user

        self.workspace, self.models, self.plan, self.why = workspace, models, plan, why
        self.who = f"rankline gc ({current_user()})"
        self.skipped: list[Decision] = []
        self.skipped_decisions: list[Decision] = []
        self.retained_models: set[str] = set()  # models that are kept after all

    def run(self, say: Callable[[str], None]) -> None:
        """Do all of it."""
        self._empty_trash()
        for decision in self.plan.removals:
            if decision.resource.kind in ("bundle", "weights", "catalogue"):
                self._record_removal(decision)
        removers: dict[Kind, Callable[[Resource], str]] = {
            "run": self._run,
            "cache": self._unless_in_use,
            "bundle": self._of_repository,
            "weights": self._of_repository,
            "catalogue": self._of_repository,
            "evidence": self._of_repository,
            "online": self._online,
            "claim": self._claim,
            "checkpoint": self._unless_in_use,
            "fetched": self._unless_in_use,
            "leftover": self._path,
        }
        order = ("bundle", "weights", "catalogue", "evidence")
        removals = sorted(
            self.plan.removals, key=lambda decision: decision.resource.kind not in order
        )  # what was said first
        for decision in removals:
            try:
                reason = removers[decision.resource.kind](decision.resource)
            except (OSError, RanklineError) as error:  # one that cannot be removed stops no other
                reason = str(getattr(error, "strerror", "") or error).splitlines()[0]
            if reason:
                self.skipped.append(Decision(decision.resource, False, reason))
                self.skipped_decisions.append(decision)
                say(f"{decision.resource.kind} {decision.resource.name} stays: {reason}")

    def _empty_trash(self) -> None:
        """What a sweep that was killed left."""
        places: list[Path] = []
        if is_workspace(self.workspace):
            places += [self.workspace / name for name in ("runs", "online", "fetched", "material")]
            for pattern in ("cache/*", "checkpoints/*", "schedules/*", "checkpoints/*/*"):
                places += self.workspace.glob(pattern)
        if self.models.local:
            root = Path(self.models.root)
            places += [root, *(root / part for part, _, _ in _REPOSITORY), root / "events", *root.glob("catalogues/*")]
        for place in places:
            if place.is_dir() and not place.is_symlink() and (place / TRASH).is_dir():
                empty_trash(place)

    def _record_removal(self, decision: Decision) -> None:
        """The event that comes before a model's files, or a revision's."""
        model, _, revision = decision.resource.name.partition("/")
        history = self.models.history()
        known = any(event.model_id == model for event in history)
        if not known or model in self.retained_models or removal_event(history, model, revision) is not None:
            return
        keep, now = self.plan.keep, time.time()

        def skipped(history: list[Any]) -> bool:
            if not revision or model not in policy.retained_models(history, keep, now=now):
                return model in policy.retained_models(history, keep, now=now)
            return revision in policy.retained_revisions(history, model, keep)

        # a revision of a model that goes as a whole needs no event of its own
        whole = model not in policy.retained_models(history, keep, now=now)
        event_written = remove(
            self.models, model, who=self.who, why=f"{self.why}: {decision.why}", skipped=skipped,
            revision="" if whole else revision, details={"bytes": decision.resource.bytes},
        )  # fmt: skip
        if event_written is None:
            self.retained_models.add(model)

    # -- each kind; the reason why it stays, empty where it is gone ----------------------------------------

    def _of_repository(self, resource: Resource) -> str:
        history = self.models.history()
        if resource.kind == "evidence":
            kept = policy.retained_models(history, self.plan.keep, now=time.time())
            if any(resource.name in event.digests.values() and event.model_id in kept for event in history):
                return "an event of a kept model names it by now"
        else:
            model, _, revision = resource.name.partition("/")
            known = any(event.model_id == model for event in history)
            if model in self.retained_models or (known and removal_event(history, model, revision) is None):
                return "its model is kept after all"
        delete_from_registry(self.models, resource.path)
        return ""

    def _run(self, resource: Resource) -> str:
        folder = self.workspace / resource.path
        if not self._is_unmoved(folder):
            return "a link is in its place"
        if folder.is_dir() and is_running(folder):
            return "it goes on by now"
        delete_atomically(folder)
        return ""

    def _unless_in_use(self, resource: Resource) -> str:
        running = [folder.name for folder in _folders(self.workspace / "runs", [], _is_run) if is_running(folder)]
        if running:  # it may have just found this very work
            return f"run {running[0]} has begun and may take it up"
        return self._path(resource)

    def _online(self, resource: Resource) -> str:
        from components.promote import online

        with online.store_lock(self.workspace / resource.path, timeout_s=1.0):
            return self._unless_in_use(resource)

    def _claim(self, resource: Resource) -> str:
        name, _, stamp = resource.name.partition("/")
        return ScheduleStore(self.workspace).firings(name).archive(stamp)

    def _path(self, resource: Resource) -> str:
        path = self.workspace / resource.path
        if not self._is_unmoved(path):
            return "a link is in its place"
        delete_atomically(path)
        return ""

    def _is_unmoved(self, path: Path) -> bool:
        """Whether a path leads where it did, and not out of the workspace."""
        return not path.is_symlink() and path.parent.resolve() == path.parent
