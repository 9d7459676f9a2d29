"""Takes the inventory of a workspace and its model registry; nothing is written.

A folder is a workspace where something in it shows that Rankline made it. Within a workspace, only what has the names
and the files that Rankline writes is listed; everything else is ignored, and the inventory says so. Links are not
followed.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.retention.resources import Inode, Inventory, Kind, Resource, StepWork
from pipelines.runs import folder as runs
from pipelines.runs.folder import RECIPE, WATCHER, last_activity, read_repository, read_summary
from pipelines.schedules.firing import UNREADABLE, Firing
from pipelines.schedules.store import FOLDER as SCHEDULES
from pipelines.schedules.store import ScheduleStore
from rankline.errors import RanklineError, UsageError
from rankline.io.files import read_json_object
from rankline.io.storage import StorageConfig
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.registry_state import Event
from rankline.runtime import ledger
from rankline.runtime.outcomes import Outcome
from rankline.runtime.run_summary import RUN, SUMMARY
from rankline.runtime.step_cache import StepCache
from rankline.runtime.steps import ALL_STEPS, EARLIER_NAMES
from rankline.utc import parse_utc

REMOTE_SILENCE_S = 3600.0  # a run of another machine that has written nothing for this long is over
# folder of the repository, the kind of what is in it, and how many levels down that lies
REPOSITORY_PARTS: tuple[tuple[str, Kind, int], ...] = (
    ("bundles", "bundle", 1),
    ("weights", "weights", 1),
    ("catalogues", "catalogue", 2),
    ("evidence", "evidence", 1),
)
# what processes that were killed may leave: hidden names, and partial downloads
LEFTOVERS = (
    "cache/*/.*.*", "repository/bundles/.*.*", "repository/weights/.*.*", "repository/catalogues/*/.*.*",
    "repository/evidence/.*.*", "repository/events/.*.*", "repository/.champion.json.*", "material/.partial-*",
    "material/encoders/.partial-*", "material/tmp*", "checkpoints/*/*/.*.*", "checkpoints/*/*/*/.*.*",
    "checkpoints/*/*/partial.*", "checkpoints/*/*/*/partial.*",  # of earlier versions
    "online/*/.*.*",
    "schedules/*/claims/.*.*", "schedules/*/.*.*", "runs/*/.reserve", "runs/*/.*.json.*",
)  # fmt: skip
_MKDTEMP_NAME = re.compile(r"tmp[a-z0-9_]{8}")
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}(-journal)?", re.DOTALL)  # SQLite's journal beside a database
_KEY, _CHECKPOINT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{16}")
_DOWNLOAD, _MODEL = re.compile(r"[0-9a-f]{16}(\..+)?"), re.compile(r"[0-9a-f]{16,64}")
_ONLINE = re.compile(r"[a-z]\w*_v\d+")
_RUN = re.compile(r"\d{8}-\d{6}-.+")


def take_inventory(workspace: Path, *, repository: str = "") -> Inventory:
    """Everything that takes up space, and the facts that decide whether it is kept.

    Raises:
        UsageError: this is not a workspace, or the model that serves cannot be determined.
        RanklineError: a repository cannot be read.
    """
    ours = is_workspace(workspace)
    if not ours and not repository:
        raise UsageError(
            "this folder is no workspace of Rankline, and nothing in it is removed",
            expected="a run with its ledger, a schedule, or repository/ with bundles or events",
            found="nothing that Rankline has written",
            where=str(workspace),
            hint="-w FOLDER names the workspace",
        )
    if repository:
        models = _require_repository(repository)
    else:
        models = ModelRegistry(workspace / "repository", repair_cache=False)
    facts = Inventory(history=tuple(models.history()))
    resources = list(_list_repository(models, facts.ignored))
    facts.services |= {each.name: _feature_service(models, each.name) for each in resources if each.kind == "bundle"}
    if ours:
        facts.other_histories += (tuple(other.history()) for other in _other_repositories(workspace, models))
        _refuse_unknown_champions(workspace, (facts.history, *facts.other_histories), models)
        resources += _Workspace(workspace, facts).list_resources()
    else:
        facts.ignored.append(f"{workspace}: nothing in it shows that Rankline made it")
    facts.resources = tuple(resources)
    return facts


def is_workspace(folder: Path) -> bool:
    """Whether something in a folder shows that Rankline made it."""
    if any((folder / "repository" / part).is_dir() for part in _repository_folders()):
        return True
    if any((folder / SCHEDULES).glob("*/revisions/[0-9]*.json")):
        return True
    return any(is_run(path) for path in list_folders(folder / "runs"))


def _repository_folders() -> list[str]:
    return ["events", *(part for part, _, _ in REPOSITORY_PARTS)]


# -- a workspace -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Workspace:
    """What is in a workspace, beside its repository; listing it fills in the facts."""

    workspace: Path
    facts: Inventory

    def list_resources(self) -> Iterator[Resource]:
        """Everything, kind by kind."""
        yield from self._runs()
        yield from self._cache()
        yield from self._checkpoints()
        for folder in self._folders("online", _is_online):
            yield self._resource("online", folder)
        for folder in self._folders("fetched", lambda path: bool(_DOWNLOAD.fullmatch(path.name))):
            yield self._resource("fetched", folder)
        yield from self._firings()
        for path in _leftovers(self.workspace):
            yield self._resource("leftover", path, name=str(path.relative_to(self.workspace)))

    def _folders(self, name: str, is_ours: Callable[[Path], bool] = lambda _: True) -> list[Path]:
        return list_folders(self.workspace / name, self.facts.ignored, is_ours)

    def _resource(self, kind: Kind, path: Path, *, name: str = "", at: float | None = None) -> Resource:
        return _resource(kind, name or path.name, path, self.workspace, at=at)

    def _runs(self) -> Iterator[Resource]:
        for folder in self._folders("runs", is_run):
            self.facts.work[folder.name] = {
                step: StepWork(entry.key, dict(entry.outputs), entry.status in ("done", "reused"))
                for step, entry in ledger.read_entries(folder).items()
            }
            named = _RUN.fullmatch(folder.name)  # the id of a run on a cluster says nothing of its recipe
            recipe = folder.name.split("-", 2)[-1] if named else runs.read_recipe_name(folder) or folder.name
            self.facts.groups[folder.name] = f"{recipe} {runs.read_flow(folder)}"
            if is_running(folder):
                self.facts.running.add(folder.name)
            if (folder / SUMMARY).is_file() and read_summary(folder) is None:
                self.facts.unreadable.add(folder.name)
                self.facts.ignored.append(f"{folder / SUMMARY} cannot be read")
            yield self._resource("run", folder, at=last_activity(folder))

    def _cache(self) -> Iterator[Resource]:
        for step in self._folders("cache"):
            cache = StepCache(step)
            latest = cache.latest()
            for folder in self._folders(f"cache/{step.name}", _is_cache_entry):
                resource = self._resource("cache", folder, name=f"{step.name}/{folder.name}")
                if (entry := cache.get(folder.name)) is not None:
                    self.facts.cache_outputs[resource.path] = {
                        name: entry.declared_digest(name) for name in entry.files
                    }
                if latest is not None and latest.folder == folder:
                    self.facts.latest.add(resource.path)
                yield resource

    def _checkpoints(self) -> Iterator[Resource]:
        for step in self._folders("checkpoints"):
            is_ours = lambda path: bool(_CHECKPOINT.fullmatch(path.name))  # noqa: E731
            for folder in self._folders(f"checkpoints/{step.name}", is_ours):
                newest = max((path.lstat().st_mtime for path in folder.rglob("*")), default=folder.stat().st_mtime)
                yield self._resource("checkpoint", folder, name=f"{step.name}/{folder.name}", at=newest)

    def _firings(self) -> Iterator[Resource]:
        """Firings that have ended for good; the runs of the others are awaited."""
        schedules = ScheduleStore(self.workspace)
        for folder in self._folders(SCHEDULES):
            firings = schedules.firings(folder.name)
            problems = firings.unreadable()
            self.facts.ignored += problems
            until = firings.handled()["until"]
            for firing in firings.unarchived():
                if firing.status != "ended":
                    self.facts.awaited_runs |= {firing.run} - {""}
                elif firing.outcome != UNREADABLE and not problems and _is_settled(firing, until):
                    path = firings.path(firing.instant)
                    files = [file for each in path.parent.glob(f"{path.stem}.*") for file in _inodes(each)]
                    ended_at = parse_utc(firing.ended_at or firing.claimed_at).timestamp()
                    location = path.relative_to(self.workspace).as_posix()
                    yield Resource("claim", f"{folder.name}/{path.stem}", location, ended_at, tuple(files))


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: it has a run's files, or a run's name and nothing in it yet."""
    steps = (*ALL_STEPS, *EARLIER_NAMES.values())
    if (folder / WATCHER).is_file() or any(_is_entry(folder / f"{step}.json") for step in steps):
        return True
    if not _RUN.fullmatch(folder.name):
        return False
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return not visible or any((folder / name).is_file() for name in (RECIPE, RUN, SUMMARY))


