"""How memory and time of training grow with the items and with the examples: `python -m benchmarks.training_scale`.

It runs the training loops alone on synthetic vectors, histories and queries: the teacher of
components/finetune/sequence/model.py, and the towers of components/distill/towers_trainer.py with a query in every
request. Each row is measured in a process of its own. The table shows how much of the peak the item embeddings with
their copies take. Time is in core-seconds, which other load on the machine affects less.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

TEXT, USERS, LENGTH, BATCH, SOFT, DEVICE = 384, 640, 21, 32, 64, "cpu"
LOOPS = ("teacher", "towers")


def make_data(items: int, users: int, *, query: str) -> tuple[Any, Any]:
    """Examples of a synthetic catalogue of ``items`` without texts, and its text vectors [I, T]."""
    import numpy as np
    import torch

    from rankline.features import transforms
    from rankline.train import examples

    rng = np.random.default_rng(0)
    histories = [rng.integers(0, items, LENGTH) for _ in range(users)]
    requests = examples.Requests(
        ids=[str(n) for n in range(users)],
        queries=[query] * users,
        at=np.zeros(users),
        items_RL=np.stack([history[:-1] for history in histories]),
        ratings_RL=np.zeros((users, LENGTH - 1), np.int64),
        ages_RL=np.ones((users, LENGTH - 1), np.float32),
        lengths_R=np.full(users, LENGTH - 1),
        user_RF=np.zeros((users, len(transforms.USER)), np.float32),
        context_RF=np.zeros((users, len(transforms.CONTEXT)), np.float32),
        affinity=[{} for _ in range(users)],
        day_R=np.zeros(users, np.int64),
        targets=[history[-1:] for history in histories],
        target_ratings=[np.zeros(1, np.float32) for _ in range(users)],
        seen=[history[:-1] for history in histories],
        negatives=[np.zeros(0, np.int64) for _ in range(users)],
    )
    few = examples.Requests(**{name: value[:4] for name, value in vars(requests).items()})
    data = examples.Examples(
        item_ids=[str(n) for n in range(items)],
        index={},
        item_texts=[],
        side_IS=np.zeros((items, 1), np.float32),
        categories_IC=np.zeros((items, 0), np.float32),
        vocabulary=[],
        sequences=examples.Sequences(
            items=histories,
            times=[np.arange(LENGTH, dtype=float)] * users,
            ratings=[np.zeros(LENGTH, np.int64)] * users,
        ),
        splits={"train": requests, "valid": few, "test": few},
        item_DIF=np.zeros((1, items, len(transforms.ITEM)), np.float32),
        summary={},
    )
    return data, torch.from_numpy(rng.standard_normal((items, TEXT), np.float32))


def peak_mb() -> float:
    """The peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Recorder:
    """Progress that records the peak memory before the first step and after the last, and the time between."""

    def __init__(self) -> None:
        self.started = self.ended = self.at_start = self.peak = 0.0
        self.steps = 0

    def phase(self, name: str) -> None:
        """Training is about to start, perhaps after an evaluation."""
        self.at_start = peak_mb()

    def update(self, done: int, total: int, **numbers: float) -> None:
        """Record the time and the peak memory after a step."""
        self.started = self.started or time.process_time()
        self.ended, self.peak, self.steps = time.process_time(), peak_mb(), done


def train_teacher(data: Any, text_IT: Any, sampled: int, recorder: Any) -> int:
    """Train a teacher for one epoch; returns the copies of the item embeddings: they and two optimizer states."""
    from types import SimpleNamespace
    from typing import cast

    import torch

    from components.finetune.config import FinetuneConfig
    from components.finetune.context import TrainingContext
    from components.finetune.sequence import model as sequence_model
    from components.finetune.sequence.inputs import TeacherInputs
    from rankline.train.distributed import ALONE

    config = FinetuneConfig(epochs=1, sampled_items=sampled, batch_size=BATCH, max_history=LENGTH)
    encoder, tokenizer = cast(Any, SimpleNamespace(size=TEXT)), cast(Any, None)
    inputs = TeacherInputs(data, encoder, tokenizer, text_IT, torch.from_numpy(data.side_IS))
    context = TrainingContext(config, torch.device(DEVICE), False, ALONE, recorder, None)
    sequence_model.train(inputs, context, seed=0)
    return 3


