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
from rankline.runtime.remote_cache import Shelf, carried
from rankline.runtime.step_cache import ALWAYS, SUMS, Store, key_of, lay, promised, seal

if TYPE_CHECKING:
    from rankline.model.bundle import Bundle


class Run:
    """Where a run keeps its ledger, and where its workspace keeps what earlier runs made."""

    def __init__(self, workspace: Path, run_id: str, storage: StorageConfig | None = None) -> None:
        told = os.environ.get("RANKLINE_RUN_DIR")
        self.workspace, self.storage = workspace, storage or StorageConfig()
        self.folder = Path(told) if told else workspace / "runs" / run_id
        self.run_id = self.folder.name

    @classmethod
    def of(cls, run: dict[str, Any], job: str) -> Run:
        """The run a door was told of by the flow; ``job`` is Kubeflow's id of it.

        The id is a parameter of its own, since a cluster puts it in place of its placeholder only where that is
        a whole string, not inside of a dict.
        """
        return cls(Path(run["workspace"]), job, StorageConfig(**run.get("storage", {})))

    @property
    def repository(self) -> str:
        """The model repository: a folder or a URL."""
        return self.storage.repository or str(self.workspace / "repository")

    def bundle_of(self, model_id: str) -> Path:
        """The folder of a model of the repository; one in a bucket is fetched into the workspace.

        Raises:
            RanklineError: it is not there, cannot be fetched, or is damaged.
        """
        from rankline.registry.model_registry import Repository

        models = Repository(self.repository)
        if models.local:
            return Path(models.root) / "bundles" / model_id
        return models.bundle(model_id, revision="", into=self.workspace / "fetched").folder

    def served(self, model_id: str) -> Bundle:
        """The model that serves, with the catalogue that it serves over.

        Raises:
            UsageError: none does.
            RanklineError: it cannot be fetched, or is damaged.
        """
        from rankline.registry.model_registry import Repository

        if not model_id:
            raise UsageError(
                "nothing serves yet whose catalogue could be refreshed",
                expected="a champion",
                found="none",
                where=self.repository,
                hint="`rankline run` trains one and promotes it",
            )
        return Repository(self.repository).bundle(model_id, into=self.workspace / "fetched")

    def cache(self, step: str) -> Path:
        """Where finished work of a step is kept for later runs."""
        return self.workspace / "cache" / step

    def checkpoints(self, step: str, key: str) -> Path:
        """Where a step keeps what lets a killed attempt go on; it outlives the run."""
        return self.workspace / "checkpoints" / step / key[:16]


Work = Callable[..., dict[str, Any] | None]


