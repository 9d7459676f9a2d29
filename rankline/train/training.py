"""What both trainers need around their loops: a device, a schedule, and checkpoints that survive a kill."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from rankline.errors import DeviceError, TrainingError
from rankline.io import digest


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


def gpu_count() -> int:
    """How many GPUs torch sees here."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def pick_autocast(precision: str, device: torch.device) -> bool:
    """Whether the encoder runs in bf16: `auto` says yes where the processor computes in it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def learning_rate_at(fraction: float, *, peak: float, warm_up: float) -> float:
    """The learning rate after ``fraction`` of training: linear warm-up, then a cosine to zero."""
    rising = min(1.0, fraction / warm_up) if warm_up else 1.0
    return peak * rising * 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))


def pad_windows(windows: Sequence[tuple[Any, Any]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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


def target_rank(scores_N: Any, target: int) -> int:
    """Where ``target`` stands among the scores (0 is the first); among equals it stands in the middle.

    So a model that tells nothing apart is not taken for a perfect one; neither is one whose scores are no
    numbers, for it ranks the target last.
    """
    target_score = scores_N[target]
    if not np.isfinite(target_score):
        return len(scores_N) - 1
    return int((scores_N > target_score).sum() + (np.count_nonzero(scores_N == target_score) - 1) // 2)


class ItemSampler:
    """Items drawn by their chances: the very ones that ``rng.choice(…, p=chance_I)`` draws, at less cost."""

    def __init__(self, probability_I: npt.NDArray[np.float64]) -> None:
        self.cumulative_I = probability_I.cumsum()
        self.cumulative_I /= self.cumulative_I[-1]

    def __call__(self, rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        """[count] item numbers."""
        sampled: npt.NDArray[np.int64] = self.cumulative_I.searchsorted(rng.random(count), side="right")
        return sampled


def next_item_loss(
    hidden_ND: torch.Tensor,
    vectors_TD: torch.Tensor,
    next_N: torch.Tensor,
    *,
    sampled_S: npt.NDArray[np.int64],
    probability_I: npt.NDArray[np.float64],
    rows_T: npt.NDArray[np.int64] | None = None,
    other_targets: Sequence[npt.NDArray[np.int64]] = (),
) -> torch.Tensor:
    """Softmax cross-entropy over the catalogue, or an estimate of it from the items drawn with ``chance_I``.

    ``rows_T`` says which items the rows of ``vectors_TD`` are, sorted, where they are not all; ``also`` which other
    items would have been right, for each of the N, and are therefore not held against it.

    Each drawn item stands for as many as its chance tells: less the log of how often it is expected in the draw, it
    makes the sum in the softmax right on average (Bengio & Senecal 2008), so that popular items, drawn often, are
    not punished for it. A drawn item that is the target is left out, for the target is there already.
    """
    device = vectors_TD.device
    if not len(sampled_S):
        scores_NI = hidden_ND @ vectors_TD.T
        for row, positives in enumerate(other_targets):
            scores_NI[row, torch.from_numpy(positives).to(device)] = -1e4
        return F.cross_entropy(scores_NI, next_N)

    def vectors_of(items: Any) -> torch.Tensor:
        positions = items if rows_T is None else np.searchsorted(rows_T, items)
        return F.embedding(torch.from_numpy(positions).to(device), vectors_TD)

    sampled = torch.from_numpy(sampled_S).to(device)
    log_expected_S = torch.from_numpy(np.log(probability_I[sampled_S] * len(sampled_S))).float().to(device)
    target_N1 = (hidden_ND * vectors_of(next_N.cpu().numpy())).sum(-1, keepdim=True)
    others_NS = hidden_ND @ vectors_of(sampled_S).T - log_expected_S
    is_target_NS = sampled.unsqueeze(0) == next_N.unsqueeze(1)
    if len(other_targets):
        is_target_NS |= torch.from_numpy(np.stack([np.isin(sampled_S, positives) for positives in other_targets])).to(
            device
        )
    others_NS = others_NS.masked_fill(is_target_NS, -1e4)
    return F.cross_entropy(torch.cat([target_N1, others_NS], 1), torch.zeros_like(next_N))


def compile_modules(*modules: torch.nn.Module) -> str:
    """Compile networks in place where this machine can; what was done, or why it was not."""
    try:
        torch.compile(lambda x: x * 2)(torch.ones(2))
    except Exception as error:  # no compiler, no headers, an unsupported platform: many types
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"no: {lines[0]}"
    for module in modules:
        module.compile(dynamic=True)
    return "yes"


def check_finite(loss: float, *, step: str, epoch: int, setting: str = "learning_rate") -> None:
    """Stop before a loss that is not a number spoils the weights.

    Raises:
        TrainingError: the loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss of {step} is not a number any more",
            expected="a finite loss",
            found=f"{loss} in epoch {epoch}",
            hint=f"lower {step}.{setting}, or look for broken values in the features",
        )


def _load_if_intact(path: Path) -> dict[str, Any] | None:
    """What a checkpoint holds; None where its bytes are not those that were written, or mean nothing to this torch."""
    if digest.file_digest(path) != path.stem:
        return None
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # pickle's own errors share no base class
        return None
    return state


def _free_space(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB free"
    return "the disk is gone"


class Checkpoints:
    """The last finished epoch of a training run: a killed run goes on from it and ends as it would have."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def save(self, state: dict[str, Any], rng: np.random.Generator) -> None:
        """Keep ``state`` and the generators; a reader sees the old file or the new one, never a half.

        Raises:
            TrainingError: there is no room for it; the one before is still there.
        """
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        generators = {"numpy": rng.bit_generator.state, "torch": torch.get_rng_state()}
        if torch.cuda.is_available():
            generators["cuda"] = torch.cuda.get_rng_state_all()
        partial = self.folder / f"partial.{os.getpid()}"
        try:
            torch.save({**state, **generators}, partial)
            # named by its digest, for torch reads a flipped byte back without a word
            saved = self.folder / f"{digest.file_digest(partial)}.pt"
            os.replace(partial, saved)
        except (OSError, RuntimeError) as error:  # torch says a full disk with a RuntimeError of its own
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise TrainingError(
                "a checkpoint could not be written",
                expected="room for the new one beside the one before",
                found=f"{(str(error).strip().splitlines() or ['?'])[0]} ({_free_space(self.folder)})",
                where=str(self.folder),
                hint="make room there and run again: training goes on from the checkpoint before",
            ) from error
        for older in self._files():
            if older != saved:
                older.unlink(missing_ok=True)

    def load(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """What was kept, the generators set back to that moment; None where there is nothing usable."""
        for path in self._files():
            state = _load_if_intact(path)
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
        paths = self.folder.glob("*.pt") if self.folder is not None else ()
        return sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def clear(self) -> None:
        """Forget the checkpoint: the work is finished and kept elsewhere."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