def is_running(folder: Path) -> bool:
    """Whether a run is under way, here or, as far as its files show, on another machine or in a cluster."""
    if (folder / SUMMARY).is_file():
        return False
    if runs.run_state(folder) is Outcome.RUNNING:
        return True
    host = read_json_object(folder / WATCHER).get("host", "")
    if host == socket.gethostname() or time.time() - last_activity(folder) > REMOTE_SILENCE_S:
        return False
    # in a cluster no process watches the run, and those of its pods cannot be seen from here
    return bool(host) or any(entry.status == "running" for entry in ledger.read_entries(folder).values())


def _is_entry(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(ledger.Entry.model_validate_json(path.read_bytes()))
    return False


def _is_cache_entry(folder: Path) -> bool:
    return bool(_KEY.fullmatch(folder.name)) and (folder / "entry.json").is_file()


def _is_online(folder: Path) -> bool:
    return bool(_ONLINE.fullmatch(folder.name)) or (folder / "watermark.json").is_file()


def _is_settled(firing: Firing, until: str) -> bool:
    """Whether nothing writes into a firing again: a failed one may be retried, its notification may be outstanding."""
    notified = firing.exit_code == 0 or bool(firing.notified) or firing.kind == "backfill"
    return not firing.failed and notified and (firing.kind == "backfill" or firing.scheduled_at <= until)


def _leftovers(workspace: Path) -> Iterator[Path]:
    """Partial files of processes that were killed."""
    for pattern in LEFTOVERS:
        for path in sorted(workspace.glob(pattern)):
            if not path.is_symlink() and path.resolve().is_relative_to(workspace) and _is_leftover(path, pattern):
                yield path


def _is_leftover(path: Path, pattern: str) -> bool:
    if pattern.startswith("runs/"):
        return is_run(path.parent) and not is_running(path.parent)
    if pattern.startswith("checkpoints/") and not _CHECKPOINT.fullmatch(path.parts[2 - len(Path(pattern).parts)]):
        return False
    if pattern == "material/tmp*":
        return bool(_MKDTEMP_NAME.fullmatch(path.name))
    return not pattern.endswith("/.*.*") or bool(_PARTIAL.fullmatch(path.name))


# -- model registries ----------------------------------------------------------------------------------------


def repository_of(workspace: Path) -> str:
    """The model registry of the latest run that names one; empty for the workspace's own."""
    for folder in sorted(list_folders(workspace / "runs"), reverse=True):
        if isinstance(read_json_object(folder / RECIPE).get("storage"), dict):
            return read_repository(folder, workspace)
    return ""


def _require_repository(url: str) -> ModelRegistry:
    """The repository at a place that the user named."""
    models = ModelRegistry(url, repair_cache=False)
    if not any(models.fs.exists(f"{models.root.rstrip('/')}/{part}") for part in _repository_folders()):
        raise UsageError(
            "there is no model registry here, so what serves is not known, and nothing is removed",
            expected="one with events/ and bundles/",
            found="neither",
            where=models.root,
            hint="--repository names the place that the runs' models are registered in",
        )
    return models


def _other_repositories(workspace: Path, models: ModelRegistry) -> Iterator[ModelRegistry]:
    """The repositories beside ``models`` that the workspace has, or that its runs and schedules name."""
    urls = [str(workspace / "repository")]
    urls += [read_repository(folder, workspace) for folder in list_folders(workspace / "runs", is_ours=is_run)]
    schedules = ScheduleStore(workspace)
    for name in schedules.names():
        for setting in schedules.get(name).settings:
            key, _, value = setting.partition("=")
            if key.strip() in ("storage.repository", "storage.workspace"):
                storage = StorageConfig(**{key.strip().removeprefix("storage."): value.strip()})
                urls.append(storage.resolved.repository.replace("{workspace}", str(workspace)))
    known_roots = {models.root}
    for url in filter(None, urls):
        other = ModelRegistry(url, repair_cache=False)
        if other.root not in known_roots:
            known_roots.add(other.root)
            yield other


def _refuse_unknown_champions(workspace: Path, histories: tuple[tuple[Event, ...], ...], models: ModelRegistry) -> None:
    """Stop where a run promoted a model that no history knows."""
    known = {event.model_id for history in histories for event in history}
    for folder in list_folders(workspace / "runs", is_ours=is_run):
        summary = read_summary(folder) or {}
        model = summary.get("model_id")
        if summary.get("outcome") == Outcome.PROMOTED and model and model not in known:
            raise UsageError(
                f"model {model} came to serve by run {folder.name}, and no history knows it",
                expected="the repository that it was promoted in",
                found=f"{len(histories)} examined, without it",
                where=models.root,
                hint="--repository names that place; if it is gone for good, remove the run's folder by hand",
            )


def _list_repository(models: ModelRegistry, ignored: list[str]) -> Iterator[Resource]:
    """Bundles, weights, catalogue revisions and evidence, in a folder or a bucket."""
    for part, kind, depth in REPOSITORY_PARTS:
        if not models.local:
            yield from _list_bucket(models, part, kind, depth)
            continue
        root = Path(models.root)
        folders = list_folders(root / part, ignored, lambda path: bool(_MODEL.fullmatch(path.name)))
        if depth == 2:
            folders = [revision for model in folders for revision in list_folders(model, ignored)]
        for folder in folders:
            yield _resource(kind, folder.relative_to(root / part).as_posix(), folder, root)


def _list_bucket(models: ModelRegistry, part: str, kind: Kind, depth: int) -> Iterator[Resource]:
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


# -- files -----------------------------------------------------------------------------------------------------


def list_folders(
    parent: Path, ignored: list[str] | None = None, is_ours: Callable[[Path], bool] = lambda _: True
) -> list[Path]:
    """The folders in ``parent`` that are ours; links and other folders are noted in ``ignored``."""
    notes = [] if ignored is None else ignored
    if parent.is_symlink():
        notes.append(f"{parent} is a link")
        return []
    if not parent.is_dir():
        return []
    folders = []
    for path in sorted(parent.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_symlink():
            notes.append(f"{path} is a link")
        elif path.is_dir() and is_ours(path):
            folders.append(path)
        elif path.is_dir():
            notes.append(f"{path} does not look like what Rankline keeps there")
    return folders


def _resource(kind: Kind, name: str, path: Path, root: Path, *, at: float | None = None) -> Resource:
    location = path.relative_to(root).as_posix()
    return Resource(kind, name, location, path.lstat().st_mtime if at is None else at, tuple(_inodes(path)))


def _inodes(path: Path) -> Iterator[Inode]:
    paths: Iterable[Path] = [path]
    if path.is_dir() and not path.is_symlink():
        paths = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    for each in paths:
        with contextlib.suppress(OSError):
            status = each.lstat()
            yield Inode((status.st_dev, status.st_ino), status.st_nlink, status.st_size)
