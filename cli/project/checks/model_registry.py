"""The model registry: the workspace's own, another folder, or a bucket."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.project.checks.model import CheckContext, Finding

if TYPE_CHECKING:
    from rankline.errors import RanklineError
    from rankline.registry.model_registry import ModelRegistry
    from rankline.registry.registry_state import Champion

UNREACHABLE_HINT = "start it, check its credentials, or use another --set storage.repository=…"


def repository(context: CheckContext) -> Iterator[Finding]:
    """The history is complete, champion.json agrees with it, the champion is intact, and events can be added."""
    from rankline.errors import RanklineError, StorageError
    from rankline.registry import registry_state
    from rankline.registry.model_registry import ModelRegistry

    root, is_default = context.repository, not context.recipe.storage.repository
    try:
        registry = ModelRegistry(root)
        if registry.local and not registry.fs.isdir(registry.root):
            place = "" if is_default else f" at {root}"
            yield Finding("model registry", "ok", f"none yet{place}; the first run creates it")
            return
        history = registry.history()
    except RanklineError as error:
        status = context.unreachable if isinstance(error, StorageError) else "fail"
        yield Finding("history", status, _error_summary(error), error.hint or UNREACHABLE_HINT)
        return
    except OSError as error:  # such as missing permissions
        yield Finding("history", "fail", f"{root}: {error}", UNREACHABLE_HINT)
        return
    summary = f"{len(history)} events, none missing" if history else "no event yet"
    yield Finding("history", "ok", summary if is_default else f"{root}: {summary}")
    champion = registry_state.champion(history)
    yield _champion_file(registry, champion)
    if champion:
        yield _champion_bundle(registry, champion.model_id)
        yield from _catalogue(context, registry, champion.model_id, is_default=is_default)
    yield _writable(registry)


def _champion_bundle(registry: ModelRegistry, model_id: str) -> Finding:
    from rankline.errors import RanklineError

    try:
        with tempfile.TemporaryDirectory() as folder:  # a bundle in a bucket is downloaded
            registry.bundle(model_id, into=Path(folder))
    except RanklineError as error:
        return Finding("champion", "fail", f"{model_id}: {_error_summary(error)}", error.hint or UNREACHABLE_HINT)
    return Finding("champion", "ok", f"{model_id}: every file has the expected digest")


def _catalogue(context: CheckContext, registry: ModelRegistry, model_id: str, *, is_default: bool) -> Iterator[Finding]:
    """The champion ranks the catalogue that the recipe is about."""
    from rankline.errors import RanklineError

    with contextlib.suppress(RanklineError):
        catalogue, expected = registry.manifest(model_id).catalogue, context.recipe.export.catalogue
        if catalogue != expected:
            name, where = context.recipe.name, "workspace" if is_default else "repository"
            hint = f"-w {context.workspace}-{name}" if is_default else "--set storage.repository=… of its own"
            yield Finding("catalogue", "warn", f"the {where} ranks {catalogue!r}, recipe {name} {expected!r}", hint)


def _champion_file(registry: ModelRegistry, champion: Champion | None) -> Finding:
    """champion.json against the champion that the events add up to."""
    from rankline.registry.registry_state import Champion

    stored = None
    with contextlib.suppress(OSError, ValueError):
        stored = Champion.model_validate_json(registry.fs.cat_file(f"{registry.root.rstrip('/')}/champion.json"))
    stored_id, model_id = stored.model_id if stored else "", champion.model_id if champion else ""
    if stored and champion:
        is_current = stored == champion.model_copy(update={"read_to": stored.read_to})
    else:
        is_current = stored == champion
    if is_current:
        return Finding("champion.json", "ok", model_id or "no champion yet")
    part = " with another catalogue, other hidden items or of another event" if stored_id == model_id else ""
    message = f"it says {stored_id or 'nothing readable'}{part}, the events say {model_id or 'no champion'}"
    hint = "`rankline champion` writes it again; servers that poll the file wait until then"
    return Finding("champion.json", "warn", message, hint)


def _writable(registry: ModelRegistry) -> Finding:
    """Events can be added; a bucket has to accept only the first of two writes of the same event."""
    from rankline.errors import RanklineError

    name, folder = "repository writable", f"{registry.root.rstrip('/')}/events"
    probe = f"{folder}/.rankline-doctor-{uuid.uuid4().hex}"
    try:
        if registry.local:
            Path(probe).write_bytes(b"x")
            Path(probe).unlink()
            return Finding(name, "ok", "events can be added")
        is_exclusive = creates_exclusively(registry.fs, probe)
    except RanklineError as error:
        return Finding(name, "fail", _error_summary(error), error.hint or "fix the permissions of those credentials")
    except FileNotFoundError:
        hint = "create the bucket, or use another --set storage.repository=…"
        return Finding(name, "fail", f"{folder}: no such bucket or folder", hint)
    except OSError as error:
        return Finding(name, "fail", f"{folder}: {error.strerror or error}", "free some space, or fix the permissions")
    if not is_exclusive:
        hint = "use a store with conditional writes (If-None-Match); here two runs at once could both promote"
        return Finding(name, "fail", f"{folder}: a second write replaces an existing file instead of failing", hint)
    return Finding(name, "ok", "events can be added, each once")


def creates_exclusively(fs: Any, probe: str) -> bool:
    """Whether a store accepts only the first of two writes of the file ``probe``, which is removed again."""
    fs.pipe_file(probe, b"x", mode="create")
    try:
        fs.pipe_file(probe, b"y", mode="create")
        return False
    except FileExistsError:
        return True
    finally:
        fs.rm_file(probe)


def _error_summary(error: RanklineError) -> str:
    where = f" ({error.where})" if error.where else ""
    return f"{error.message}; found {error.found}{where}" if error.found else f"{error.message}{where}"
