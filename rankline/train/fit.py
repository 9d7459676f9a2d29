"""The training loop that all trainers share: resume, schedule, clipping, validation, early stopping, curve, checkpoint.

What is random and the loss stay with each trainer: `batches` draws the batches of an epoch; `step` draws the rest,
computes the loss and calls backward.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from rankline.errors import TrainingError
from rankline.runtime.progress import Progress
from rankline.train.checkpoints import Checkpoints
from rankline.train.distributed import ALONE, DistributedContext
from rankline.train.sampled_items import SparseItemEmbedding

METRIC = "valid_ndcg@10"
Batch = TypeVar("Batch")


class Stateful(Protocol):
    """What a checkpoint can hold: a torch module, or anything that saves and restores itself like one."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state_dict: Any, /) -> Any: ...


class TensorState:
    """A tensor that training changes, saved and restored like a module."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def state_dict(self) -> dict[str, Tensor]:
        """The tensor by name."""
        return {"tensor": self.tensor}

    def load_state_dict(self, state_dict: dict[str, Tensor], /) -> None:
        """Take the tensor to the device that the present one is on."""
        self.tensor = state_dict["tensor"].to(self.tensor.device)


@dataclass(frozen=True)
class FitSettings:
    """How long to train, how fast, and when to stop."""

    epochs: int
    learning_rate: float | None  # the peak of groups without one of their own; None: the trainer sets its rates
    warm_up: float = 0.0
    gradient_clip: float | None = None
    evaluate_every: int = 0  # epochs between validations; 0 never validates and keeps the last epoch
    patience: int | None = None  # validations without improvement before training stops
    validate_start: bool = False  # validate before the first epoch, so that training never ends worse than it began
    total_steps: int | None = None  # where the last epoch is shorter than the others
    section: str = "finetune"  # the settings section and the setting that an error names
    rate_setting: str = "learning_rate"

    @classmethod
    def of(cls, config: Any, **changes: Any) -> FitSettings:
        """The settings of a section that names them as here."""
        names = ("epochs", "learning_rate", "warm_up", "gradient_clip", "evaluate_every", "patience")
        return cls(**{name: getattr(config, name) for name in names}, **changes)


@dataclass
class History:
    """What happened so far, with the curve of losses and validations."""

    epochs: int = 0
    steps: int = 0
    best: float = -1.0
    best_epoch: int = -1
    at_start: float = -1.0
    stale: int = 0
    resumed_at: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)


class Trainer(abc.ABC, Generic[Batch]):
    """What is trained and by which loss; `fit` does the rest.

    Args:
        parts: what checkpoints and the best snapshot hold.
        rng: the generator of everything random outside of torch.
        item_embedding: item embeddings that are updated sparsely.
    """

    def __init__(
        self,
        parts: Mapping[str, Stateful],
        optimizer: torch.optim.Optimizer,
        rng: np.random.Generator,
        *,
        item_embedding: SparseItemEmbedding | None = None,
        distributed: DistributedContext = ALONE,
    ) -> None:
        self.parts, self.optimizer, self.rng = parts, optimizer, rng
        self.item_embedding, self.distributed = item_embedding, distributed

    @abc.abstractmethod
    def batches(self, epoch: int) -> Sequence[Batch]:
        """The batches of an epoch; puts the networks into training mode."""

    @abc.abstractmethod
    def step(self, batch: Batch) -> dict[str, float]:
        """Compute the gradients of one step; returns its losses, the total first."""

    def refresh(self) -> None:  # most trainers have nothing to refresh
        """Recompute what training left stale and validation reads."""

    def validate(self) -> float:
        """The nDCG@10 of the validation requests."""
        raise NotImplementedError

    def curve_point(self, epoch: int, losses: dict[str, float]) -> dict[str, float]:
        """The entry of an epoch in the curve."""
        return {"epoch": epoch, **losses}


def fit(trainer: Trainer[Batch], settings: FitSettings, *, checkpoints: Path | None, progress: Progress) -> History:
    """Train and leave the parts as they were at their best, or at the end where nothing is validated.

    A killed run resumes from its last finished epoch.

    Raises:
        TrainingError: the loss is not a number, or a checkpoint cannot be written.
    """
    checkpointer = Checkpoints(checkpoints)
    history, best = _resume(trainer, checkpointer)
    if settings.validate_start and not history.resumed_at:
        history.best = history.at_start = trainer.validate()
        best = _snapshot(trainer)
    for epoch in range(history.epochs, settings.epochs):
        if settings.patience is not None and history.stale >= settings.patience:
            break
        point = trainer.curve_point(epoch, _train_epoch(trainer, settings, history, progress, epoch=epoch))
        if _validation_due(settings, epoch):
            trainer.refresh()
            point[METRIC] = score = trainer.validate()
            history.stale += 1
            if score > history.best:
                history.best, history.best_epoch, history.stale, best = score, epoch, 0, _snapshot(trainer)
        history.curve.append(point)
        history.epochs = epoch + 1
        if trainer.distributed.is_main:
            checkpointer.save(_state(trainer, history, best), trainer.rng)
    for name, state in (best or {}).items():
        trainer.parts[name].load_state_dict(state)
    return history


def learning_rate_at(fraction: float, *, peak: float, warm_up: float) -> float:
    """The learning rate after ``fraction`` of training: linear warm-up, then cosine decay to zero."""
    rising = min(1.0, fraction / warm_up) if warm_up else 1.0
    return peak * rising * 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))


def check_finite(loss: float, *, section: str, epoch: int, setting: str = "learning_rate") -> None:
    """Stop before a loss that is not a number spoils the weights.

    Raises:
        TrainingError: the loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss of {section} is not a number",
            expected="a finite loss",
            found=f"{loss} in epoch {epoch}",
            hint=f"lower {section}.{setting}, or look for broken values in the features",
        )


