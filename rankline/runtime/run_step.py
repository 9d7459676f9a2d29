"""What surrounds a step's work: verify inputs, restore from the cache or execute, publish, keep the ledger.

Rankline decides about reuse itself (rankline/runtime/step_cache.py), since the key of Kubeflow's cache covers neither
imported code nor the contents of files (docs/decisions/0002-components-decide-reuse.md).
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rankline.errors import RanklineError
from rankline.io import digest, disk
from rankline.io.artifacts import link_or_copy, write_digests
from rankline.pod import advice
from rankline.runtime import force_exit, ledger, memory, pod_output, references, run_summary, step_log
from rankline.runtime.checkpoint_sync import synced
from rankline.runtime.lazy_imports import without_gc
from rankline.runtime.progress import Progress
from rankline.runtime.remote_cache import RemoteCache
from rankline.runtime.run_context import RunContext
from rankline.runtime.step_cache import ALWAYS_RUNS, CacheEntry, StepCache, cache_key
from rankline.runtime.threads import limit_threads

StepFunction = Callable[..., dict[str, Any] | None]


@dataclass(frozen=True)
class StepSpec:
    """One step of one run: its function, its settings, the artifacts it reads and writes, and when it is reused.

    The function is called as ``function(**inputs, **outputs, **arguments, config=…, progress=…)`` with paths, and
    returns a small JSON object.
    """

    name: str
    function: StepFunction
    config: BaseModel
    inputs: Mapping[str, Path] = field(default_factory=dict)
    outputs: Mapping[str, Path] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)  # not part of the cache key
    load_arguments: Callable[[], Mapping[str, Any]] = dict  # further ones, loaded only if the step executes
    lineage: Callable[[], Mapping[str, str]] = dict  # what decides the outcome besides settings, inputs and code
    ignore_lineage: Callable[[], bool] = bool  # whether a result of another lineage is as good
    after: Callable[[], object] = dict  # called once the outputs are there, of an execution or from a cache
    code: tuple[str, ...] = ()  # modules that decide the outcome besides the step's own
    preload: tuple[str, ...] = ()  # libraries imported beforehand, so that the ledger shows their time separately
    reuse: bool = True
    checkpoints: bool = False  # the function takes a folder ``checkpoints`` and resumes from what is in it


def run_step(spec: StepSpec, run: RunContext) -> dict[str, Any]:
    """Take a step's result from the cache, or execute the step and cache its result.

    Raises:
        SystemExit: the step failed; its message has no stack trace.
    """
    limit_threads()
    with _recorded(spec, run) as (entry, previous):
        _download_named_files(spec, run)
        entry.inputs = {name: references.input_digest(path) for name, path in spec.inputs.items()}
        key = cache_key(
            spec.name, spec.config, run.workspace, inputs=entry.inputs, lineage=spec.lineage(), code=spec.code
        )
        entry.key = digest.json_digest(key)
        if previous is not None and previous.final and previous.key == entry.key:
            raise _FailedBeforeError(previous)
        caches = _Caches(spec, run, key)
        if not (spec.reuse and caches.restore(entry)):
            entry.why = caches.reason
            ledger.write_entry(run.folder, entry)
            _execute(spec, run, entry)
            if spec.reuse:
                caches.publish(entry)
            entry.status = "done"
        entry.outputs = {name: references.output_digest(path) for name, path in spec.outputs.items() if path.exists()}
        entry.paths = {name: str(path) for name, path in spec.outputs.items()}
        spec.after()
    return entry.result


# -- the cache -------------------------------------------------------------------------------------------------


class _Caches:
    """The workspace's cache of a step and, where one is configured, the remote cache behind it."""

    def __init__(self, spec: StepSpec, run: RunContext, key: dict[str, Any]) -> None:
        self._spec, self._run, self._key, self._name = spec, run, key, digest.json_digest(key)
        self._local = StepCache(run.cache_folder(spec.name))
        self._remote = RemoteCache(run.storage.artifacts) if run.storage.artifacts else None
        self.reason = self._local.explain_miss(key, remote_latest=self._remote_latest) if spec.reuse else ALWAYS_RUNS

    def restore(self, entry: ledger.Entry) -> bool:
        """Put the outputs of a cached result in place; False, and the reason, where there is no whole one."""
        if self._remote is not None and self._local.get(self._name) is None:
            remote = self._find_remote(self._remote)
            if remote is not None and self._run.passes_references:
                self._refer(remote)
                entry.result, entry.status, entry.why = remote.result, "reused", remote.reason
                return True
            name = remote.folder.name if remote else self._name
            self._warn(self._remote.fetch(self._spec.name, name, self._local.folder))
        cached = self._local.find(self._key, ignore_lineage=self._spec.ignore_lineage())
        if cached is None:
            return False
        if damage := cached.find_damage(self._spec.outputs):
            shutil.rmtree(cached.folder, ignore_errors=True)
            self.reason = damage
            return False
        if self._run.passes_references:
            self._refer(cached)
        else:
            _clear(self._spec.outputs)
            for name, path in self._spec.outputs.items():  # a disk that is full here does not make the entry damaged
                link_or_copy(cached.folder / name, path)
        entry.result, entry.status, entry.why = cached.result, "reused", cached.reason
        return True

    def publish(self, entry: ledger.Entry) -> None:
        """Add the result of an execution to the caches; a remote cache that fails costs a warning.

        Where the outputs travel as references, those and the result are of the entry that the caches hold, which may
        be another run's.
        """
        warning = ""
        with self._local.adding(self._key, self._spec.outputs, entry.result, self._run.run_id) as own:
            if self._remote is not None:
                warning = self._remote.put(self._spec.name, self._name, own.folder)
                if self._run.passes_references and not warning:
                    warning = self._fetch_other(self._remote, own)
        entry.why += f"; {warning}" if warning else ""
        cached = self._local.get(self._name)
        if self._run.passes_references and cached is not None and not warning:
            if cached.files != own.files:
                entry.why += "; another run has finished it meanwhile, and that result is used"
            entry.result = cached.result
            self._refer(cached)

    def _fetch_other(self, remote: RemoteCache, own: CacheEntry) -> str:
        """Let another run's entry that was first in the remote cache take the place of ours in the workspace's.

        Returns why it cannot be used, empty unless something went wrong.
        """
        first = remote.get(self._spec.name, self._name)
        if first is None:
            return "the entry in the remote cache cannot be read"
        return "" if first.files == own.files else remote.fetch(self._spec.name, self._name, self._local.folder)

    def _refer(self, cached: CacheEntry) -> None:
        """Put references to a cached result in the place of the outputs."""
        for name, path in self._spec.outputs.items():
            key, sha256 = cached.folder.name, cached.declared_digest(name)
            references.write(path, references.Reference(step=self._spec.name, key=key, output=name, digest=sha256))

    def _find_remote(self, remote: RemoteCache) -> CacheEntry | None:
        """The entry in the remote cache, where it matters before its files are downloaded."""
        ignore_lineage = self._spec.ignore_lineage()
        if not (ignore_lineage or self._run.passes_references):
            return None
        return remote.find(self._spec.name, self._key, ignore_lineage=ignore_lineage)

    def _remote_latest(self) -> CacheEntry | None:
        return None if self._remote is None else self._remote.latest(self._spec.name)

    def _warn(self, warning: str) -> None:
        self.reason += f"; {warning}" if warning else ""


