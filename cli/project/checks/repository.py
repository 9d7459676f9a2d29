"""The model repository, where the recipe keeps it: the workspace's own folder, another, or a bucket."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cli.project.checks import CheckContext, Finding


def repository(context: CheckContext) -> Iterator[Finding]:
    """The history is whole, champion.json says what the events say, the champion is there, and all can be written."""
    from rankline.errors import RanklineError
    from rankline.registry import registry_state
    from rankline.registry.model_registry import ModelRegistry

    root, is_default = context.repository, not context.recipe.storage.repository
    default_hint = "start it, check its credentials, or give another --set storage.repository=…"
    try:
        registry = ModelRegistry(root)
        if registry.local and not registry.fs.isdir(registry.root):
            yield Finding(
                "model repository", "ok", f"none yet{'' if is_default else f' at {root}'}; the first run makes it"
            )
            return
        history = registry.history()
    except RanklineError as error:
        yield Finding("history", "fail", _error_summary(error), error.hint or default_hint)
        return
    except OSError as error:  # such as one who may not read
        yield Finding("history", "fail", f"{root}: {error}", default_hint)
        return
    summary = f"{len(history)} events, none missing" if history else "no event yet"
    yield Finding("history", "ok", summary if is_default else f"{root}: {summary}")
    serving = registry_state.champion(history)
    champion = serving.model_id if serving else ""
    yield _champion_file(registry, serving)
    if champion:
        try:
            with tempfile.TemporaryDirectory() as folder:  # one in a bucket is fetched to be looked at
                registry.bundle(champion, into=Path(folder))
            yield Finding("champion", "ok", f"{champion}: every byte is what its digests promise")
        except RanklineError as error:
            yield Finding("champion", "fail", f"{champion}: {_error_summary(error)}", error.hint or default_hint)
        with contextlib.suppress(RanklineError):
            catalogue = registry.manifest(champion).catalogue
            expected_catalogue = context.recipe.export.catalogue
            if catalogue != expected_catalogue:
                name = context.recipe.name
                summary = f"the {'workspace' if is_default else 'repository'} ranks {catalogue!r}, recipe {name} {expected_catalogue!r}"
                hint = f"-w {context.workspace}-{name}" if is_default else "--set storage.repository=… of its own"
                yield Finding("catalogue", "warn", summary, hint)
    yield _writable(registry)


def _champion_file(registry: Any, serving: Any) -> Finding:
    """champion.json against what the events add up to (None: nobody serves)."""
    from rankline.registry.registry_state import Champion

    stored = None
    with contextlib.suppress(OSError, ValueError):
        stored = Champion.model_validate_json(registry.fs.cat_file(f"{registry.root.rstrip('/')}/champion.json"))
    stored_id, champion = stored.model_id if stored else "", serving.model_id if serving else ""
    if stored == serving or (stored and serving and stored == serving.model_copy(update={"read_to": stored.read_to})):
        return Finding("champion.json", "ok", champion or "nobody serves yet")
    part = " with another catalogue, other hidden items or of another event" if stored_id == champion else ""
    message = f"it says {stored_id or 'nothing readable'}{part}, the events say {champion or 'nobody'}"
    return Finding("champion.json", "warn", message, "`rankline champion` writes it anew; whoever polls the file waits")


def _writable(registry: Any) -> Finding:
    """Events can be added; in a bucket, too, only by the first of two who write the same one."""
    from rankline.errors import RanklineError

    name, folder = "repository writable", f"{registry.root.rstrip('/')}/events"
    probe = f"{folder}/.rankline-doctor-{uuid.uuid4().hex}"
    try:
        if registry.local:
            Path(probe).write_bytes(b"x")
            Path(probe).unlink()
            return Finding(name, "ok", "events can be added")
        registry.fs.pipe_file(probe, b"x", mode="create")
        try:
            registry.fs.pipe_file(probe, b"y", mode="create")
            exclusive = False
        except FileExistsError:
            exclusive = True
        finally:
            registry.fs.rm_file(probe)
    except RanklineError as error:
        return Finding(name, "fail", _error_summary(error), error.hint or "mend the permissions of those credentials")
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


def _error_summary(error: Any) -> str:
    where = f" ({error.where})" if error.where else ""
    return f"{error.message}; found {error.found}{where}" if error.found else f"{error.message}{where}"
