"""How a model leaves the repository: first the event `removed`, which nobody can have overtaken, then its files.

From the event on the model cannot be made to serve, and whoever asks for it is told who took it away, when and why.
Its files go so that a kill leaves all of a folder or nothing that anybody takes for it. Registered anew, it is there
again. The same holds of one published revision of a model's catalogue.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankline.errors import RegistryError
from rankline.registry.registry_state import PROMOTING, PUBLISHING, REMOVED, Event

if TYPE_CHECKING:
    from rankline.registry.model_registry import ModelRegistry

TRASH = ".trash"  # what is being removed, in the folder that it lay in
_TRASHED_NAME = re.compile(r".+\.[0-9a-f]{32}", re.DOTALL)  # its name there
# the file that makes a folder exist for its readers: written last, removed first
MARKER_FILES = {"bundles": "manifest.json", "catalogues": "catalogue.json", "weights": "weights.json"}


def removal_event(history: list[Event], model_id: str, revision: str = "") -> Event | None:
    """The event that took a model away (or one ``revision`` of its catalogue), unless it was registered again since."""
    for event in reversed(history):
        if event.model_id != model_id:
            continue
        if event.kind == REMOVED and event.digests.get("catalogue", "") in ("", revision):
            return event
        if event.kind == "registered":
            return None
    return None


def refuse_removed_model(
    models: ModelRegistry, history: list[Event], kind: str, model_id: str, digests: dict[str, str]
) -> None:
    """Stop an event that would make something serve which an event before it took away.

    Raises:
        RepositoryError: that is so.
    """
    revision = digests.get("catalogue", "") if kind == PUBLISHING else ""
    if kind in (*PROMOTING, PUBLISHING) and removal_event(history, model_id, revision) is not None:
        raise not_found_error(models, model_id, revision)


def not_found_error(models: ModelRegistry, model_id: str, revision: str = "") -> RegistryError:
    """What is said of a model, or of a revision of its catalogue, that is not here."""
    event = removal_event(models.history(), model_id, revision)
    subject = f"catalogue {revision} of model {model_id}" if revision else f"model {model_id}"
    if event is not None:
        return RegistryError(
            f"{subject} is not kept any more",
            expected="one that is still here",
            found=f"removed at {event.at} by {event.who} (event {event.n}): {event.why}",
            where=models.root,
            hint="`rankline gc --dry-run` tells what is kept; --keep-bundles and --keep-catalogues keep more",
        )
    return RegistryError(
        f"model {model_id} has no catalogue {revision} in the repository"
        if revision
        else f"{subject} is not in the repository",
        expected=f"catalogues/{model_id}/{revision}/catalogue.json"
        if revision
        else f"bundles/{model_id}/manifest.json",
        found="no such catalogue" if revision else "no such bundle",
        where=models.root,
        hint="`rankline catalogue list` tells those that were published"
        if revision
        else "`rankline history` lists the models that are",
    )


def remove(
    models: ModelRegistry,
    model_id: str,
    *,
    who: str,
    why: str,
    skipped: Callable[[list[Event]], bool],
    revision: str = "",
    details: dict[str, Any] | None = None,
) -> Event | None:
    """Say that a model (or one ``revision`` of its catalogue) is no longer kept; its files may go after that.

    ``spared`` says of a history whether it is kept after all; it is asked again whenever somebody else wrote an event
    meanwhile. None where it is.

    Raises:
        RepositoryError: the repository cannot be written.
    """
    while True:
        history = models.history()
        if skipped(history):
            return None
        event = Event(
            n=len(history) + 1,
            kind=REMOVED,
            model_id=model_id,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            who=who,
            why=why,
            digests={"catalogue": revision} if revision else {},
            details=details or {},
            champion_before=models.champion(),
        )
        if models._create(f"events/{event.n}.json", event.model_dump_json(indent=2).encode() + b"\n"):
            models.champion_record()  # repairs champion.json, which is now behind
            return event


def delete_from_registry(models: ModelRegistry, name: str) -> None:
    """Take a folder of the repository away, so that a kill leaves the whole of it or what nobody takes for it."""
    folder = f"{models.root.rstrip('/')}/{name}"
    if models.local:
        delete_atomically(Path(folder))
        return
    marker = f"{folder}/{MARKER_FILES.get(name.split('/', 1)[0], '')}"
    models.fs.invalidate_cache()
    # what makes it exist goes first; of evidence that is the last of its names, as it was written
    files = sorted(models.fs.find(folder), reverse=True)
    files.sort(key=lambda file: file != marker)
    for file in files[:1]:
        models.fs.rm_file(file)
    if files[1:]:
        models.fs.rm(files[1:])


def delete_atomically(path: Path) -> None:
    """Take a folder or file of this machine away: from one moment to the next it has left its place, then it goes.

    Killed in between, what is left lies in the trash beside it, where nobody looks but `empty_trash`.

    Raises:
        OSError: it stayed, or not all of it could be removed.
    """
    trashed = path.parent / TRASH / f"{path.name}.{uuid.uuid4().hex}"
    if trashed.parent.is_symlink():
        raise OSError(errno.ELOOP, "a link is in the place of its trash", str(trashed.parent))
    for _ in range(1000):
        # another one that empties the same trash may take the folder away between these two
        with suppress(FileExistsError):
            trashed.parent.mkdir(exist_ok=True)
        try:
            os.rename(path, trashed)
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.lexists(path):  # somebody else has removed it
                break
        else:
            break
    empty_trash(path.parent)
    if os.path.lexists(path):
        raise OSError(errno.EBUSY, "it could not be moved out of its place", str(path))
    if os.path.lexists(trashed):
        raise OSError(
            errno.ENOTEMPTY, f"it left its place, and some of it could not be removed from {TRASH}", str(trashed)
        )


def empty_trash(folder: Path) -> None:
    """Remove what was on its way out of a folder."""
    trash = folder / TRASH
    try:
        entries = list(trash.iterdir()) if trash.is_dir() and not trash.is_symlink() else []
    except FileNotFoundError:  # another one has emptied it
        return
    for path in entries:
        if not _TRASHED_NAME.fullmatch(path.name):  # nothing that was thrown there
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):
        trash.rmdir()
