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
from pipelines.retention.policy import Fate, Inode, Keep, Kind, Plan, Seen, Thing, Work
from pipelines.runs.runner import RECIPE, WATCHER
from pipelines.runs.store import RUNNING, last_sign, state, summary_of
from pipelines.schedules.firings import UNREADABLE, Claim
from pipelines.schedules.store import FOLDER as SCHEDULES
from pipelines.schedules.store import Schedules
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
ELSEWHERE_S = 3600.0  # a run of another machine that was silent for so long is over
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
class Swept:
    """What was done of a plan."""

    removed: tuple[Fate, ...]
    skipped: tuple[Fate, ...]  # what was to go and stayed: ``why`` says what has changed meanwhile
    freed: int  # bytes


def clean(
    workspace: Path, keep: Keep, *, repository: str = "", why: str = "retention", say: Callable[[str], None] = print
) -> Swept:
    """Plan and sweep in one, as a schedule does after its runs.

    Raises:
        UsageError: another one is at work in this workspace.
    """
    return sweep(workspace, look(workspace, keep, repository=repository), repository=repository, why=why, say=say)


def after_run(store: Schedules, name: str, *, say: Callable[[str], None] = print) -> None:
    """What a schedule that says what to keep removes when a run of it has ended.

    Schedules of a workspace share what they make, so of each setting the largest that any of them has is heeded. What
    goes wrong, whatever it is, is said in the claim's log and costs the run nothing.
    """
    from pipelines.recipes import kept, named

    try:
        latest = store.history(name)[-1]
        if latest.keep is None:
            return
        keep = latest.keep
        for other in (store.get(each) for each in store.names()):
            keep = keep.at_least(other.keep) if other.keep else keep
        recipe = named(latest.recipe, latest.settings, source=latest.source, map=latest.map)
        repository = kept(recipe, str(store.workspace)).get("storage", {}).get("repository", "")
        swept = clean(store.workspace, keep, repository=repository, why=f"schedule {name}", say=say)
        if swept.removed:
            say(f"removed {len(swept.removed)} things: {swept.freed} bytes are free again")
    except (RanklineError, OSError) as error:
        trouble = str(error)
    except Exception:  # a fault of cleaning is none of the run, which has ended
        trouble = traceback.format_exc()
    else:
        return
    with contextlib.suppress(OSError):  # nor is a full disk that the log lies on
        say(f"cleaning after the run stopped: {trouble}")


# -- looking ---------------------------------------------------------------------------------------------------


def look(workspace: Path, keep: Keep, *, repository: str = "", now: float | None = None) -> Plan:
    """What would become of everything; reads, and writes nothing.

    Raises:
        RanklineError: the repository cannot be read, or its history is damaged.
    """
    workspace = workspace.resolve()
    moment = time.time() if now is None else now
    return policy.plan(seen(workspace, repository=repository), keep, now=moment)


