"""The workspace: runs that were killed, what the cache weighs, leftovers, material."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from cli.project.checks import Check, Finding, Patient, size

DAY_S = 86_400


def workspace(patient: Patient) -> Iterator[Finding]:
    """Whether there is one."""
    if patient.workspace.is_dir():
        yield Finding("workspace", "ok", str(patient.workspace))
    elif patient.workspace.exists():
        hint = "name a folder with -w, or move that file away"
        yield Finding("workspace", "fail", f"{patient.workspace} is a file, and no folder", hint)
    else:
        yield Finding("workspace", "ok", f"none yet at {patient.workspace}; the first run makes it")


def runs(patient: Patient) -> Iterator[Finding]:
    """Runs that go on, and runs that ended without a summary."""
    from components.summary.step import SUMMARY
    from pipelines.runs.runner import runs as folders
    from pipelines.runs.store import state

    found = folders(patient.workspace) if patient.workspace.is_dir() else ()
    broken = [folder for folder in found if (folder / SUMMARY).is_file() and not _reads(folder / SUMMARY)]
    states = {folder: state(folder) for folder in found if not (folder / SUMMARY).is_file()}
    going = [folder.name for folder, now in states.items() if now == "running"]
    killed = [*broken, *(folder for folder, now in states.items() if now != "running")]
    if killed:
        names = ", ".join(folder.name for folder in killed[-3:])
        hint = "the next run goes on from what they finished; remove their folders under runs/ to forget them"
        yield Finding("runs", "warn", f"{len(killed)} of {len(found)} half-written: {names}", hint)
    else:
        told = f"{len(found)}, {len(going)} under way" if going else f"{len(found)}, none half-written"
        yield Finding("runs", "ok", told)


def cache(patient: Patient) -> Iterator[Finding]:
    """What kept work weighs against the room that is left, and whether its entries can be read."""
    folder = patient.workspace / "cache"
    if not folder.is_dir():
        return
    weighs, free = _weight(folder.rglob("*")), shutil.disk_usage(folder).free
    entries = list(folder.glob("*/[!.]*/"))
    unread = [each for each in entries if not _whole(each)]
    told = f"{len(entries)} kept results, {size(weighs)}"
    if unread:
        hint = f"rm -r {unread[0]}: it is made anew when it is needed"
        yield Finding("cache", "warn", f"{told}; {len(unread)} damaged: {unread[0].relative_to(folder)}", hint)
    elif weighs > free:
        yield Finding("cache", "warn", f"{told}, and {size(free)} are free", f"rm -r {folder}; the next run refills it")
    else:
        yield Finding("cache", "ok", told)


def _whole(entry: Path) -> bool:
    """Whether a kept result can be read and holds every file it lists (bytes are verified when it is used)."""
    told = _reads(entry / "entry.json")
    if not isinstance(told, dict) or not isinstance(told.get("files"), dict):
        return False
    return all(
        (entry / output).is_file() or (entry / output / name).is_file()
        for output, names in told["files"].items()
        for name in names
    )


def leftovers(patient: Patient) -> Iterator[Finding]:
    """Hidden half-written folders that a killed process left more than a day ago."""
    patterns = ("cache/*/.*.*", "repository/*/.*.*", "material/tmp*")
    found = [path for pattern in patterns for path in patient.workspace.glob(pattern)]
    old = [path for path in found if time.time() - path.stat().st_mtime > DAY_S]
    if old:
        weighs = size(_weight(inner for path in old for inner in (path, *path.rglob("*"))))
        told = f"{len(old)} half-written, {weighs}: {old[0].relative_to(patient.workspace)}"
        yield Finding("leftovers", "warn", told, f"rm -r {old[0]}{' …' if len(old) > 1 else ''}: nothing reads them")


def material(patient: Patient) -> Iterator[Finding]:
    """The data and weights of the recipe, if they are there, are what their digests promise."""
    from pipelines.assets.packaged import MATERIAL, Packaged
    from rankline.errors import IntegrityError
    from rankline.io import digest

    for name in patient.recipe.material:
        if name not in MATERIAL:
            continue
        folder, packaged = MATERIAL[name]
        place = patient.workspace / "material" / folder
        if not place.is_dir():
            yield Finding(f"material {name}", "ok", "not there yet; a run fetches it")
        elif isinstance(packaged, Packaged):
            try:
                digest.verify(place, packaged.sha256, hint=f"rm -r {place}, then rankline fetch {name}")
                yield Finding(f"material {name}", "ok", f"{len(packaged.sha256)} files, each what its digest promises")
            except IntegrityError as error:
                yield Finding(f"material {name}", "fail", f"{error.message}: {error.found}", error.hint)


def _weight(paths: Iterable[Path]) -> int:
    """Bytes on the disk; a file with two names weighs once."""
    files = {}
    for path in paths:
        if path.is_file() and not path.is_symlink():
            told = path.stat()
            files[told.st_dev, told.st_ino] = told.st_size
    return sum(files.values())


def _reads(path: Path) -> object:
    """What a JSON file holds; none where it cannot be read."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


CHECKS: tuple[Check, ...] = (workspace, runs, cache, leftovers, material)
