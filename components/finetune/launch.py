"""Several training processes on this machine, started with torchrun."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from components.finetune.config import FinetuneConfig
from rankline import errors
from rankline.errors import RanklineError, TrainingError
from rankline.io.files import write_json
from rankline.train.champion_weights import WarmStart

ENTRY_POINT = "components.finetune.torchrun"
ELASTIC_LOGGERS = ("", ".multiprocessing.api", ".agent.server.api")


def launch_processes(
    *, config: FinetuneConfig, processes: int, start: WarmStart | None = None, **paths: Path | None
) -> dict[str, Any]:
    """Train with several processes on this machine; the result of the first one. `write_job` names the paths.

    Raises:
        RanklineError: one of them refused its inputs.
        TrainingError: one of them died. The others are stopped, and the next run resumes from the last epoch.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="rankline-torchrun-") as temporary:
        scratch = Path(temporary)
        job = scratch / "job.json"
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
        for name in ELASTIC_LOGGERS:  # the error below says it once
            logging.getLogger(f"torch.distributed.elastic{name}").setLevel(logging.CRITICAL)
        try:
            elastic_launch(launch, sys.executable)("-m", ENTRY_POINT, str(job))
        except ChildFailedError as error:
            raise launch_error(scratch, error.failures, processes) from error
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
    """Write the file that gives every process its settings and paths: features, teacher, checkpoints, progress.

    Args:
        result_folder: where the processes write their result, or why they refused.
        seal: write the teacher's digests, as a pipeline step leaves its outputs, so that later steps accept it.
    """
    value = {
        "config": config.model_dump(mode="json"),
        "result_folder": str(result_folder.absolute()),
        "seal": seal,
        **{name: str(path.absolute()) if path else None for name, path in paths.items()},
    }
    if start is not None:
        value["start"] = dataclasses.asdict(start)
    write_json(path, value)


def launch_error(scratch: Path, failures: dict[int, Any], processes: int) -> RanklineError:
    """The one error of a failed launch: a refusal if there is one, else a killed process, else an unforeseen error."""
    refusals = sorted(scratch.glob("refusal.*.json"), key=lambda path: path.stat().st_mtime_ns)
    if refusals:
        value = json.loads(refusals[0].read_text())
        error_type: type[RanklineError] = getattr(errors, value.pop("kind"))
        return error_type(value.pop("message"), **value)
    # a killed process makes the others fail as well: name the killed one
    rank, failure = min(failures.items(), key=lambda each: (each[1].exitcode >= 0, each[1].timestamp))
    trace = scratch / f"trace.{rank}.txt"
    lines = trace.read_text().strip().splitlines() if trace.is_file() else []
    ending = f"signal {-failure.exitcode}" if failure.exitcode < 0 else f"exit code {failure.exitcode}"
    return TrainingError(
        f"training process {rank} of {processes} ended, and the others with it",
        expected=f"{processes} processes that train to the end",
        found=f"{ending}: {lines[-1]}" if lines else ending,
        hint="run again: training resumes from its last epoch. A signal 9 that nobody sent means that the machine ran "
        "out of memory: lower finetune.processes or finetune.batch_size",
    )