def seen(workspace: Path, *, repository: str = "") -> Seen:
    """Everything that takes room, and what decides its fate.

    Raises:
        UsageError: this is no workspace, or what serves cannot be known.
        RanklineError: a repository cannot be read.
    """
    left_alone: list[str] = []
    ours = is_workspace(workspace)
    if not ours and not repository:
        raise UsageError(
            "this folder is no workspace of Rankline, and nothing in it is removed",
            expected="a run with its ledger, a schedule, or repository/ with bundles or events",
            found="nothing that Rankline has made",
            where=str(workspace),
            hint="-w FOLDER names the workspace",
        )
    models = _there(repository) if repository else ModelRegistry(workspace / "repository", repair_cache=False)
    things = [*_repository(models, left_alone)]
    history = tuple(models.history())
    if not ours:
        left_alone.append(f"{workspace}: nothing in it shows that Rankline made it")
        services = {thing.name: _service(models, thing.name) for thing in things if thing.kind == "bundle"}
        return Seen(tuple(things), history, services=services, left_alone=tuple(left_alone))
    elsewhere = tuple(tuple(other.history()) for other in _others(workspace, models))
    _refuse_unknown_champions(workspace, (history, *elsewhere), models)
    services = {thing.name: _service(models, thing.name) for thing in things if thing.kind == "bundle"}

    work: dict[str, dict[str, Work]] = {}
    under_way, groups, unreadable = set(), {}, set()
    for folder in _folders(workspace / "runs", left_alone, _is_run):
        things.append(_thing("run", folder.name, folder, workspace, at=last_sign(folder)))
        work[folder.name] = {
            step: Work(entry.key, dict(entry.outputs), entry.status in ("done", "reused"))
            for step, entry in ledger.read_entries(folder).items()
        }
        groups[folder.name] = _group(folder)
        if goes_on(folder):
            under_way.add(folder.name)
        if (folder / SUMMARY).is_file() and summary_of(folder) is None:
            unreadable.add(folder.name)
            left_alone.append(f"{folder / SUMMARY} cannot be read")

    made, latest = {}, set()
    for step in _folders(workspace / "cache", left_alone):
        store = StepCache(step)
        last = store.latest()
        for folder in _folders(step, left_alone, _is_kept_work):
            entry = store.at(folder.name)
            thing = _thing("cache", f"{step.name}/{folder.name}", folder, workspace)
            things.append(thing)
            if entry is not None:
                made[thing.place] = {output: entry.declared_digest(output) for output in entry.files}
            if last is not None and last.folder == folder:
                latest.add(thing.place)

    for step in _folders(workspace / "checkpoints", left_alone):
        for folder in _folders(step, left_alone, lambda path: bool(_CHECKPOINT.fullmatch(path.name))):
            newest = max((path.lstat().st_mtime for path in folder.rglob("*")), default=folder.stat().st_mtime)
            things.append(_thing("checkpoint", f"{step.name}/{folder.name}", folder, workspace, at=newest))
    for folder in _folders(workspace / "online", left_alone, _is_online):
        things.append(_thing("online", folder.name, folder, workspace))
    for folder in _folders(workspace / "fetched", left_alone, lambda path: bool(_FETCHED.fullmatch(path.name))):
        things.append(_thing("fetched", folder.name, folder, workspace))
    claims, awaited = _claims(workspace, left_alone)
    things += claims
    things += [_thing("leftover", str(path.relative_to(workspace)), path, workspace) for path in _leftovers(workspace)]
    return Seen(
        things=tuple(things),
        history=history,
        under_way=frozenset(under_way),
        groups=groups,
        awaited=frozenset(awaited),
        work=work,
        made=made,
        latest=frozenset(latest),
        services=services,
        left_alone=tuple(left_alone),
        unreadable=frozenset(unreadable),
        elsewhere=elsewhere,
    )


def repository_of(workspace: Path) -> str:
    """Where the runs of a workspace keep their models, as the last of them was told; empty for the workspace's own."""
    for folder in sorted(_folders(workspace / "runs", []), reverse=True):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            told: str = json.loads((folder / RECIPE).read_text())["storage"]["repository"]
            return told.replace("{workspace}", str(workspace))
    return ""


def is_workspace(folder: Path) -> bool:
    """Whether something in a folder shows that Rankline made it."""
    if any((folder / "repository" / name).is_dir() for name in ("events", *(part for part, _, _ in _REPOSITORY))):
        return True
    if any((folder / SCHEDULES).glob("*/revisions/[0-9]*.json")):
        return True
    return any(_is_run(path) for path in _folders(folder / "runs", []))


def _there(url: str) -> ModelRegistry:
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