def train_towers(data: Any, text_IT: Any, sampled: int, recorder: Any) -> int:
    """Train towers for one epoch; returns the copies of the item embeddings, the best so far included."""
    import numpy as np
    import torch

    from components.distill import towers, towers_trainer
    from components.distill.config import DistillConfig
    from components.distill.encode import EncodedTexts
    from rankline.runtime.progress import Progress

    class RandomEncoder(EncodedTexts):
        """Returns random vectors for texts."""

        def _encode(self, words: list[str], progress: Progress) -> torch.Tensor:
            return torch.randn(len(words), TEXT)

    config = DistillConfig(epochs=1, sampled_items=sampled, batch_size=BATCH, max_history=LENGTH)
    rng = np.random.default_rng(1)
    shape = (len(data.splits["train"]), SOFT)
    soft: dict[str, Any] = {
        "train_candidates": rng.integers(0, len(data.item_ids), shape),
        "train_logits": rng.standard_normal(shape, np.float32),
    }
    reader: Any = torch.nn.Identity()
    reader.size = TEXT
    none: Any = None
    encoded = RandomEncoder(data, reader, none, text_IT, device=torch.device(DEVICE))
    model = towers.Towers.make(data, text_size=TEXT, size=64, config=config)
    inputs = towers_trainer.TowersInputs(data, encoded, soft["train_candidates"], soft["train_logits"])
    towers_trainer.train(model, inputs, config, progress=recorder, checkpoints=None)
    return 4


def measure(loop: str, items: int, sampled: int, users: int) -> dict[str, float]:
    """The peak memory and the time of one epoch, in this process."""
    data, text_IT = make_data(items, users, query="asked" if loop == "towers" else "")
    before = peak_mb()
    recorder = Recorder()
    copies = (train_teacher if loop == "teacher" else train_towers)(data, text_IT, sampled, recorder)
    return {
        "data_mb": before,
        "loop_mb": recorder.peak - before,
        "own_vectors_mb": copies * items * 64 * 4 / 2**20,
        "after_mb": peak_mb() - recorder.peak,
        "step_s": (recorder.ended - recorder.started) / (recorder.steps - 1),
        "steps": recorder.steps,
        "epoch_s": recorder.ended - recorder.started,
    }


def measure_in_process(loop: str, items: int, sampled: int, users: int) -> dict[str, float] | str:
    """The measurements of a process of its own, or how it failed."""
    one = (loop, str(items), str(sampled), str(users))
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.training_scale", "--one", *one], capture_output=True, text=True
    )
    if result.returncode:
        return f"failed: {(result.stderr.strip().splitlines() or [str(result.returncode)])[-1]}"
    row: dict[str, float] = json.loads(result.stdout.strip().splitlines()[-1])
    return row


def print_row(*cells: Any) -> None:
    """A row of a Markdown table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def main() -> None:
    """Print one row per size, as Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loops", nargs="*", choices=LOOPS, default=LOOPS)
    parser.add_argument("--items", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--sampled", type=int, nargs="*", default=[0, 2000])
    parser.add_argument("--whole-up-to", type=int, default=100_000, help="largest catalogue for the whole softmax")
    parser.add_argument("--users", type=int, nargs="*", default=[USERS, 2 * USERS, 4 * USERS], help="for the examples")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        loop, *numbers = arguments.one
        print(json.dumps(measure(loop, *map(int, numbers))))
        return
    print_row(
        "loop",
        "items",
        "sampled",
        "before, MB",
        "the loop adds, MB",
        "of it item embeddings",
        "evaluation adds, MB",
        "core-s per step",
    )
    print_row(*["---"] * 8)
    for loop in arguments.loops:
        for sampled in arguments.sampled:
            for items in arguments.items:
                if not sampled and items > arguments.whole_up_to:
                    continue
                row = measure_in_process(loop, items, sampled, USERS)
                first = (loop, f"{items:,}", sampled or "all")
                if isinstance(row, str):
                    print_row(*first, row, "", "", "", "")
                    continue
                sizes = (f"{row[name]:,.0f}" for name in ("data_mb", "loop_mb", "own_vectors_mb", "after_mb"))
                print_row(*first, *sizes, f"{row['step_s']:.3f}")
    print()
    print_row("loop", "users", "steps", "core-s per epoch", "core-s per step", "the loop adds, MB")
    print_row(*["---"] * 6)
    for loop in arguments.loops:
        for users in arguments.users:
            row = measure_in_process(loop, min(arguments.items), max(arguments.sampled), users)
            if isinstance(row, str):
                print_row(loop, f"{users:,}", row, "", "", "")
                continue
            print_row(
                loop,
                f"{users:,}",
                row["steps"],
                f"{row['epoch_s']:.1f}",
                f"{row['step_s']:.3f}",
                f"{row['loop_mb']:,.0f}",
            )


if __name__ == "__main__":
    main()