def perform(
    step: str,
    work: Work,
    config: BaseModel,
    *,
    run: Run,
    inputs: dict[str, Path],
    outputs: dict[str, Path],
    code: tuple[str, ...] = (),
    lineage: dict[str, str] | Callable[[], dict[str, str]] | None = None,
    any_lineage: bool = False,
    heavy: tuple[str, ...] = (),
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
    opened = time.monotonic()  # a clock may be set back while a step works
    guard = force_exit.Watchdog(lambda: _cut_short(run, entry))
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        before = ledger.read(run.folder).get(step)
        ledger.reserve(run.folder)
        ledger.write(run.folder, entry)
        entry.inputs = {name: _verified(path) for name, path in inputs.items()}
        settled = lineage() if callable(lineage) else lineage or {}
        key = key_of(step, config, run.workspace, inputs=entry.inputs, lineage=settled, code=code)
        entry.key = digest.of_value(key)
        if before is not None and before.final and before.key == entry.key:
            raise _Again(before)
        store = Store(run.cache(step))
        entry.why = store.why(key) if reuse else ALWAYS
        shelf, kept_as = Shelf(run.storage.artifacts) if run.storage.artifacts else None, entry.key
        if reuse and shelf is not None and store.at(kept_as) is None:
            trouble = shelf.fetch(step, kept_as, store.folder)
            entry.why += f"; {trouble}" if trouble else ""
        if reuse and (kept := store.find(key, any_lineage=any_lineage)) is not None:
            if damage := kept.damage(outputs):
                shutil.rmtree(kept.folder, ignore_errors=True)
                entry.why = damage
            else:
                _clean(outputs)
                for name, path in outputs.items():  # no room for it here is no fault of the copy
                    lay(kept.folder / name, path)
                entry.result, entry.status, entry.why = kept.result, "reused", kept.why
        if entry.status != "reused":
            ledger.write(run.folder, entry)
            _clean(outputs)
            imported = time.monotonic()
            for name in heavy:
                importlib.import_module(name)
            entry.import_s = time.monotonic() - imported
            extra |= fetched()
            carrying: contextlib.AbstractContextManager[list[str]] = contextlib.nullcontext([])
            if "checkpoints" in inspect.signature(work).parameters:
                extra["checkpoints"] = run.checkpoints(step, kept_as)
                if run.storage.checkpoints:
                    carrying = carried(extra["checkpoints"], f"{run.storage.checkpoints}/{step}/{kept_as[:16]}")
            progress = Progress(run.folder / f"{step}.progress")
            began = time.monotonic()
            with carrying as troubles, memory.told(step, config):
                entry.result = work(**inputs, **outputs, config=config, progress=progress, **extra) or {}
            entry.work_s = time.monotonic() - began
            entry.why = "; ".join([entry.why, *dict.fromkeys(troubles)])
            for path in outputs.values():
                seal(path)
            if reuse:
                store.keep(key, outputs, entry.result, run.run_id)
                if shelf is not None and (trouble := shelf.keep(step, kept_as, store.folder / kept_as)):
                    entry.why += f"; {trouble}"
            entry.status = "done"
        entry.outputs = {name: promised(path) for name, path in outputs.items() if path.exists()}
        entry.paths = {name: str(path) for name, path in outputs.items()}
    except (Exception, KeyboardInterrupt) as error:
        if disk.lacking(error):
            _make_room(run, outputs)
            if not (isinstance(error, RanklineError) and " free" in str(error)):  # it says no more than that
                error = disk.full(error, (run.folder, *(path.parent for path in outputs.values())))
        entry.status, entry.error = "failed", _message(error, run, step)
        entry.exit_code = error.exit_code if isinstance(error, RanklineError) else 1
        entry.final = isinstance(error, RanklineError) and error.final
        sys.exit(entry.error)
    finally:
        entry.finished = entry.started + time.monotonic() - opened
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        entry.peak_memory_bytes = 1024 * max(own.ru_maxrss, children.ru_maxrss)
        entry.core_s = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        with contextlib.suppress(OSError):  # not even room for that: the message is on its way to the runner's log
            ledger.release(run.folder)
            ledger.write(run.folder, entry)
        guard.end()
    return entry.result


def _cut_short(run: Run, entry: ledger.Entry) -> None:
    """The last words of a step that was told to end and could not, since a library did not come back."""
    entry.status, entry.exit_code, entry.finished = "failed", 1, time.time()
    entry.error = "it was interrupted in the middle of a library's work that never ended; run again to go on from here"
    print(entry.error, file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        ledger.release(run.folder)
        ledger.write(run.folder, entry)


class _Again(RanklineError):
    """What was refused in this run is refused again at once: a cluster tries whatever failed once more."""

    final = True

    def __init__(self, before: ledger.Entry) -> None:
        super().__init__(before.error)
        self.exit_code = before.exit_code


def _make_room(run: Run, outputs: dict[str, Path]) -> None:
    """Take away what a step could not write to its end, so that it can be said why."""
    with contextlib.suppress(OSError):
        ledger.release(run.folder)
        for path in outputs.values():
            shutil.rmtree(path, ignore_errors=True)
            if path.is_file():
                path.unlink()


def _message(error: BaseException, run: Run, step: str) -> str:
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


def _verified(path: Path) -> str:
    """The digest of an input whose files are what its list says they are."""
    sums = path / SUMS
    if not sums.is_file():
        raise IntegrityError(
            "an input of this step is not complete",
            expected=f"a folder sealed with {SUMS}",
            found="no such file" if path.exists() else "no such folder",
            where=str(path),
            hint="run the flow again: the step that makes it will run first",
        )
    digest.verify(path, json.loads(sums.read_text()), hint="run the flow again: what is damaged is made anew")
    return promised(path)


def _clean(outputs: dict[str, Path]) -> None:
    for path in outputs.values():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