def _others(workspace: Path, models: ModelRegistry) -> Iterator[ModelRegistry]:
    """The repositories beside the one that is swept which the workspace has, or its runs and schedules name."""
    urls = [str(workspace / "repository")]
    for folder in _folders(workspace / "runs", [], _is_run):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            told = json.loads((folder / RECIPE).read_text())["storage"]["repository"]
            urls.append(told.replace("{workspace}", str(workspace)))
    store = Schedules(workspace)
    for name in store.names():
        for setting in store.get(name).settings:
            knob, _, value = setting.partition("=")
            if knob.strip() == "storage.repository":
                urls.append(value.strip().replace("{workspace}", str(workspace)))
    seen = {models.root}
    for url in filter(None, urls):
        other = ModelRegistry(url, repair_cache=False)
        if other.root not in seen:
            seen.add(other.root)
            yield other


def _refuse_unknown_champions(workspace: Path, histories: tuple[tuple[Event, ...], ...], models: ModelRegistry) -> None:
    """Stop where a run's model came to serve and no history that was looked at knows it.

    Raises:
        UsageError: that is so.
    """
    known = {event.model_id for history in histories for event in history}
    for folder in _folders(workspace / "runs", [], _is_run):
        told = summary_of(folder) or {}
        model = told.get("model_id")
        if told.get("outcome") == "promoted" and model and model not in known:
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


def _is_kept_work(folder: Path) -> bool:
    return bool(_KEY.fullmatch(folder.name)) and (folder / "entry.json").is_file()


def _is_online(folder: Path) -> bool:
    return bool(_ONLINE.fullmatch(folder.name)) or (folder / "watermark.json").is_file()


def goes_on(folder: Path) -> bool:
    """Whether a run is under way, here or, as far as its signs of life tell, on another machine or in a cluster."""
    if (folder / SUMMARY).is_file():
        return False
    if state(folder) == RUNNING:
        return True
    host = ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        host = json.loads((folder / WATCHER).read_text())["host"]
    if host == socket.gethostname() or time.time() - last_sign(folder) > ELSEWHERE_S:
        return False
    # in a pod nobody watches, and its processes cannot be seen from here
    return bool(host) or any(entry.status == "running" for entry in ledger.read_entries(folder).values())


def _group(folder: Path) -> str:
    """The recipe (or the recipe and its one step) of a run, and its flow: of each some are kept."""
    flow = "train"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        flow = json.loads((folder / WATCHER).read_text())["flow"]
    return f"{folder.name.split('-', 2)[-1]} {flow}"


