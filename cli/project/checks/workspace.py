"""The workspace: runs that were killed, what the cache weighs, leftovers, material."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from cli.project.checks import Check, CheckContext, Finding, size

DAY_S = 86_400


def workspace(context: CheckContext) -> Iterator[Finding]:
    """Whether there is one."""
    if context.workspace.is_dir():
        yield Finding("workspace", "ok", str(context.workspace))
    elif context.workspace.exists():
        hint = "name a folder with -w, or move that file away"
        yield Finding("workspace", "fail", f"{context.workspace} is a file, and no folder", hint)
    else:
        yield Finding("workspace", "ok", f"none yet at {context.workspace}; the first run makes it")


def runs(context: CheckContext) -> Iterator[Finding]:
    """Runs that go on, and runs that ended without a summary."""
    from components.summary.step import SUMMARY
    from pipelines.runs.folder import run_folders as list_runs
    from pipelines.runs.folder import run_state

    run_folders = list_runs(context.workspace) if context.workspace.is_dir() else ()
    broken = [folder for folder in run_folders if (folder / SUMMARY).is_file() and not _read_json(folder / SUMMARY)]
    states = {folder: run_state(folder) for folder in run_folders if not (folder / SUMMARY).is_file()}
    running = [folder.name for folder, now in states.items() if now == "running"]
    unfinished = [*broken, *(folder for folder, now in states.items() if now != "running")]
    if unfinished:
        names = ", ".join(folder.name for folder in unfinished[-3:])
        hint = "the next run goes on from what they finished; remove their folders under runs/ to forget them"
        yield Finding("runs", "warn", f"{len(unfinished)} of {len(run_folders)} half-written: {names}", hint)
    else:
        summary = (
            f"{len(run_folders)}, {len(running)} under way" if running else f"{len(run_folders)}, none half-written"
        )
        yield Finding("runs", "ok", summary)


def cache(context: CheckContext) -> Iterator[Finding]:
    """What kept work weighs against the room that is left, and whether its entries can be read."""
    folder = context.workspace / "cache"
    if not folder.is_dir():
        return
    used_bytes, free = _disk_usage(folder.rglob("*")), shutil.disk_usage(folder).free
    entries = list(folder.glob("*/[!.]*/"))
    damaged = [each for each in entries if not _is_intact(each)]
    summary = f"{len(entries)} kept results, {size(used_bytes)}"
    if damaged:
        hint = f"rm -r {damaged[0]}: it is made anew when it is needed"
        yield Finding("cache", "warn", f"{summary}; {len(damaged)} damaged: {damaged[0].relative_to(folder)}", hint)
    elif used_bytes > free:
        yield Finding(
            "cache", "warn", f"{summary}, and {size(free)} are free", f"rm -r {folder}; the next run refills it"
        )
    else:
        yield Finding("cache", "ok", summary)


def _is_intact(entry: Path) -> bool:
    """Whether a kept result can be read and holds every file it lists (bytes are verified when it is used)."""
    metadata = _read_json(entry / "entry.json")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("files"), dict):
        return False
    return all(
        (entry / output).is_file() or (entry / output / name).is_file()
        for output, names in metadata["files"].items()
        for name in names
    )


def leftovers(context: CheckContext) -> Iterator[Finding]:
    """Hidden half-written folders that a killed process left more than a day ago."""
    patterns = ("cache/*/.*.*", "repository/*/.*.*", "material/tmp*")
    paths = [path for pattern in patterns for path in context.workspace.glob(pattern)]
    old = [path for path in paths if time.time() - path.stat().st_mtime > DAY_S]
    if old:
        total_size = size(_disk_usage(inner for path in old for inner in (path, *path.rglob("*"))))
        summary = f"{len(old)} half-written, {total_size}: {old[0].relative_to(context.workspace)}"
        yield Finding("leftovers", "warn", summary, f"rm -r {old[0]}{' …' if len(old) > 1 else ''}: nothing reads them")


def assets(context: CheckContext) -> Iterator[Finding]:
    """The data and weights of the recipe, if they are there, are what their digests promise."""
    from pipelines.assets.packaged import ASSETS, PackagedAsset
    from rankline.errors import IntegrityError
    from rankline.io import digest

    for name in context.recipe.material:
        if name not in ASSETS:
            continue
        folder, packaged = ASSETS[name]
        path = context.workspace / "material" / folder
        if not path.is_dir():
            yield Finding(f"material {name}", "ok", "not there yet; a run fetches it")
        elif isinstance(packaged, PackagedAsset):
            try:
                digest.verify(path, packaged.sha256, hint=f"rm -r {path}, then rankline fetch {name}")
                yield Finding(f"material {name}", "ok", f"{len(packaged.sha256)} files, each what its digest promises")
            except IntegrityError as error:
                yield Finding(f"material {name}", "fail", f"{error.message}: {error.found}", error.hint)


def _disk_usage(paths: Iterable[Path]) -> int:
    """Bytes on the disk; a file with two names weighs once."""
    files = {}
    for path in paths:
        if path.is_file() and not path.is_symlink():
            stat = path.stat()
            files[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(files.values())


def _read_json(path: Path) -> object:
    """What a JSON file holds; none where it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


CHECKS: tuple[Check, ...] = (workspace, runs, cache, leftovers, assets)
