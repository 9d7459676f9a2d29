"""The workspace: runs that were killed, the size of the cache, leftovers, fetched data and weights."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cli.formats import format_bytes
from cli.project.checks.model import Check, CheckContext, Finding
from rankline.io.files import read_json_object

DAY_S = 86_400


def workspace(context: CheckContext) -> Iterator[Finding]:
    """The workspace is a folder, or does not exist yet."""
    if context.workspace.is_dir():
        yield Finding("workspace", "ok", str(context.workspace))
    elif context.workspace.exists():
        hint = "give a folder with -w, or move that file away"
        yield Finding("workspace", "fail", f"{context.workspace} is a file, not a folder", hint)
    else:
        yield Finding("workspace", "ok", f"none yet at {context.workspace}; the first run creates it")


def runs(context: CheckContext) -> Iterator[Finding]:
    """Every run has a summary, or is running."""
    from components.summary.step import SUMMARY
    from pipelines.runs.folder import run_folders, run_state
    from rankline.runtime.outcomes import Outcome

    folders = run_folders(context.workspace) if context.workspace.is_dir() else ()
    broken = [folder for folder in folders if (folder / SUMMARY).is_file() and not read_json_object(folder / SUMMARY)]
    states = {folder: run_state(folder) for folder in folders if not (folder / SUMMARY).is_file()}
    running = [folder for folder, state in states.items() if state == Outcome.RUNNING]
    unfinished = [*broken, *(folder for folder, state in states.items() if state != Outcome.RUNNING)]
    if unfinished:
        names = ", ".join(folder.name for folder in unfinished[-3:])
        hint = "the next run reuses their finished steps; remove their folders under runs/ to forget them"
        yield Finding("runs", "warn", f"{len(unfinished)} of {len(folders)} unfinished: {names}", hint)
    else:
        summary = f"{len(running)} running" if running else "none unfinished"
        yield Finding("runs", "ok", f"{len(folders)}, {summary}")


def schedules(context: CheckContext) -> Iterator[Finding]:
    """No fire time that is still to come counts as handled: this machine's clock is right, and was."""
    from pipelines.schedules.store import ScheduleStore
    from rankline.errors import RanklineError

    store, now = ScheduleStore(context.workspace), datetime.now(UTC)
    for name in store.names():
        with contextlib.suppress(RanklineError):  # `rankline schedule list` shows those that cannot be read
            if note := store.clock_note(name, now=now):
                yield Finding(f"schedule {name}", "warn", note, "`timedatectl` shows whether the clock is right")


def cache(context: CheckContext) -> Iterator[Finding]:
    """The step cache is readable and takes less space than is free."""
    folder = context.workspace / "cache"
    if not folder.is_dir():
        return
    used_bytes, free = _disk_usage(folder.rglob("*")), shutil.disk_usage(folder).free
    entries = list(folder.glob("*/[!.]*/"))
    damaged = [each for each in entries if not _is_intact(each)]
    summary = f"{len(entries)} cached results, {format_bytes(used_bytes)}"
    if damaged:
        hint = f"rm -r {damaged[0]}: it is computed again when it is needed"
        yield Finding("cache", "warn", f"{summary}; {len(damaged)} damaged: {damaged[0].relative_to(folder)}", hint)
    elif used_bytes > free:
        hint = f"rm -r {folder}; the next run refills it"
        yield Finding("cache", "warn", f"{summary}, but only {format_bytes(free)} are free", hint)
    else:
        yield Finding("cache", "ok", summary)


def _is_intact(entry: Path) -> bool:
    """Whether a cached result is readable and has every file it lists. (Bytes are verified when it is reused.)"""
    files = read_json_object(entry / "entry.json").get("files")
    return isinstance(files, dict) and all(
        (entry / output).is_file() or (entry / output / name).is_file()
        for output, names in files.items()
        for name in names
    )


def leftovers(context: CheckContext) -> Iterator[Finding]:
    """No hidden folder is left that a killed process wrote more than a day ago."""
    patterns = ("cache/*/.*.*", "repository/*/.*.*", "online/*/.*.*", "material/tmp*")
    paths = [path for pattern in patterns for path in context.workspace.glob(pattern)]
    old = [path for path in paths if time.time() - path.stat().st_mtime > DAY_S]
    if old:
        total_size = format_bytes(_disk_usage(inner for path in old for inner in (path, *path.rglob("*"))))
        summary = f"{len(old)} incomplete, {total_size}: {old[0].relative_to(context.workspace)}"
        yield Finding("leftovers", "warn", summary, f"rm -r {old[0]}{' …' if len(old) > 1 else ''}: nothing uses them")


def assets(context: CheckContext) -> Iterator[Finding]:
    """The recipe's data and weights, if they were fetched, match their digests."""
    from pipelines.assets.packaged import ASSETS, PackagedAsset
    from rankline.errors import IntegrityError
    from rankline.io import digest

    for name in (each.partition("=")[0] for each in context.recipe.material):
        if name not in ASSETS:
            continue
        folder, packaged = ASSETS[name]
        path = context.workspace / "material" / folder
        if not path.is_dir():
            yield Finding(f"material {name}", "ok", "not fetched yet; a run fetches it")
        elif isinstance(packaged, PackagedAsset):
            try:
                digest.verify(path, packaged.sha256, hint=f"rm -r {path}, then rankline fetch {name}")
                yield Finding(f"material {name}", "ok", f"{len(packaged.sha256)} files, all with the expected digest")
            except IntegrityError as error:
                yield Finding(f"material {name}", "fail", error.one_line, error.hint)


def _disk_usage(paths: Iterable[Path]) -> int:
    """Bytes on the disk; hard links to a file count once."""
    files = {}
    for path in paths:
        if path.is_file() and not path.is_symlink():
            stat = path.stat()
            files[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(files.values())


CHECKS: tuple[Check, ...] = (workspace, runs, schedules, cache, leftovers, assets)