def _download_named_files(spec: StepSpec, run: RunContext) -> None:
    """Download what the settings name below a workspace in a bucket, such as a source."""
    if run.bucket is not None:
        for name in run.bucket.named_files(spec.config.model_dump(mode="json")):
            run.bucket.download(name)


def _upload_named_files(spec: StepSpec, run: RunContext) -> None:
    """Upload what the step has downloaded from elsewhere to a place that its settings name, such as an encoder."""
    if run.bucket is not None:
        for name in run.bucket.named_files(spec.config.model_dump(mode="json")):
            run.bucket.upload_missing(name)


# -- the work --------------------------------------------------------------------------------------------------


def _execute(spec: StepSpec, run: RunContext, entry: ledger.Entry) -> None:
    """Call the step's function and seal its outputs with their digests."""
    _clear(spec.outputs)
    import_start = time.monotonic()
    with without_gc():
        for name in spec.preload:
            importlib.import_module(name)
    entry.import_s = time.monotonic() - import_start
    inputs = {name: references.open_artifact(path, run) for name, path in spec.inputs.items()}
    arguments = {**inputs, **spec.outputs, **spec.arguments, **spec.load_arguments()}
    progress = Progress(run.folder / f"{spec.name}.progress")
    with _checkpoints(spec, run, entry.key) as (checkpoint_arguments, warnings):
        arguments |= checkpoint_arguments
        work_start = time.monotonic()
        with memory.explain_out_of_memory(spec.name, spec.config):
            entry.result = spec.function(**arguments, config=spec.config, progress=progress) or {}
    entry.work_s = time.monotonic() - work_start
    _upload_named_files(spec, run)
    entry.why = "; ".join([entry.why, *dict.fromkeys(warnings)])
    for path in spec.outputs.values():
        write_digests(path)


@contextlib.contextmanager
def _checkpoints(spec: StepSpec, run: RunContext, key: str) -> Iterator[tuple[dict[str, Path], list[str]]]:
    """The argument ``checkpoints`` of a step that takes it, and the warnings of the copying to a bucket."""
    if not spec.checkpoints:
        yield {}, []
        return
    folder = run.checkpoint_folder(spec.name, key)
    if not run.storage.checkpoints:
        yield {"checkpoints": folder}, []
        return
    with synced(folder, f"{run.storage.checkpoints}/{spec.name}/{folder.name}") as warnings:
        yield {"checkpoints": folder}, warnings