def _folders(place: Path, left_alone: list[str], is_ours: Callable[[Path], bool] = lambda _: True) -> list[Path]:
    """The folders in one of the workspace; whatever is a link, or does not look as Rankline makes it, stays alone."""
    if place.is_symlink():
        left_alone.append(f"{place} is a link")
        return []
    if not place.is_dir():
        return []
    found = []
    for path in sorted(place.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_symlink():
            left_alone.append(f"{path} is a link")
        elif path.is_dir() and is_ours(path):
            found.append(path)
        elif path.is_dir():
            left_alone.append(f"{path} does not look like what Rankline keeps there")
    return found


def _thing(kind: Kind, name: str, path: Path, root: Path, *, at: float | None = None) -> Thing:
    place = path.relative_to(root).as_posix()
    return Thing(kind, name, place, path.lstat().st_mtime if at is None else at, tuple(_inodes(path)))


def _inodes(path: Path) -> Iterator[Inode]:
    paths: Iterable[Path] = [path]
    if path.is_dir() and not path.is_symlink():
        paths = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    for each in paths:
        with contextlib.suppress(OSError):
            told = each.lstat()
            yield Inode((told.st_dev, told.st_ino), told.st_nlink, told.st_size)


def _repository(models: ModelRegistry, left_alone: list[str]) -> Iterator[Thing]:
    """Bundles, weights, catalogue revisions and evidence, of a folder or a bucket."""
    for part, kind, depth in _REPOSITORY:
        if not models.local:
            yield from _in_bucket(models, part, kind, depth)
            continue
        root = Path(models.root)
        folders = _folders(root / part, left_alone, lambda path: bool(_MODEL.fullmatch(path.name)))
        if depth == 2:
            folders = [revision for model in folders for revision in _folders(model, left_alone)]
        for folder in folders:
            name = folder.relative_to(root / part).as_posix()
            yield _thing(kind, name, folder, root)


def _in_bucket(models: ModelRegistry, part: str, kind: Kind, depth: int) -> Iterator[Thing]:
    place = f"{models.root.rstrip('/')}/{part}"
    models.fs.invalidate_cache()
    sizes: dict[str, int] = {}
    times: dict[str, float] = {}
    for path, told in models.fs.find(place, detail=True).items():
        names = path.removeprefix(place).strip("/").split("/")
        if len(names) <= depth or not _MODEL.fullmatch(names[0]):
            continue
        name = "/".join(names[:depth])
        sizes[name] = sizes.get(name, 0) + int(told.get("size") or 0)
        when = told.get("LastModified") or told.get("created") or told.get("mtime")
        moment = when.timestamp() if hasattr(when, "timestamp") else float(when or time.time())
        times[name] = max(times.get(name, 0.0), moment)
    for name, size in sorted(sizes.items()):
        yield Thing(kind, name, f"{part}/{name}", times[name], stored=size)


def _service(models: ModelRegistry, model_id: str) -> str:
    with contextlib.suppress(RanklineError, ValueError, OSError):
        return models.manifest(model_id).features.service
    return ""


def _claims(workspace: Path, left_alone: list[str]) -> tuple[list[Thing], set[str]]:
    """Claims that have come to their end for good, and the runs of those that have not."""
    things, awaited = [], set()
    store = Schedules(workspace)
    for folder in _folders(workspace / SCHEDULES, left_alone):
        claims = store.claims(folder.name)
        if troubles := claims.unreadable():
            left_alone += troubles
        until = claims.handled()["until"]
        for claim in claims.filed():
            if claim.status != "ended":
                awaited.add(claim.run)
            elif claim.outcome != UNREADABLE and not troubles and _settled(claim, until):
                path = claims.path(claim.moment)
                files = [file for each in path.parent.glob(f"{path.stem}.*") for file in _inodes(each)]
                place = path.relative_to(workspace).as_posix()
                things.append(Thing("claim", f"{folder.name}/{path.stem}", place, _ended(claim), tuple(files)))
    return things, awaited - {""}


def _settled(claim: Claim, until: str) -> bool:
    """Whether nobody will write into it again: a failed one may be run again, an untold one may still be told."""
    told = claim.exit_code == 0 or bool(claim.notified) or claim.kind == "backfill"
    return not claim.failed and told and (claim.kind == "backfill" or claim.scheduled_at <= until)


def _ended(claim: Claim) -> float:
    return policy._moment(claim.ended_at or claim.claimed_at)


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
            if pattern.startswith("runs/") and goes_on(path.parent):
                continue
            yield path


# -- sweeping --------------------------------------------------------------------------------------------------


def sweep(
    workspace: Path, plan: Plan, *, repository: str = "", why: str = "retention", say: Callable[[str], None] = print
) -> Swept:
    """Remove what a plan lets go; whatever has come into use since then stays.

    Raises:
        UsageError: another one is at work in this workspace.
        RepositoryError: the repository cannot be written.
    """
    workspace = workspace.resolve()
    with _alone(workspace):
        models = ModelRegistry(repository or workspace / "repository")
        done = _Sweep(workspace, models, plan, why)
        done.run(say)
        stayed = {id(fate) for fate in done.spared_of}
        removed = tuple(fate for fate in plan.going if id(fate) not in stayed)
        freed = Plan(plan.keep, removed).freed()
        return Swept(removed, tuple(done.skipped), freed)


@contextlib.contextmanager
def _alone(workspace: Path) -> Iterator[None]:
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
        self.skipped: list[Fate] = []
        self.spared_of: list[Fate] = []
        self.staying: set[str] = set()  # models that are kept after all

    def run(self, say: Callable[[str], None]) -> None:
        """Do all of it."""
        self._empty_trash()
        for fate in self.plan.going:
            if fate.thing.kind in ("bundle", "weights", "catalogue"):
                self._say_that_it_goes(fate)
        ways: dict[Kind, Callable[[Thing], str]] = {
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
        going = sorted(self.plan.going, key=lambda fate: fate.thing.kind not in order)  # what was said first
        for fate in going:
            try:
                reason = ways[fate.thing.kind](fate.thing)
            except (OSError, RanklineError) as error:  # one that cannot be removed stops no other
                reason = str(getattr(error, "strerror", "") or error).splitlines()[0]
            if reason:
                self.skipped.append(Fate(fate.thing, False, reason))
                self.spared_of.append(fate)
                say(f"{fate.thing.kind} {fate.thing.name} stays: {reason}")

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

    def _say_that_it_goes(self, fate: Fate) -> None:
        """The event that comes before a model's files, or a revision's."""
        model, _, revision = fate.thing.name.partition("/")
        history = self.models.history()
        known = any(event.model_id == model for event in history)
        if not known or model in self.staying or removal_event(history, model, revision) is not None:
            return
        keep, now = self.plan.keep, time.time()

        def skipped(history: list[Any]) -> bool:
            if not revision or model not in policy.models_kept(history, keep, now=now):
                return model in policy.models_kept(history, keep, now=now)
            return revision in policy.revisions_kept(history, model, keep)

        # a revision of a model that goes as a whole needs no event of its own
        whole = model not in policy.models_kept(history, keep, now=now)
        told = remove(
            self.models, model, who=self.who, why=f"{self.why}: {fate.why}", skipped=skipped,
            revision="" if whole else revision, details={"bytes": fate.thing.bytes},
        )  # fmt: skip
        if told is None:
            self.staying.add(model)

    # -- each kind; the reason why it stays, empty where it is gone ----------------------------------------

    def _of_repository(self, thing: Thing) -> str:
        history = self.models.history()
        if thing.kind == "evidence":
            kept = policy.models_kept(history, self.plan.keep, now=time.time())
            if any(thing.name in event.digests.values() and event.model_id in kept for event in history):
                return "an event of a kept model names it by now"
        else:
            model, _, revision = thing.name.partition("/")
            known = any(event.model_id == model for event in history)
            if model in self.staying or (known and removal_event(history, model, revision) is None):
                return "its model is kept after all"
        delete_from_registry(self.models, thing.place)
        return ""

    def _run(self, thing: Thing) -> str:
        folder = self.workspace / thing.place
        if not self._still(folder):
            return "a link is in its place"
        if folder.is_dir() and goes_on(folder):
            return "it goes on by now"
        delete_atomically(folder)
        return ""

    def _unless_in_use(self, thing: Thing) -> str:
        begun = [folder.name for folder in _folders(self.workspace / "runs", [], _is_run) if goes_on(folder)]
        if begun:  # it may have just found this very work
            return f"run {begun[0]} has begun and may take it up"
        return self._path(thing)

    def _online(self, thing: Thing) -> str:
        from components.promote import online

        with online.store_lock(self.workspace / thing.place, timeout_s=1.0):
            return self._unless_in_use(thing)

    def _claim(self, thing: Thing) -> str:
        name, _, stamp = thing.name.partition("/")
        return Schedules(self.workspace).claims(name).file_away(stamp)

    def _path(self, thing: Thing) -> str:
        path = self.workspace / thing.place
        if not self._still(path):
            return "a link is in its place"
        delete_atomically(path)
        return ""

    def _still(self, path: Path) -> bool:
        """Whether a path leads where it did, and not out of the workspace."""
        return not path.is_symlink() and path.parent.resolve() == path.parent
