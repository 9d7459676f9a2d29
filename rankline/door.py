"""What every door does around a step's work, in one place.

A door verifies the digests of what it is given, looks whether the same work was done before, cleans what a
killed attempt left behind, runs the step, publishes its outputs, writes the ledger and turns an error into
one kind message. Reuse is decided here and not by Kubeflow's cache, whose key sees neither imported code
nor file contents (docs/decisions/0002-reuse-at-the-doors.md).
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import resource
import shutil
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rankline import digest, ledger
from rankline.contracts import replaced
from rankline.errors import IntegrityError, RanklineError
from rankline.progress import Progress

# work done with other versions of these is done again
LIBRARIES = (
    "duckdb", "faiss-cpu", "feast", "great-expectations", "numpy", "onnx", "onnxruntime-gpu", "onnxscript",
    "pandas", "pyarrow", "scipy", "tokenizers", "torch", "transformers",
)  # fmt: skip
SUMS = "files.json"  # in every artifact folder: relative path -> sha256 of its other files


class Run:
    """Where a run keeps its ledger, and where its workspace keeps what earlier runs made."""

    def __init__(self, workspace: Path, run_id: str) -> None:
        told = os.environ.get("RANKLINE_RUN_DIR")
        self.workspace = workspace
        self.folder = Path(told) if told else workspace / "runs" / run_id
        self.run_id = self.folder.name

    @classmethod
    def of(cls, run: dict[str, str], job: str) -> Run:
        """The run a door was told of by the flow; ``job`` is Kubeflow's id of it.

        The id is a parameter of its own, since a cluster puts it in place of its placeholder only where that is
        a whole string, not inside of a dict.
        """
        return cls(Path(run["workspace"]), job)

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
    lineage: dict[str, str] | None = None,
    any_lineage: bool = False,
    heavy: tuple[str, ...] = (),
    reuse: bool = True,
    **extra: Any,
) -> dict[str, Any]:
    """Do a step's work once: reuse it where nothing changed, else run it and keep it.

    ``work`` is called as ``work(**inputs, **outputs, config=…, progress=…, **extra)`` with paths and returns
    a small JSON-able dict. ``heavy`` names libraries imported beforehand, so that their time is told apart
    from the step's own. ``lineage`` holds what else decides the outcome (a source digest, the champion);
    with ``any_lineage`` work that was done under another one is as good.

    Raises:
        SystemExit: with the one message of a step that failed; KFP shows it without a stack trace.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    entry = ledger.Entry(step=step, status="running", started=time.time(), pid=os.getpid())
    ledger.write(run.folder, entry)
    try:
        entry.inputs = {name: _verified(path) for name, path in inputs.items()}
        key = {
            "config": _told(config, run),
            "code": digest.of_code(f"components.{step_room(step)}.step", *code),
            "inputs": entry.inputs,
            "lineage": lineage or {},
            "libraries": _versions(),
        }
        store = run.cache(step)
        entry.why = _why(store, key) if reuse else "it always runs"
        if reuse and (kept := _kept(store, key, any_lineage=any_lineage)) is not None:
            damage = _take(kept, outputs)
            if damage is None:
                entry.result, entry.status = kept["result"], "reused"
                entry.why = f"unchanged since run {kept['run']}"
            else:
                entry.why = damage
        if entry.status != "reused":
            ledger.write(run.folder, entry)
            _clean(outputs)
            imported = time.time()
            for name in heavy:
                importlib.import_module(name)
            entry.import_s = time.time() - imported
            if "checkpoints" in inspect.signature(work).parameters:
                extra["checkpoints"] = run.checkpoints(step, digest.of_value(key))
            progress = Progress(run.folder / f"{step}.progress")
            began = time.time()
            entry.result = work(**inputs, **outputs, config=config, progress=progress, **extra) or {}
            entry.work_s = time.time() - began
            for path in outputs.values():
                _seal(path)
            if reuse:
                _keep(store, key, outputs, entry.result, run.run_id)
            entry.status = "done"
        entry.outputs = {name: _promised(path) for name, path in outputs.items() if path.exists()}
        entry.paths = {name: str(path) for name, path in outputs.items()}
    except (Exception, KeyboardInterrupt) as error:
        entry.status, entry.error = "failed", _message(error, run, step)
        entry.exit_code = error.exit_code if isinstance(error, RanklineError) else 1
        sys.exit(entry.error)
    finally:
        entry.finished = time.time()
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        entry.peak_memory_bytes = 1024 * max(own.ru_maxrss, children.ru_maxrss)
        entry.core_s = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        ledger.write(run.folder, entry)
    return entry.result


