"""Steps run in child processes of their own, which a test may kill at any moment."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

# one server imports torch once; every child is forked from it and starts at once
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    ["torch", "transformers.models.bert.modeling_bert", "safetensors.torch", "scipy.sparse", "pyarrow.parquet",
     "tokenizers", "rankline.model.networks"]
)  # fmt: skip


def _work(step: str, folders: dict[str, Path], output: Path, config: Any, checkpoints: Path, reported: Path) -> None:
    from rankline.runtime.progress import Progress

    work = getattr(importlib.import_module(f"components.{step}.step"), step)
    result = work(*folders.values(), output, config=config, progress=Progress(), checkpoints=checkpoints)
    reported.write_text(json.dumps(result))


def start(step: str, folders: dict[str, Path], output: Path, config: Any, *, scratch: Path) -> Any:
    """A child at work on a step, into an empty output folder as a door gives it; checkpoints are in ``scratch``."""
    shutil.rmtree(output, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    child = _PROCESSES.Process(
        target=_work, args=(step, folders, output, config, scratch / "checkpoints", scratch / "result.json")
    )
    child.start()
    return child


def killed_now_and_then(
    step: str, folders: dict[str, Path], output: Path, config: Any, *, scratch: Path, kills: int, seed: int
) -> tuple[dict[str, Any], int]:
    """Run a step and kill it again and again at random moments while it trains, then let it end.

    What the step returned at last, and how often it was killed before it came to its end.
    """
    chance = random.Random(seed)
    done = 0
    while True:
        before = _stored(scratch)
        child = start(step, folders, output, config, scratch=scratch)
        if done < kills:
            while child.is_alive() and _stored(scratch) == before:  # no epoch is finished yet
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.15))
            child.kill()
        child.join(120)
        if child.exitcode == 0:
            return json.loads((scratch / "result.json").read_text()), done
        assert child.exitcode == -signal.SIGKILL
        done += 1


def _stored(scratch: Path) -> set[str]:
    return {path.name for path in (scratch / "checkpoints").glob("*.pt")}


def files(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
