"""benchmarks/ads: the chances that the real server answers are those that were planted in the log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import ads

LIMIT = 0.02
LIMIT_OF_ONE = 0.035  # of one decile: the chances of the likeliest tenth are served too small


@pytest.mark.slow
def test_served_chances_are_the_planted_ones(tmp_path: Path) -> None:
    """The whole pipeline, from the raw log to the server, takes minutes."""
    systems = ads.measure(tmp_path, seed=0)
    served, planted = systems["Rankline, served"], systems["the planted chances"]
    for label in ads.LABELS:
        assert served[label]["calibration error"] < LIMIT
        gaps = sorted(abs(chance - truth) for chance, truth in served[label]["deciles"])
        assert gaps[-2] < LIMIT
        assert gaps[-1] < LIMIT_OF_ONE
    # the chances differ between users, so that they say more than a campaign's mean
    popularity = systems["click share of the campaign"]
    assert popularity["click"]["AUC"] + 0.02 < served["click"]["AUC"] < planted["click"]["AUC"]
    assert served["click"]["log loss"] < popularity["click"]["log loss"]


def test_a_decile_compares_the_chance_with_the_planted_one() -> None:
    chance_N = np.linspace(0, 0.5, 1000)
    assert ads.by_decile(chance_N, chance_N)[9] == pytest.approx((0.475, 0.475), abs=0.001)
    # twice as likely as predicted: the gap grows with the predicted chance
    gaps = [truth - chance for chance, truth in ads.by_decile(chance_N[::-1], 2 * chance_N[::-1])]
    assert gaps == sorted(gaps)
    assert max(gaps) > LIMIT
