"""Simulated years: no more of them have a false alarm than stated, and a planted change fires once."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.schedules.triggers import simulation
from pipelines.schedules.triggers.simulation import Plan, simulate, table
from tests.cli.in_process import rankline

YEARS = 100


def rows(*wanted: str, years: int = YEARS) -> dict[str, simulation.Row]:
    plan = Plan(years, 1000, 0.05, 0.02)
    return {f"{row.trigger}: {row.planted}": row for row in simulate(plan, only=wanted)}


@pytest.mark.integration
def test_fewer_stable_years_than_stated_have_a_false_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    stable = rows("drift: nothing", "decay: nothing", "decay: a fall of 5%, the limit")
    assert max(row.fired_without for row in stable.values()) <= 0.05
    assert stable["decay: a fall of 5%, the limit"].firings <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / YEARS)
    # the rate holds by the test alone, without the limit of the index; and a careless one does not hold it
    monkeypatch.setattr(simulation, "PSI_LIMIT", 0.0)
    assert rows("drift: nothing")["drift: nothing"].fired_without <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / YEARS)
    monkeypatch.setattr(Plan, "alpha", 365 * 0.05)
    assert rows("drift: nothing", years=5)["drift: nothing"].fired_without > 0.5


def test_a_planted_change_is_noticed_and_fires_once() -> None:
    planted = rows("drift: a half of it (PSI 0.27)", "decay: a fall of 10%")
    for row, within in zip(planted.values(), (7, 21)):
        assert (row.fired_without, row.noticed, row.firings) == (0.0, 1.0, 1.0)
        assert row.delay_p95 is not None
        assert row.delay_p95 <= within


@pytest.mark.integration
def test_the_command_prints_the_table() -> None:
    done = rankline("schedule", "simulate", "--years", "20", "--json")
    assert done.returncode == 0, done.stderr
    assert '"planted": "a fall of 20%"' in done.stdout
    assert len(table([])) == 1
