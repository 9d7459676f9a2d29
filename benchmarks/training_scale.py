"""How memory and time of the teacher's training grow with the number of items: `python -m benchmarks.training_scale`.

Made-up vectors and histories, the training loop alone (components/finetune/users.py), one process a size so that the
peak is its own. Beside the measured peak stands what the tables of the catalogue themselves take.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

TEXT, USERS, LENGTH, STEPS = 384, 640, 21, 20


def made(items: int) -> tuple[Any, Any]:
    """Examples of a made-up catalogue of ``items``, without the words; and its text vectors [I, T]."""
    import numpy as np
    import torch

    from rankline import examples, features

    rng = np.random.default_rng(0)
    histories = [rng.integers(0, items, LENGTH) for _ in range(USERS)]
    requests = examples.Requests(
        ids=[str(n) for n in range(USERS)],
        at=np.zeros(USERS),
        items_RL=np.stack([history[:-1] for history in histories]),
        ratings_RL=np.zeros((USERS, LENGTH - 1), np.int64),
        ages_RL=np.ones((USERS, LENGTH - 1), np.float32),
        lengths_R=np.full(USERS, LENGTH - 1),
        user_RF=np.zeros((USERS, len(features.USER)), np.float32),
        context_RF=np.zeros((USERS, len(features.CONTEXT)), np.float32),
        affinity=[{} for _ in range(USERS)],
        day_R=np.zeros(USERS, np.int64),
        targets=[history[-1:] for history in histories],
        target_ratings=[np.zeros(1, np.float32) for _ in range(USERS)],
        seen=[history[:-1] for history in histories],
        negatives=[np.zeros(0, np.int64) for _ in range(USERS)],
    )
    few = examples.Requests(**{name: value[:4] for name, value in vars(requests).items()})
    data = examples.Examples(
        item_ids=[str(n) for n in range(items)],
        index={},
        words=[],
        side_IS=np.zeros((items, 1), np.float32),
        categories_IC=np.zeros((items, 0), np.float32),
        vocabulary=[],
        sequences=examples.Sequences(
            items=histories,
            times=[np.arange(LENGTH, dtype=float)] * USERS,
            ratings=[np.zeros(LENGTH, np.int64)] * USERS,
        ),
        splits={"train": requests, "valid": few, "test": few},
        item_DIF=np.zeros((1, items, len(features.ITEM)), np.float32),
        summary={},
    )
    return data, torch.from_numpy(rng.standard_normal((items, TEXT), np.float32))


class Watch:
    """Progress that keeps the peak at the first step's end and at the last's, and the time between."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.peak = 0

    def phase(self, name: str) -> None:
        """Nothing to show."""

    def update(self, done: int, total: int, **numbers: float) -> None:
        """Note the moment."""
        self.began = self.began or time.time()
        self.ended, self.peak = time.time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measured(items: int, sampled: int) -> dict[str, float]:
    """Peak and time of an epoch of ``STEPS`` steps, in this process."""
    from types import SimpleNamespace

    import torch

    from components.finetune import users
    from components.finetune.config import FinetuneConfig
    from components.finetune.ranks import Ranks

    data, text_IT = made(items)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watch: Any = Watch()
    config = FinetuneConfig(epochs=1, sampled_items=sampled, batch_size=USERS // STEPS, max_history=LENGTH)
    users.train(
        data, SimpleNamespace(size=TEXT), None, text_IT, torch.from_numpy(data.side_IS),  # type: ignore[arg-type]
        config=config, seed=0, half=False, device=torch.device("cpu"), ranks=Ranks(), progress=watch, checkpoints=None,
    )  # fmt: skip
    end = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "items": items,
        "sampled": sampled,
        "data_mb": before / 1024,
        "loop_mb": (watch.peak - before) / 1024,
        "own_vectors_mb": 3 * items * config.vector_size * 4 / 2**20,
        "validation_mb": (end - watch.peak) / 1024,
        "step_s": (watch.ended - watch.began) / (STEPS - 1),
    }


def main() -> None:
    """A line a size, as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--sampled", type=int, nargs="*", default=[0, 2000])
    parser.add_argument("--whole-up-to", type=int, default=100_000, help="largest catalogue for the whole softmax")
    parser.add_argument("--one", nargs=2, type=int, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.one:
        print(json.dumps(measured(*told.one)))
        return
    print("| items | sampled | before, MB | the loop adds, MB | of it own vectors | validation adds, MB | s a step |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for sampled in told.sampled:
        for items in told.items:
            if not sampled and items > told.whole_up_to:
                continue
            command = [sys.executable, "-m", "benchmarks.training_scale", "--one", str(items), str(sampled)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"| {items:,} | {sampled or 'all'} | failed: {done.stderr.strip().splitlines()[-1]} |")
                continue
            row = json.loads(done.stdout.strip().splitlines()[-1])
            print(
                f"| {items:,} | {sampled or 'all'} | {row['data_mb']:,.0f} | {row['loop_mb']:,.0f} | "
                f"{row['own_vectors_mb']:,.0f} | {row['validation_mb']:,.0f} | {row['step_s']:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