def _clear(outputs: Mapping[str, Path]) -> None:
    """Remove what a killed attempt left of the outputs."""
    for path in outputs.values():
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)


# -- the ledger and the errors ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _recorded(spec: StepSpec, run: RunContext) -> Iterator[tuple[ledger.Entry, ledger.Entry | None]]:
    """Keep the step's ledger entry and its log while the block runs; an error ends the process with one message.

    Yields the entry, and that of an earlier attempt in the same run.
    """
    entry = ledger.Entry(step=spec.name, status="running", started=time.time(), pid=os.getpid())
    start_time = time.monotonic()  # unlike time.time() it is never set back
    core_s_before = _core_s()  # of the steps before it in the same pod
    guard = force_exit.ForceExit(lambda: _record_forced_exit(run, entry))
    previous: ledger.Entry | None = None
    log = step_log.log_path(run.folder, spec.name)
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        run.download_run()
        run_summary.begin(run.folder, run.names)
        previous = ledger.read_entries(run.folder).get(spec.name)
        if previous is not None:
            entry.continue_from(previous)
        ledger.reserve_space(run.folder)
        ledger.write_entry(run.folder, entry)
        pod_output.print_start(spec.name)
        with step_log.recorded(log), run.uploading():
            yield entry, previous
    except (Exception, KeyboardInterrupt) as error:
        _record_failure(error, spec, run, entry)
        step_log.append(log, entry.error)
        sys.exit(entry.error)
    finally:
        _record_usage(entry, seconds=time.monotonic() - start_time)
        entry.core_s = _core_s() - core_s_before
        if previous is not None:
            entry.why = "; ".join(filter(None, [entry.why, ledger.begun_again(entry, previous)]))
        with contextlib.suppress(OSError):  # the disk is full even for this; the message reaches the console
            ledger.release_space(run.folder)
            ledger.write_entry(run.folder, entry)
            if ended := run_summary.complete_retried(run.folder):
                run.announce_end(ended)
        run.upload_run()
        pod_output.print_result(entry)
        guard.cancel()


def _record_usage(entry: ledger.Entry, *, seconds: float) -> None:
    entry.finished = entry.started + seconds
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    entry.peak_memory_bytes = 1024 * max(own.ru_maxrss, children.ru_maxrss)


def _core_s() -> float:
    """The CPU time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def _record_failure(error: BaseException, spec: StepSpec, run: RunContext, entry: ledger.Entry) -> None:
    if disk.no_space_message(error):
        _remove_partial_outputs(run, spec.outputs)
        error = disk.explain_no_space(error, (run.folder, *(path.parent for path in spec.outputs.values())))
    entry.status, entry.error = "failed", _error_message(error, run, spec.name)
    if isinstance(error, RanklineError):
        entry.exit_code, entry.final = error.exit_code, error.final
    else:
        entry.exit_code = 1


def _record_forced_exit(run: RunContext, entry: ledger.Entry) -> None:
    """Record a step that a signal could not stop, since a library did not return."""
    entry.status, entry.exit_code, entry.finished = "failed", 1, time.time()
    entry.error = "it was interrupted during a library call that did not return; run again to continue from here"
    print(entry.error, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        ledger.release_space(run.folder)
        ledger.write_entry(run.folder, entry)
    run.upload_run()
    pod_output.print_result(entry)


class _FailedBeforeError(RanklineError):
    """The step failed in this run for good: every later attempt of Kubeflow fails at once, with the same message."""

    final = True

    def __init__(self, previous: ledger.Entry) -> None:
        super().__init__(previous.error)
        self.exit_code = previous.exit_code


def _remove_partial_outputs(run: RunContext, outputs: Mapping[str, Path]) -> None:
    """Free the space that the message about a full disk needs."""
    with contextlib.suppress(OSError):
        ledger.release_space(run.folder)
        for path in outputs.values():
            shutil.rmtree(path, ignore_errors=True)
            if path.is_file():
                path.unlink()


def _error_message(error: BaseException, run: RunContext, step: str) -> str:
    """The one message of an error; an unexpected one leaves its stack trace beside the ledger."""
    if isinstance(error, RanklineError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted; run again to continue from here"
    trace = run.folder / f"{step}.traceback.txt"
    with contextlib.suppress(OSError):
        trace.write_text("".join(traceback.format_exception(error)))
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return str(
            RanklineError(
                "a file may not be read or written",
                expected=f"permission for the user that runs {step}",
                found=error.strerror or str(error),
                where=str(error.filename or trace),
                hint="grant the permission, or use "
                + advice(on_one_machine="a --workspace on another disk", on_a_cluster="another claim (cluster.volume)"),
            )
        )
    return f"unexpected {type(error).__name__}: {error}\n  where: {trace}"
