"""References: on a cluster an output that the cache holds travels as one small file, not through Kubeflow's own bucket.

    <output>/reference.json   which entry of the cache holds the files, and their digest

The step that reads it takes the files from the cache, and only if it has work to do.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rankline.contracts import FrozenModel
from rankline.errors import IntegrityError
from rankline.io.artifacts import declared_digest, verify_artifact
from rankline.io.files import read_json_object, write_json
from rankline.runtime.remote_cache import RemoteCache
from rankline.runtime.step_cache import StepCache

if TYPE_CHECKING:
    from rankline.runtime.run_context import RunContext

FILE = "reference.json"


class Reference(FrozenModel):
    """An output of a finished step in the cache."""

    step: str
    key: str  # the entry's name: the digest of the step's cache key
    output: str
    digest: str  # of the artifact


def write(path: Path, reference: Reference) -> None:
    """Put a reference in the place of an output."""
    shutil.rmtree(path, ignore_errors=True)
    write_json(path / FILE, reference.model_dump())


def read(path: Path) -> Reference | None:
    """The reference that is in the place of an artifact; None for an artifact."""
    content = read_json_object(path / FILE)
    return Reference.model_validate(content) if content else None


def output_digest(path: Path) -> str:
    """The declared digest of an artifact or of what a reference stands for."""
    reference = read(path)
    return declared_digest(path) if reference is None else reference.digest


def input_digest(path: Path) -> str:
    """The digest of an artifact whose files match their digests, or of what a reference stands for.

    Raises:
        IntegrityError: the artifact is incomplete, or a file of it has changed.
    """
    reference = read(path)
    return verify_artifact(path) if reference is None else reference.digest


def open_artifact(path: Path, run: RunContext) -> Path:
    """The folder of an artifact; where a reference is in its place that of the cache, downloaded and verified.

    Raises:
        IntegrityError: the cache does not have it.
    """
    reference = read(path)
    if reference is None:
        return path
    cache, warning = StepCache(run.cache_folder(reference.step)), ""
    if cache.get(reference.key) is None and run.storage.artifacts:
        warning = RemoteCache(run.storage.artifacts).fetch(reference.step, reference.key, cache.folder)
    entry = cache.get(reference.key)
    folder = cache.folder / reference.key / reference.output
    if entry is None or verify_artifact(folder) != reference.digest:
        raise IntegrityError(
            f"the cache no longer has the output {reference.output} of {reference.step}",
            expected=f"the entry {reference.key[:16]}",
            found=warning or ("another artifact" if entry else "no such entry"),
            where=run.storage.artifacts or str(cache.folder),
            hint="start a new run: it makes again what is missing",
        )
    return folder


def read_file(path: Path, name: str, run: RunContext) -> bytes:
    """One file of an artifact, without the others where a reference is in its place.

    Raises:
        FileNotFoundError: the artifact has no such file.
        IntegrityError: the cache does not have it.
    """
    reference = read(path)
    if reference is None:
        return (path / name).read_bytes()
    local = run.cache_folder(reference.step) / reference.key / reference.output / name
    if not local.is_file() and run.storage.artifacts:
        remote = RemoteCache(run.storage.artifacts)
        return remote.read_file(reference.step, reference.key, f"{reference.output}/{name}")
    return local.read_bytes()