def _told(config: BaseModel, run: Run) -> dict[str, Any]:
    """A step's settings wherever the workspace lies: one that was moved keeps what it holds."""
    told: dict[str, Any] = replaced(config.model_dump(mode="json"), str(run.workspace), "{workspace}")
    return told


def step_room(step: str) -> str:
    """The folder a step lives in: `decide` shares a room with `promote`."""
    return "promote" if step == "decide" else step


def _message(error: BaseException, run: Run, step: str) -> str:
    """The one message of an error; one nobody foresaw leaves its stack trace in a file beside the ledger."""
    if isinstance(error, RanklineError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "it was interrupted; run again to go on from here"
    trace = run.folder / f"{step}.traceback.txt"
    trace.write_text("".join(traceback.format_exception(error)))
    return f"an unforeseen {type(error).__name__}: {error}\n  where: {trace}"


def _seal(path: Path) -> None:
    if path.is_dir():
        ledger.write_json(path / SUMS, digest.of_files(path))


def _promised(path: Path) -> str:
    """The digest an artifact claims for itself."""
    sums = path / SUMS if path.is_dir() else None
    return digest.of_value(json.loads(sums.read_text())) if sums and sums.is_file() else digest.of_tree(path)


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
    return _promised(path)


def _clean(outputs: dict[str, Path]) -> None:
    for path in outputs.values():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has no such thing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _link_tree(source: Path, target: Path) -> None:
    if source.is_file():
        _link(source, target)
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in source.rglob("*"):
        if path.is_file():
            _link(path, target / path.relative_to(source))


def _keep(store: Path, key: dict[str, Any], outputs: dict[str, Path], result: dict[str, Any], run_id: str) -> None:
    """Keep finished work under its key; the rename makes it visible whole or not at all."""
    name = digest.of_value(key)
    partial, final = store / f".{name}.{uuid.uuid4().hex}", store / name
    files = {}
    for output, path in outputs.items():
        _link_tree(path, partial / output)
        files[output] = digest.of_files(path)
    ledger.write_json(partial / "entry.json", {"key": key, "result": result, "files": files, "run": run_id})
    if _entry(final) is None:
        shutil.rmtree(final, ignore_errors=True)
    try:
        os.replace(partial, final)
    except OSError:  # another run has just kept the same work
        shutil.rmtree(partial)
    ledger.write_json(store / "latest.json", {"name": name})


def _kept(store: Path, key: dict[str, Any], *, any_lineage: bool) -> dict[str, Any] | None:
    exact = _entry(store / digest.of_value(key))
    if exact is not None or not any_lineage:
        return exact
    wanted = digest.of_value({**key, "lineage": {}})
    entries = (_entry(folder) for folder in sorted(store.glob("[!.]*/"), key=lambda each: -each.stat().st_mtime))
    return next((e for e in entries if e and digest.of_value({**e["key"], "lineage": {}}) == wanted), None)


def _entry(folder: Path) -> dict[str, Any] | None:
    try:
        value = json.loads((folder / "entry.json").read_text())
    except (OSError, ValueError):
        return None
    return {**value, "folder": folder} if {"key", "result", "files", "run"} <= set(value) else None


def _take(kept: dict[str, Any], outputs: dict[str, Path]) -> str | None:
    """Lay kept outputs where this run expects them; say what is wrong with them if they cannot be used."""
    _clean(outputs)
    try:
        for name, path in outputs.items():
            source = kept["folder"] / name
            if source.is_file():
                digest.verify(source.parent, {name: next(iter(kept["files"][name].values()))}, hint="")
            else:
                digest.verify(source, kept["files"][name], hint="")
            _link_tree(source, path)
    except (IntegrityError, OSError, KeyError, StopIteration) as error:
        shutil.rmtree(kept["folder"], ignore_errors=True)
        return f"the kept copy was damaged ({str(error).splitlines()[0]})"
    return None


def _versions() -> dict[str, str]:
    """The versions of the libraries that shape artifacts; an image need not hold all of them."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _why(store: Path, key: dict[str, Any]) -> str:
    """What is different from the last time this step ran."""
    try:
        latest = _entry(store / json.loads((store / "latest.json").read_text())["name"])
    except (OSError, ValueError, KeyError):
        latest = None
    if latest is None:
        return "it has not run in this workspace before"
    changed = []
    for part in ("config", "inputs", "lineage", "libraries"):
        before, now = latest["key"].get(part, {}), key[part]
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        if part == "config":
            changed += [f"{name}: {before.get(name)} -> {now.get(name)}" for name in names]
        else:
            changed += [f"{name} changed" for name in names]
    if latest["key"]["code"] != key["code"]:
        changed.append("code changed")
    return "; ".join(changed) or "its kept copy is gone"
