"""A slice of the demo's distillation alone and beside a busy process, with threads that spin and threads that sleep."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.quality import newest_output

WAITING = {"spin": {}, "sleep": {"OMP_WAIT_POLICY": "PASSIVE"}}  # spinning is the default of the library


def main() -> None:
    """Measure each way of waiting, with and without company, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, default=Path(".rankline"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--slice", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.slice:
        train(arguments.workspace, epochs=arguments.epochs)
        return
    lines = ["| threads that wait | beside | seconds | core-seconds |", "| --- | --- | --- | --- |"]
    for name, environment in WAITING.items():
        for others in (0, 1):
            with busy(others):
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.busy_core",
                    "--slice",
                    "--workspace",
                    str(arguments.workspace),
                ]
                command += ["--epochs", str(arguments.epochs)]
                measured = subprocess.run(
                    command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
                ).stdout.split()
            lines.append(f"| {name} | {'a busy process' if others else 'nothing'} | {measured[0]} | {measured[1]} |")
    print("\n".join(lines))


def train(workspace: Path, *, epochs: int) -> None:
    """Train the towers of the latest run for some epochs; print the seconds and the core-seconds."""
    import numpy as np
    import torch

    from components.distill import student
    from components.distill.config import DistillConfig
    from rankline.runtime.progress import Progress
    from rankline.train.examples import read_examples

    workspace = workspace.resolve()
    features = newest_output(workspace, "featurize", "features")
    teacher = newest_output(workspace, "finetune", "teacher")
    config = DistillConfig(epochs=epochs, evaluate_every=epochs)
    data, soft = read_examples(features, max_history=config.max_history), np.load(teacher / "soft.npz")
    torch.manual_seed(0)
    began, used = time.monotonic(), time.process_time()
    student._train_towers(teacher, data, soft, config, progress=Progress(), checkpoints=None)
    print(f"{time.monotonic() - began:.1f} {time.process_time() - used:.1f}")


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that use a core each."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


if __name__ == "__main__":
    main()
