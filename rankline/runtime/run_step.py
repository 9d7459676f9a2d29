"""What every door does around a step's work, in one place.

A door verifies the digests of what it is given, looks whether the same work was done before, cleans what a
killed attempt left behind, runs the step, publishes its outputs, writes the ledger and turns an error into
one kind message. Reuse is decided here, by rankline/runtime/step_cache.py, and not by Kubeflow's cache, whose key sees neither
imported code nor file contents (docs/decisions/0002-reuse-at-the-doors.md).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import inspect
import json
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from rankline.errors import IntegrityError, RanklineError, UsageError
from rankline.io import digest, disk
from rankline.io.storage import StorageConfig
from rankline.runtime import force_exit, ledger, memory
from rankline.runtime.progress import Progress
from rankline.runtime.remote_cache import RemoteCache, synced
from rankline.runtime.step_cache import (
    ALWAYS_RUNS,
    DIGESTS_FILE,
    StepCache,
    cache_key,
    declared_digest,
    link_or_copy,
    write_digests,
)

if TYPE_CHECKING:
    from rankline.model.bundle import Bundle


class RunContext:
    """Where a run keeps its ledger, and where its workspace keeps what earlier runs made."""

    def __init__(self, workspace: Path, run_id: str, storage: StorageConfig | None = None) -> None:
        run_dir = os.environ.get("RANKLINE_RUN_DIR")
        self.workspace, self.storage = workspace, storage or StorageConfig()
        self.folder = Path(run_dir) if run_dir else workspace / "runs" / run_id
        self.run_id = self.folder.name

    @classmethod
    def from_parameters(cls, run: dict[str, Any], job: str) -> RunContext:
        """The run a door was told of by the flow; ``job`` is Kubeflow's id of it.

        The id is a parameter of its own, since a cluster puts it in place of its placeholder only where that is
        a whole string, not inside of a dict.
        """
        return cls(Path(run["workspace"]), job, StorageConfig(**run.get("storage", {})))

    @property
    def repository(self) -> str:
        """The model repository: a folder or a URL."""
        return self.storage.repository or str(self.workspace / "repository")

    def bundle_folder(self, model_id: str) -> Path:
        """The folder of a model of the repository; one in a bucket is fetched into the workspace.

        Raises:
            RanklineError: it is not there, cannot be fetched, or is damaged.
        """
        from rankline.registry.model_registry import ModelRegistry

        models = ModelRegistry(self.repository)
        if models.local:
            return Path(models.root) / "bundles" / model_id
        return models.bundle(model_id, revision="", into=self.workspace / "fetched").folder

    def champion_bundle(self, model_id: str) -> Bundle:
        """The model that serves, with the catalogue that it serves over.

        Raises:
            UsageError: none does.
            RanklineError: it cannot be fetched, or is damaged.
        """
        from rankline.registry.model_registry import ModelRegistry

        if not model_id:
            raise UsageError(
                "nothing serves yet whose catalogue could be refreshed",
                expected="a champion",
                found="none",
                where=self.repository,
                hint="`rankline run` trains one and promotes it",
            )
        return ModelRegistry(self.repository).bundle(model_id, into=self.workspace / "fetched")

    def cache_folder(self, step: str) -> Path:
        """Where finished work of a step is kept for later runs."""
        return self.workspace / "cache" / step

    def checkpoints(self, step: str, key: str) -> Path:
        """Where a step keeps what lets a killed attempt go on; it outlives the run."""
        return self.workspace / "checkpoints" / step / key[:16]


StepFunction = Callable[..., dict[str, Any] | None]


def run_step(
    step: str,
    step_function: StepFunction,
    config: BaseModel,
    *,
    run: RunContext,
    inputs: dict[str, Path],
    outputs: dict[str, Path],
    code: tuple[str, ...] = (),
    lineage: dict[str, str] | Callable[[], dict[str, str]] | None = None,
    ignore_lineage: bool = False,
    preload: tuple[str, ...] = (),
    reuse: bool = True,
    fetched: Callable[[], dict[str, Any]] = dict,
    **extra: Any,
) -> dict[str, Any]:
    """Do a step's work once: reuse it where nothing changed, else run it and keep it.

    ``work`` is called as ``work(**inputs, **outputs, config=…, progress=…, **extra)`` with paths and returns
    a small JSON-able dict. ``heavy`` names libraries imported beforehand, so that their time is told apart
    from the step's own. ``lineage`` holds what else decides the outcome (a source digest, the champion), or finds
    that out; with ``any_lineage`` work that was done under another one is as good. ``fetched`` brings what only the
    work itself needs and may have to come from afar.

    Raises:
        SystemExit: with the one message of a step that failed; KFP shows it without a stack trace.
    """
    entry = ledger.Entry(step=step, status="running", started=time.time(), pid=os.getpid())
    start_time = time.monotonic()  # a clock may be set back while a step works
    guard = force_exit.ForceExit(lambda: _record_interruption(run, entry))
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        previous = ledger.read_entries(run.folder).get(step)
        ledger.reserve_space(run.folder)
        ledger.write_entry(run.folder, entry)
        entry.inputs = {name: _verify_input(path) for name, path in inputs.items()}
        resolved_lineage = lineage() if callable(lineage) else lineage or {}
        key = cache_key(step, config, run.workspace, inputs=entry.inputs, lineage=resolved_lineage, code=code)
        entry.key = digest.json_digest(key)
        if previous is not None and previous.final and previous.key == entry.key:
            raise _AlreadyRefused(previous)
        step_cache = StepCache(run.cache_folder(step))
        entry.why = step_cache.why(key) if reuse else ALWAYS_RUNS
        remote_cache, key_digest = RemoteCache(run.storage.artifacts) if run.storage.artifacts else None, entry.key
        if reuse and remote_cache is not None and step_cache.at(key_digest) is None:
            warning = remote_cache.fetch(step, key_digest, step_cache.folder)
            entry.why += f"; {warning}" if warning else ""
        if reuse and (cached := step_cache.find(key, ignore_lineage=ignore_lineage)) is not None:
            if damage := cached.find_damage(outputs):
                shutil.rmtree(cached.folder, ignore_errors=True)
                entry.why = damage
            else:
                _clear_outputs(outputs)
                for name, path in outputs.items():  # no room for it here is no fault of the copy
                    link_or_copy(cached.folder / name, path)
                entry.result, entry.status, entry.why = cached.result, "reused", cached.why
        if entry.status != "reused":
            ledger.write_entry(run.folder, entry)
            _clear_outputs(outputs)
            import_start = time.monotonic()
            for name in preload:
                importlib.import_module(name)
            entry.import_s = time.monotonic() - import_start
            extra |= fetched()
            checkpoint_sync: contextlib.AbstractContextManager[list[str]] = contextlib.nullcontext([])
            if "checkpoints" in inspect.signature(step_function).parameters:
                extra["checkpoints"] = run.checkpoints(step, key_digest)
                if run.storage.checkpoints:
                    checkpoint_sync = synced(
                        extra["checkpoints"], f"{run.storage.checkpoints}/{step}/{key_digest[:16]}"
                    )
            progress = Progress(run.folder / f"{step}.progress")
            work_start = time.monotonic()
            with checkpoint_sync as warnings, memory.explain_out_of_memory(step, config):
                entry.result = step_function(**inputs, **outputs, config=config, progress=progress, **extra) or {}
            entry.work_s = time.monotonic() - work_start
            entry.why = "; ".join([entry.why, *dict.fromkeys(warnings)])
            for path in outputs.values():
                write_digests(path)
            if reuse:
                step_cache.put(key, outputs, entry.result, run.run_id)
                if remote_cache is not None and (
                    warning := remote_cache.put(step, key_digest, step_cache.folder / key_digest)
                ):
                    entry.why += f"; {warning}"
            entry.status = "done"
        entry.outputs = {name: declared_digest(path) for name, path in outputs.items() if path.exists()}
        entry.paths = {name: str(path) for name, path in outputs.items()}
    except (Exception, KeyboardInterrupt) as error:
        if disk.no_space_message(error):
            _remove_partial_outputs(run, outputs)
            if not (isinstance(error, RanklineError) and " free" in str(error)):  # it says no more than that
                error = disk.no_space_error(error, (run.folder, *(path.parent for path in outputs.values())))
        entry.status, entry.error = "failed", _error_message(error, run, step)
        entry.exit_code = error.exit_code if isinstance(error, RanklineError) else 1
        entry.final = isinstance(error, RanklineError) and error.final
        sys.exit(entry.error)
    finally:
        entry.finished = entry.started + time.monotonic() - start_time
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        entry.peak_memory_bytes = 1024 * max(own.ru_maxrss, children.ru_maxrss)
        entry.core_s = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        with contextlib.suppress(OSError):  # not even room for that: the message is on its way to the runner's log
            ledger.release_space(run.folder)
            ledger.write_entry(run.folder, entry)
        guard.cancel()
    return entry.result


def _record_interruption(run: RunContext, entry: ledger.Entry) -> None:
    """The last words of a step that was told to end and could not, since a library did not come back."""
    entry.status, entry.exit_code, entry.finished = "failed", 1, time.time()
    entry.error = "it was interrupted in the middle of a library's work that never ended; run again to go on from here"
    print(entry.error, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        ledger.release_space(run.folder)
        ledger.write_entry(run.folder, entry)


class _AlreadyRefused(RanklineError):
    """What was refused in this run is refused again at once: a cluster tries whatever failed once more."""

    final = True

    def __init__(self, previous: ledger.Entry) -> None:
        super().__init__(previous.error)
        self.exit_code = previous.exit_code


def _remove_partial_outputs(run: RunContext, outputs: dict[str, Path]) -> None:
    """Take away what a step could not write to its end, so that it can be said why."""
    with contextlib.suppress(OSError):
        ledger.release_space(run.folder)
        for path in outputs.values():
            shutil.rmtree(path, ignore_errors=True)
            if path.is_file():
                path.unlink()


def _error_message(error: BaseException, run: RunContext, step: str) -> str:
    """The one message of an error; one nobody foresaw leaves its stack trace in a file beside the ledger."""
    if isinstance(error, RanklineError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted; run again to go on from here"
    trace = run.folder / f"{step}.traceback.txt"
    with contextlib.suppress(OSError):
        trace.write_text("".join(traceback.format_exception(error)))
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return str(
            RanklineError(
                "a file may not be written or read",
                expected=f"permission for the user that runs {step}",
                found=error.strerror or str(error),
                where=str(error.filename or trace),
                hint="give that permission, or take a --workspace on another disk",
            )
        )
    return f"an unforeseen {type(error).__name__}: {error}\n  where: {trace}"


def _verify_input(path: Path) -> str:
    """The digest of an input whose files are what its list says they are."""
    digests_file = path / DIGESTS_FILE
    if not digests_file.is_file():
        raise IntegrityError(
            "an input of this step is not complete",
            expected=f"a folder sealed with {DIGESTS_FILE}",
            found="no such file" if path.exists() else "no such folder",
            where=str(path),
            hint="run the flow again: the step that makes it will run first",
        )
    digest.verify(path, json.loads(digests_file.read_text()), hint="run the flow again: what is damaged is made anew")
    return declared_digest(path)


def _clear_outputs(outputs: dict[str, Path]) -> None:
    for path in outputs.values():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
