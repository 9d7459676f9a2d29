"""One of several training processes: what torchrun runs.

On one machine `finetune.processes` starts them. On several machines, start this module with the same job file on each,
with Kubeflow Trainer or by hand: docs/training.md.

    torchrun --nnodes=2 --nproc-per-node=4 … -m components.finetune.torchrun JOB.json
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from components.finetune.config import FinetuneConfig
from components.finetune.step import finetune
from rankline.errors import RanklineError
from rankline.io import digest
from rankline.io.artifacts import DIGESTS_FILE
from rankline.io.files import write_json
from rankline.runtime.progress import Progress
from rankline.runtime.threads import limit_threads
from rankline.train.champion_weights import WarmStart

ERROR_FIELDS = ("message", "expected", "found", "where", "hint")


def _exit_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone, however it ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main(job: Path) -> int:
    """Train as the job file says, and write the result or the refusal; the exit code."""
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    limit_threads(processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    value = json.loads(job.read_text())
    result_folder, rank = Path(value["result_folder"]), int(os.environ.get("RANK", "0"))
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
            write_json(Path(value["teacher"]) / DIGESTS_FILE, digest.file_digests(Path(value["teacher"])))
        (result_folder / "result.json").write_text(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