def _validation_due(settings: FitSettings, epoch: int) -> bool:
    if not settings.evaluate_every:
        return False
    return (epoch + 1) % settings.evaluate_every == 0 or epoch + 1 == settings.epochs


def _train_epoch(
    trainer: Trainer[Any], settings: FitSettings, history: History, progress: Progress, *, epoch: int
) -> dict[str, float]:
    """Train one epoch; the mean of each loss."""
    batches = trainer.batches(epoch)
    total = settings.total_steps or settings.epochs * len(batches)
    losses: dict[str, list[float]] = {}
    for number, batch in enumerate(batches):
        _set_learning_rates(trainer, settings, (epoch + number / len(batches)) / settings.epochs)
        trainer.optimizer.zero_grad(set_to_none=True)
        values = trainer.step(batch)
        loss = next(iter(values.values()))
        check_finite(loss, section=settings.section, epoch=epoch, setting=settings.rate_setting)
        _update_weights(trainer, settings.gradient_clip)
        for name, value in values.items():
            losses.setdefault(name, []).append(value)
        history.steps += 1
        shown = {"loss": loss, "lr": trainer.optimizer.param_groups[0]["lr"]}
        if settings.evaluate_every:
            shown["valid"] = history.best if history.best >= 0 else math.nan
        progress.update(history.steps, total, **shown)
    return {name: float(np.mean(values)) for name, values in losses.items()}


def _set_learning_rates(trainer: Trainer[Any], settings: FitSettings, fraction: float) -> None:
    if settings.learning_rate is None:
        return
    sparse_groups = trainer.item_embedding.optimizer.param_groups if trainer.item_embedding else ()
    for group in (*trainer.optimizer.param_groups, *sparse_groups):
        peak = group.get("peak", settings.learning_rate)
        group["lr"] = learning_rate_at(fraction, peak=peak, warm_up=settings.warm_up)


def _update_weights(trainer: Trainer[Any], gradient_clip: float | None) -> None:
    """Clip the gradients and take one optimizer step, in every process the same."""
    weights: list[Tensor] = [weight for group in trainer.optimizer.param_groups for weight in group["params"]]
    if trainer.item_embedding is not None:  # last: the order of its terms is part of a norm's value
        weights.append(trainer.item_embedding.gathered_TD)
    trainer.distributed.all_reduce_gradients(weights)
    if gradient_clip is not None:
        torch.nn.utils.clip_grad_norm_(weights, gradient_clip)
    trainer.optimizer.step()
    if trainer.item_embedding is not None:
        trainer.item_embedding.apply_gradient()


def _resume(trainer: Trainer[Any], checkpointer: Checkpoints) -> tuple[History, dict[str, Any] | None]:
    """Continue from the last checkpoint: its history and the best snapshot; a fresh history where there is none."""
    distributed = trainer.distributed
    state = distributed.broadcast(checkpointer.load(trainer.rng) if distributed.is_main else None)
    if state is None:
        return History(), None
    trainer.rng.bit_generator.state = state["numpy"]
    for name, part in trainer.parts.items():
        part.load_state_dict(state["parts"][name])
    trainer.optimizer.load_state_dict(state["optimizer"])
    if trainer.item_embedding is not None:
        trainer.item_embedding.optimizer.load_state_dict(state["item_embedding"])
    history = History(**state["history"])
    history.resumed_at = history.epochs
    return history, state["best"]


def _state(trainer: Trainer[Any], history: History, best: dict[str, Any] | None) -> dict[str, Any]:
    sparse = trainer.item_embedding
    return {
        "parts": {name: part.state_dict() for name, part in trainer.parts.items()},
        "optimizer": trainer.optimizer.state_dict(),
        "item_embedding": sparse.optimizer.state_dict() if sparse is not None else None,
        "history": dataclasses.asdict(history),
        "best": best,
    }


def _snapshot(trainer: Trainer[Any]) -> dict[str, Any]:
    """A copy of every part on the CPU."""
    return {
        name: {key: _copy(value) for key, value in part.state_dict().items()} for name, part in trainer.parts.items()
    }


def _copy(value: Any) -> Any:
    return value.detach().cpu().clone() if isinstance(value, Tensor) else value
