"""finetune by several processes: torchrun started from the step, and what each of its processes runs.

On one machine `finetune.processes` is all it takes. Over several machines whoever starts them (Kubeflow Trainer, or
torchrun by hand) runs this module with the same job file on each: docs/training.md.

    torchrun --nnodes=2 --nproc-per-node=4 … -m components.finetune.torchrun JOB.json
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from components.finetune.config import FinetuneConfig
from rankline import errors
from rankline.errors import RanklineError, TrainingError
from rankline.io import digest
from rankline.io.artifacts import DIGESTS_FILE
from rankline.runtime import ledger
from rankline.runtime.progress import Progress
from rankline.train.champion_weights import WarmStart

ERROR_FIELDS = ("message", "expected", "found", "where", "hint")


def launch_processes(
    features: Path,
    teacher: Path,
    *,
    config: FinetuneConfig,
    processes: int,
    progress: Progress,
    checkpoints: Path | None,
    start: WarmStart | None = None,
) -> dict[str, Any]:
    """Train with several processes on this machine; what the first of them returns.

    Raises:
        RanklineError: whatever one of them refuses.
        TrainingError: one of them died; the others were ended, and the next run goes on from the last epoch.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="rankline-torchrun-") as result_folder:
        scratch = Path(result_folder)
        job = scratch / "job.json"
        paths = {"features": features, "teacher": teacher, "checkpoints": checkpoints, "progress": progress.path}
        write_job(job, config=config, result_folder=scratch, seal=False, start=start, **paths)
        launch = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=scratch.name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            monitor_interval=0.2,
            logs_specs=DefaultLogsSpecs(log_dir=str(scratch / "logs"), redirects=Std.ALL),
        )
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # told below, once
        for name in ("multiprocessing.api", "agent.server.api"):
            logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
        try:
            elastic_launch(launch, sys.executable)("-m", "components.finetune.torchrun", str(job))
        except ChildFailedError as error:
            raise _launch_error(scratch, error.failures, processes) from error
        result: dict[str, Any] = json.loads((scratch / "result.json").read_text())
        return result


def write_job(
    path: Path,
    *,
    config: FinetuneConfig,
    result_folder: Path,
    seal: bool,
    start: WarmStart | None = None,
    **paths: Path | None,
) -> None:
    """The file that tells every process its work: settings, and the folders features, teacher, checkpoints, progress.

    Results and refusals are told in the folder ``told``. With ``seal`` the teacher is left as a door leaves it, so
    that the steps after it take it.
    """
    folders = {name: str(folder.absolute()) if folder else None for name, folder in paths.items()}
    value = {"config": config.model_dump(mode="json"), "told": str(result_folder.absolute()), "seal": seal, **folders}
    if start is not None:
        value["start"] = dataclasses.asdict(start)
    ledger.write_json(path, value)


def _launch_error(scratch: Path, failures: dict[int, Any], processes: int) -> RanklineError:
    """The one message of a failed launch: a refusal if there is one, else a killed process, else the unforeseen."""
    refusals = sorted(scratch.glob("refusal.*.json"), key=lambda path: path.stat().st_mtime_ns)
    if refusals:
        value = json.loads(refusals[0].read_text())
        error_type: type[RanklineError] = getattr(errors, value.pop("kind"))
        return error_type(value.pop("message"), **value)
    # a process that was killed makes the others fail, too: it is the one to name
    rank, failure = min(failures.items(), key=lambda each: (each[1].exitcode >= 0, each[1].timestamp))
    trace = scratch / f"trace.{rank}.txt"
    lines = trace.read_text().strip().splitlines() if trace.is_file() else []
    found = f"signal {-failure.exitcode}" if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    return TrainingError(
        f"training process {rank} of {processes} ended, and the others with it",
        expected=f"{processes} processes that train to the end",
        found=f"{found}: {lines[-1]}" if lines else found,
        hint="run again: training goes on from its last epoch. A signal 9 that nobody sent is the machine's out of "
        "memory: lower finetune.processes or finetune.batch_size",
    )


def _exit_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone, however that went."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main(job: Path) -> int:
    """One of the processes: train, and tell the result or the refusal."""
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    import torch

    from components.finetune.step import finetune

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    value = json.loads(job.read_text())
    result_folder, rank = Path(value["told"]), int(os.environ.get("RANK", "0"))
    result_folder.mkdir(parents=True, exist_ok=True)
    try:
        result = finetune(
            Path(value["features"]),
            Path(value["teacher"]),
            config=FinetuneConfig(**value["config"]),
            progress=Progress(Path(value["progress"]) if value["progress"] and not rank else None),
            checkpoints=Path(value["checkpoints"]) if value["checkpoints"] else None,
            start=WarmStart(**value["start"]) if "start" in value else None,
        )
    except RanklineError as error:
        refusal = {"kind": type(error).__name__, **{part: getattr(error, part) for part in ERROR_FIELDS}}
        (result_folder / f"refusal.{rank}.json").write_text(json.dumps(refusal))
        print(error, file=sys.stderr)
        return error.exit_code
    except Exception:
        (result_folder / f"trace.{rank}.txt").write_text(traceback.format_exc())
        raise
    if rank == 0:
        if value["seal"]:
            ledger.write_json(Path(value["teacher"]) / DIGESTS_FILE, digest.file_digests(Path(value["teacher"])))
        (result_folder / "result.json").write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
