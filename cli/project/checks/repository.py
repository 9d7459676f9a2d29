"""The model repository, where the recipe keeps it: the workspace's own folder, another, or a bucket."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.project.checks import Finding, Patient


def repository(patient: Patient) -> Iterator[Finding]:
    """The history is whole, champion.json says what the events say, the champion is there, and all can be written."""
    from rankline.errors import RanklineError
    from rankline.registry import registry_state
    from rankline.registry.model_registry import Repository

    place, own = patient.repository, not patient.recipe.storage.repository
    elsewhere = "start it, check its credentials, or give another --set storage.repository=…"
    try:
        models = Repository(place)
        if models.local and not models.fs.isdir(models.root):
            yield Finding("model repository", "ok", f"none yet{'' if own else f' at {place}'}; the first run makes it")
            return
        history = models.history()
    except RanklineError as error:
        yield Finding("history", "fail", _told(error), error.hint or elsewhere)
        return
    except OSError as error:  # such as one who may not read
        yield Finding("history", "fail", f"{place}: {error}", elsewhere)
        return
    told = f"{len(history)} events, none missing" if history else "no event yet"
    yield Finding("history", "ok", told if own else f"{place}: {told}")
    serving = registry_state.champion(history)
    champion = serving.model_id if serving else ""
    yield _pointer(models, serving)
    if champion:
        try:
            with tempfile.TemporaryDirectory() as folder:  # one in a bucket is fetched to be looked at
                models.bundle(champion, into=Path(folder))
            yield Finding("champion", "ok", f"{champion}: every byte is what its digests promise")
        except RanklineError as error:
            yield Finding("champion", "fail", f"{champion}: {_told(error)}", error.hint or elsewhere)
        with contextlib.suppress(RanklineError):
            catalogue = models.manifest(champion).catalogue
            asked = patient.recipe.export.catalogue
            if catalogue != asked:
                name = patient.recipe.name
                told = f"the {'workspace' if own else 'repository'} ranks {catalogue!r}, recipe {name} {asked!r}"
                hint = f"-w {patient.workspace}-{name}" if own else "--set storage.repository=… of its own"
                yield Finding("catalogue", "warn", told, hint)
    yield _writable(models)


def _pointer(models: Any, serving: Any) -> Finding:
    """champion.json against what the events add up to (None: nobody serves)."""
    from rankline.registry.registry_state import Champion

    kept = None
    with contextlib.suppress(OSError, ValueError):
        kept = Champion.model_validate_json(models.fs.cat_file(f"{models.root.rstrip('/')}/champion.json"))
    said, champion = kept.model_id if kept else "", serving.model_id if serving else ""
    if kept == serving or (kept and serving and kept == serving.model_copy(update={"read_to": kept.read_to})):
        return Finding("champion.json", "ok", champion or "nobody serves yet")
    part = " with another catalogue, other hidden items or of another event" if said == champion else ""
    found = f"it says {said or 'nothing readable'}{part}, the events say {champion or 'nobody'}"
    return Finding("champion.json", "warn", found, "`rankline champion` writes it anew; whoever polls the file waits")


def _writable(models: Any) -> Finding:
    """Events can be added; in a bucket, too, only by the first of two who write the same one."""
    from rankline.errors import RanklineError

    name, folder = "repository writable", f"{models.root.rstrip('/')}/events"
    probe = f"{folder}/.rankline-doctor-{uuid.uuid4().hex}"
    try:
        if models.local:
            Path(probe).write_bytes(b"x")
            Path(probe).unlink()
            return Finding(name, "ok", "events can be added")
        models.fs.pipe_file(probe, b"x", mode="create")
        try:
            models.fs.pipe_file(probe, b"y", mode="create")
            exclusive = False
        except FileExistsError:
            exclusive = True
        finally:
            models.fs.rm_file(probe)
    except RanklineError as error:
        return Finding(name, "fail", _told(error), error.hint or "mend the permissions of those credentials")
    except FileNotFoundError:
        hint = "make the bucket, or give another --set storage.repository=…"
        return Finding(name, "fail", f"{folder}: no such bucket or folder", hint)
    except OSError as error:
        hint = "free some space, or mend the permissions"
        return Finding(name, "fail", f"{folder}: {error.strerror or error}", hint)
    if not exclusive:
        hint = "take a store with conditional writes (If-None-Match); of two runs at once both would promote here"
        return Finding(name, "fail", f"{folder}: a file that is there is written over by who should be refused", hint)
    return Finding(name, "ok", "events can be added, each once")


def _told(error: Any) -> str:
    where = f" ({error.where})" if error.where else ""
    return f"{error.message}; found {error.found}{where}" if error.found else f"{error.message}{where}"
