"""Removing models and catalogue revisions from a registry: first the event `removed`, then the files.

From the event on the model cannot serve, and a reader learns who removed it, when and why. Files are removed so that an
interruption leaves a folder complete or invisible. A model that is registered again counts as present again.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Unpack

from rankline.errors import RegistryError
from rankline.io.blob_store import BlobStore
from rankline.registry.event_log import EventDraft, EventFields, EventLog
from rankline.registry.registry_state import PROMOTING, PUBLISHING, REMOVED, Event

TRASH = ".trash"  # holds what is being removed, in the same folder
_TRASHED_NAME = re.compile(r".+\.[0-9a-f]{32}", re.DOTALL)
# the file that makes a folder exist for its readers: written last, removed first
MARKER_FILES = {"bundles": "manifest.json", "catalogues": "catalogue.json", "weights": "weights.json"}


def removal_event(history: list[Event], model_id: str, revision: str = "") -> Event | None:
    """The event that removed a model or one catalogue revision of it; None if it was registered again since."""
    for event in reversed(history):
        if event.model_id != model_id:
            continue
        if event.kind == REMOVED and event.digests.get("catalogue", "") in ("", revision):
            return event
        if event.kind == "registered":
            return None
    return None


def removed_models(history: Iterable[Event]) -> set[str]:
    """Every model that was removed and not registered again since."""
    removed: set[str] = set()
    for event in history:
        if event.kind == REMOVED and not event.digests.get("catalogue"):
            removed.add(event.model_id)
        elif event.kind == "registered":
            removed.discard(event.model_id)
    return removed


def since_removal(history: list[Event], model_id: str) -> list[Event]:
    """The events of a model since it was last removed."""
    events = [event for event in history if event.model_id == model_id]
    removals = [n for n, event in enumerate(events, 1) if event.kind == REMOVED and "catalogue" not in event.digests]
    return events[removals[-1] if removals else 0 :]


def refuse_removed_model(
    log: EventLog, history: list[Event], kind: str, model_id: str, digests: dict[str, str]
) -> None:
    """Refuse an event that would make a removed model or catalogue serve.

    Raises:
        RegistryError: the model or catalogue was removed.
    """
    revision = digests.get("catalogue", "") if kind == PUBLISHING else ""
    if kind in (*PROMOTING, PUBLISHING) and removal_event(history, model_id, revision) is not None:
        raise not_found_error(log, model_id, revision)


def not_found_error(log: EventLog, model_id: str, revision: str = "") -> RegistryError:
    """The error for a model, or a catalogue revision of it, that is not in the registry."""
    event = removal_event(log.history(), model_id, revision)
    if event is not None:
        subject = f"catalogue {revision} of model {model_id}" if revision else f"model {model_id}"
        return RegistryError(
            f"{subject} is not kept any more",
            expected="a model or catalogue that is still in the registry",
            found=f"removed at {event.at} by {event.who} (event {event.n}): {event.why}",
            where=log.root,
            hint="`rankline gc --dry-run` shows what is kept; --keep-bundles and --keep-catalogues keep more",
        )
    if revision:
        return RegistryError(
            f"model {model_id} has no catalogue {revision} in the registry",
            expected=f"catalogues/{model_id}/{revision}/catalogue.json",
            found="no such catalogue",
            where=log.root,
            hint="`rankline catalogue list` lists the published ones",
        )
    return RegistryError(
        f"model {model_id} is not in the registry",
        expected=f"bundles/{model_id}/manifest.json",
        found="no such bundle",
        where=log.root,
        hint="`rankline history` lists the registered models",
    )


def remove(
    log: EventLog,
    model_id: str,
    *,
    skipped: Callable[[list[Event]], bool],
    revision: str = "",
    **fields: Unpack[EventFields],
) -> Event | None:
    """Record that a model, or one catalogue ``revision`` of it, is removed; its files may be deleted afterwards.

    ``skipped`` decides from the history whether it is kept after all (then nothing is written and the result is None).
    It is called again after a concurrent write.

    Raises:
        RegistryError: the registry cannot be written.
    """
    digests = {"catalogue": revision} if revision else {}
    draft = EventDraft(kind=REMOVED, model_id=model_id, digests=digests, **fields)
    return log.write_event(draft, lambda history: not skipped(history))


def delete_from_registry(store: BlobStore, name: str) -> None:
    """Delete a folder of the registry; an interruption leaves it complete or invisible to readers."""
    folder = f"{store.root.rstrip('/')}/{name}"
    if store.local:
        delete_atomically(Path(folder))
        return
    marker = f"{folder}/{MARKER_FILES.get(name.split('/', 1)[0], '')}"
    store.fs.invalidate_cache()
    # the marker goes first; evidence has none, there it is the last name, which was written last
    files = sorted(store.fs.find(folder), reverse=True)
    files.sort(key=lambda file: file != marker)
    for file in files[:1]:
        store.fs.rm_file(file)
    if files[1:]:
        store.fs.rm(files[1:])


def delete_atomically(path: Path) -> None:
    """Delete a local folder or file: rename it into the trash next to it, then remove it there.

    After an interruption the remains are in the trash, for `empty_trash`.

    Raises:
        OSError: it could not be moved, or not completely removed.
    """
    trashed = path.parent / TRASH / f"{path.name}.{uuid.uuid4().hex}"
    if trashed.parent.is_symlink():
        raise OSError(errno.ELOOP, "its trash folder is a link", str(trashed.parent))
    for _ in range(1000):
        # another process that empties the trash may remove the folder between these two lines
        with suppress(FileExistsError):
            trashed.parent.mkdir(exist_ok=True)
        try:
            # not `files.replacing`: what is there moves away as it is, and nothing takes its place
            os.rename(path, trashed)
        except (FileNotFoundError, NotADirectoryError):
            if not os.path.lexists(path):  # another process removed it
                break
        else:
            break
    empty_trash(path.parent)
    if os.path.lexists(path):
        raise OSError(errno.EBUSY, "it could not be moved to the trash", str(path))
    if os.path.lexists(trashed):
        raise OSError(
            errno.ENOTEMPTY, f"it was moved to {TRASH}, and some of it could not be removed there", str(trashed)
        )


def empty_trash(folder: Path) -> None:
    """Finish interrupted deletions in a folder."""
    trash = folder / TRASH
    try:
        entries = list(trash.iterdir()) if trash.is_dir() and not trash.is_symlink() else []
    except FileNotFoundError:  # another process emptied it
        return
    for path in entries:
        if not _TRASHED_NAME.fullmatch(path.name):  # not put there by `delete_atomically`
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with suppress(OSError):
        trash.rmdir()
