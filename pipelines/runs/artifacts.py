"""The outputs of a finished step: in the run's folder, else in the workspace's cache, else in the remote one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rankline.errors import RanklineError
from rankline.io.artifacts import DIGESTS_FILE, declared_digest, verify_artifact
from rankline.runtime import ledger, references
from rankline.runtime.remote_cache import RemoteCache
from rankline.runtime.run_context import RunContext
from rankline.runtime.step_cache import StepCache


def find_output(runs: Iterable[str], step: str, output: str, context: RunContext) -> Path | None:
    """An output that one of these runs has made or reused, whole; None where it is gone.

    ``context`` is that of any run of the workspace.
    """
    for run in runs:
        context.download(f"runs/{run}")
        entry = ledger.read_entries(context.workspace / "runs" / run).get(step)
        if entry is None or entry.status not in ("done", "reused"):
            continue
        for folder in _folders(entry, output, context):
            if _is_whole(folder, entry.outputs.get(output, "")):
                return folder
    return None


def _folders(entry: ledger.Entry, output: str, context: RunContext) -> Iterable[Path]:
    """Where an output may be, the nearest first; what is only in the remote cache is downloaded."""
    path = Path(entry.paths.get(output, ""))
    if output in entry.paths and references.read(path) is None:
        yield path
    cache = StepCache(context.cache_folder(entry.step))
    yield cache.folder / entry.key / output
    if context.storage.artifacts and entry.key and cache.get(entry.key) is None:
        RemoteCache(context.storage.artifacts).fetch(entry.step, entry.key, cache.folder)
        yield cache.folder / entry.key / output
    # an entry of another lineage has another key and may have the same outputs
    yield from sorted(cache.folder.glob(f"[!.]*/{output}"))


def _is_whole(folder: Path, expected: str) -> bool:
    """Whether a folder is the artifact with this digest."""
    try:
        listed = (folder / DIGESTS_FILE).is_file() and declared_digest(folder) == expected
        return listed and verify_artifact(folder) == expected
    except (RanklineError, OSError, ValueError):
        return False
