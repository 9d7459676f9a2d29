"""The training loop: schedule, early stopping, resume, and losses that are not numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rankline.errors import TrainingError
from rankline.io import digest
from rankline.runtime.progress import Progress
from rankline.train import checkpoints
from rankline.train.fit import FitSettings, History, Trainer, check_finite, fit, learning_rate_at


def test_the_rate_rises_falls_and_ends_at_nothing() -> None:
    rates = [learning_rate_at(f, peak=2.0, warm_up=0.1) for f in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 0.05)) / 2)
    assert int(np.argmax(rates)) == 10
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0)
    assert learning_rate_at(0.0, peak=2.0, warm_up=0.0) == 2.0
    assert learning_rate_at(1.5, peak=2.0, warm_up=0.1) == pytest.approx(0)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_training(loss: float) -> None:
    check_finite(1.0, section="distill", epoch=3)
    with pytest.raises(TrainingError, match=r"distill is not a number(.|\n)*in epoch 3(.|\n)*distill.learning_rate"):
        check_finite(loss, section="distill", epoch=3)


# The loop ---------------------------------------------------------------------------------------------------------


class Line(Trainer[np.ndarray]):
    """Fits a line with dropout; validations are scripted, or count up."""

    def __init__(self, scores: list[float] | None = None) -> None:
        torch.manual_seed(0)
        self.model, self.scores, self.stop_at = torch.nn.Linear(1, 1), list(scores or range(100)), math.inf
        self.steps, self.rates = 0, []
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1.0)
        super().__init__({"model": self.model}, optimizer, np.random.default_rng(0))

    def batches(self, epoch: int) -> list[np.ndarray]:
        return [self.rng.random((4, 1), np.float32) for _ in range(3)]

    def step(self, batch: np.ndarray) -> dict[str, float]:
        if self.steps == self.stop_at:
            raise KeyboardInterrupt
        self.steps += 1
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        inputs = torch.from_numpy(batch)
        loss = (torch.nn.functional.dropout(self.model(inputs), 0.3) - 2 * inputs).square().mean()
        loss.backward()
        return {"loss": loss.item(), "half": loss.item() / 2}

    def validate(self) -> float:
        return self.scores.pop(0)


def settings(**changes: object) -> FitSettings:
    return FitSettings(**{"epochs": 4, "learning_rate": 0.1, "evaluate_every": 1, **changes})  # type: ignore[arg-type]


def run(trainer: Line, folder: Path | None = None, **changes: object) -> History:
    torch.manual_seed(1)
    return fit(trainer, settings(**changes), checkpoints=folder, progress=Progress())


def test_the_best_epoch_is_restored() -> None:
    trainer, last = Line([0.1, 0.9, 0.2, 0.3]), Line()
    history = run(trainer)
    assert (history.best, history.best_epoch, history.epochs, history.steps) == (0.9, 1, 4, 12)
    assert [point["valid_ndcg@10"] for point in history.curve] == [0.1, 0.9, 0.2, 0.3]
    assert history.curve[0]["half"] == pytest.approx(history.curve[0]["loss"] / 2)
    run(last)
    assert not torch.equal(trainer.model.weight, last.model.weight)


def test_without_validation_the_last_epoch_is_returned() -> None:
    trainer = Line()
    history = run(trainer, evaluate_every=0)
    assert (history.best_epoch, history.epochs) == (-1, 4)
    assert all("valid_ndcg@10" not in point for point in history.curve)


def test_training_stops_after_validations_without_improvement() -> None:
    assert run(Line([0.5, 0.4, 0.3, 0.9]), patience=2).epochs == 3


def test_training_never_ends_worse_than_it_started() -> None:
    trainer = Line([0.9, 0.1, 0.2, 0.3, 0.4])
    before = trainer.model.weight.detach().clone()
    history = run(trainer, validate_start=True)
    assert (history.at_start, history.best, history.best_epoch) == (0.9, 0.9, -1)
    assert torch.equal(trainer.model.weight, before)


def test_a_trainer_may_set_its_own_learning_rates() -> None:
    scheduled, own = Line(), Line()
    run(scheduled)
    run(own, learning_rate=None)
    assert set(own.rates) == {1.0}
    assert scheduled.rates == pytest.approx([learning_rate_at(n / 12, peak=0.1, warm_up=0.0) for n in range(12)])


@pytest.mark.parametrize("stop_at", [2, 3, 7, 11])
def test_an_interrupted_run_ends_like_an_undisturbed_one(tmp_path: Path, stop_at: int) -> None:
    whole, interrupted, resumed = Line(), Line(), Line()
    history = run(whole)
    interrupted.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, tmp_path)
    resumed.scores = resumed.scores[stop_at // 3 :]
    again = run(resumed, tmp_path)
    assert again.resumed_at == stop_at // 3
    assert again.curve == history.curve
    assert torch.equal(resumed.model.weight, whole.model.weight)


def test_a_checkpoint_of_another_format_is_ignored(tmp_path: Path) -> None:
    """Also its random generators, so the run is one from the start."""
    interrupted, whole, again = Line(), Line(), Line()
    interrupted.stop_at = 7
    with pytest.raises(KeyboardInterrupt):
        run(interrupted, tmp_path)
    (path,) = tmp_path.glob("*.pt")
    torch.save({**torch.load(path), "format": checkpoints.FORMAT - 1}, path)
    path.rename(path.with_stem(digest.file_digest(path)))
    history, started_again = run(whole), run(again, tmp_path)
    assert started_again.resumed_at == 0
    assert started_again.curve == history.curve
