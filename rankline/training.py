"""What both trainers need around their loops: a device, a schedule, and checkpoints that survive a kill."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rankline import digest
from rankline.errors import DeviceError, TrainingError


def pick_device(name: str) -> torch.device:
    """The device a recipe asks for: `cpu`, `cuda`, or `auto` (CUDA where there is one).

    Raises:
        DeviceError: `cuda` was asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            "training was asked to run on CUDA",
            expected="a CUDA device that torch can see",
            found=f"none (torch {torch.__version__})",
            hint="set device=auto or device=cpu, or run where there is a GPU",
        )
    return torch.device(name)


def pick_autocast(precision: str, device: torch.device) -> bool:
    """Whether the encoder runs in bf16: `auto` says yes where the processor computes in it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def rate_at(fraction: float, *, peak: float, warm_up: float) -> float:
    """The learning rate after ``fraction`` of training: linear warm-up, then a cosine to zero."""
    rising = min(1.0, fraction / warm_up) if warm_up else 1.0
    return peak * rising * 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))


def pad(windows: Sequence[tuple[Any, Any]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(items, ratings, next items), each [B, L]; the next item is -100 behind a window's end."""
    length = max(len(items) for items, _ in windows) - 1
    items_BL = np.zeros((len(windows), length), np.int64)
    ratings_BL = np.zeros((len(windows), length), np.int64)
    next_BL = np.full((len(windows), length), -100, np.int64)
    for row, (items, ratings) in enumerate(windows):
        items_BL[row, : len(items) - 1], next_BL[row, : len(items) - 1] = items[:-1], items[1:]
        ratings_BL[row, : len(items) - 1] = ratings[:-1]
    return torch.from_numpy(items_BL), torch.from_numpy(ratings_BL), torch.from_numpy(next_BL)


def window_batches(windows: list[tuple[Any, Any]], rng: np.random.Generator, size: int) -> list[list[tuple[Any, Any]]]:
    """Windows of similar length together, the batches in random order."""
    shuffled = [windows[k] for k in rng.permutation(len(windows))]
    shuffled.sort(key=lambda window: len(window[0]))
    batches = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    return [batches[k] for k in rng.permutation(len(batches))]


def ndcg_of_ranks(ranks_R: Any, *, k: int) -> float:
    """Mean nDCG@k where each request has one target, which stands at this rank (0 is the first)."""
    return float(np.where(ranks_R < k, 1.0 / np.log2(ranks_R + 2.0), 0.0).mean())


def rank_of(scores_N: Any, target: int) -> int:
    """Where ``target`` stands among the scores (0 is the first); among equals it stands in the middle.

    So a model that tells nothing apart is not taken for a perfect one; neither is one whose scores are no
    numbers, for it ranks the target last.
    """
    own = scores_N[target]
    if not np.isfinite(own):
        return len(scores_N) - 1
    return int((scores_N > own).sum() + (np.count_nonzero(scores_N == own) - 1) // 2)


def check_finite(loss: float, *, step: str, epoch: int) -> None:
    """Stop before a loss that is not a number spoils the weights.

    Raises:
        TrainingError: the loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss of {step} is not a number any more",
            expected="a finite loss",
            found=f"{loss} in epoch {epoch}",
            hint=f"lower {step}.learning_rate, or look for broken values in the features",
        )


def _state_in(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds; None where its bytes are not those that were written, or mean nothing to this torch."""
    if digest.of_file(path) != path.stem:
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # pickle's own errors share no base class
        return None
    return state


class Checkpoints:
    """The last finished epoch of a training run: a killed run goes on from it and ends as it would have."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def save(self, state: dict[str, Any], rng: np.random.Generator) -> None:
        """Keep ``state`` and the generators; a reader sees the old file or the new one, never a half."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        generators = {"numpy": rng.bit_generator.state, "torch": torch.get_rng_state()}
        if torch.cuda.is_available():
            generators["cuda"] = torch.cuda.get_rng_state_all()
        partial = self.folder / f"partial.{os.getpid()}"
        torch.save({**state, **generators}, partial)
        # named by its digest, for torch reads a flipped byte back without a word
        kept = self.folder / f"{digest.of_file(partial)}.pt"
        os.replace(partial, kept)
        for older in self._files():
            if older != kept:
                older.unlink(missing_ok=True)

    def load(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """What was kept, the generators set back to that moment; None where there is nothing usable."""
        for path in self._files():
            state = _state_in(path)
            if state is None:  # a damaged checkpoint costs its epochs, not the run
                path.unlink(missing_ok=True)
                continue
            rng.bit_generator.state = state["numpy"]
            torch.set_rng_state(state["torch"])
            if "cuda" in state and torch.cuda.is_available():
                torch.cuda.set_rng_state_all(state["cuda"])
            return state
        return None

    def _files(self) -> list[Path]:
        """The checkpoints, the newest first: there are two where a run was killed between keeping and tidying."""
        found = self.folder.glob("*.pt") if self.folder is not None else ()
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def clear(self) -> None:
        """Forget the checkpoint: the work is finished and kept elsewhere."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
