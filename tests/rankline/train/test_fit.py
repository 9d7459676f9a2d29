"""The learning rate, and losses that are not numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rankline.errors import TrainingError
from rankline.train.fit import check_finite, learning_rate_at


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
