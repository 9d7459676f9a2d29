"""Score drift and decay, from declared tables and from the registry's evaluations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pipelines.recipes import named
from pipelines.schedules.triggers import served
from pipelines.schedules.triggers.observation import Observation
from pipelines.schedules.triggers.spec import parse
from pipelines.schedules.triggers.subject import Subject
from rankline.errors import UsageError
from rankline.gates.nights import Night
from rankline.registry.registry_state import Event
from tests.pipelines.schedules.triggers.test_spec import schedule

PROMOTED = datetime(2026, 3, 2, tzinfo=UTC)


def subject(folder: Path, day: int, *events: Event) -> Subject:
    """A check on a day after the promotion of model `m`."""
    promotion = Event(n=1, kind="promoted", model_id="m", at=PROMOTED.isoformat(), who="the flow", why="")
    one = Subject(schedule("code"), named("smoke"), folder, folder, PROMOTED + timedelta(days=day))
    one.__dict__["history"] = [promotion, *events]
    return one


def write_scores(folder: Path, days: int, *, moved_from: int = 1000, model_id: str = "m") -> None:
    rng = np.random.default_rng(1)
    folder.mkdir(exist_ok=True)
    for day in range(days):
        scores = rng.normal(1.0 if day >= moved_from else 0.0, 1.0, 300)
        at = [PROMOTED + timedelta(days=day, seconds=200 * n) for n in range(300)]
        table = pa.table({"at": at, "score": scores, "model_id": [model_id] * 300})
        parquet.write_table(table, folder / f"{model_id}-{day:03}.parquet")


def test_scores_are_compared_with_the_champions_first_days(tmp_path: Path) -> None:
    write_scores(tmp_path / "served", 50, moved_from=40)
    write_scores(tmp_path / "served", 50, moved_from=0, model_id="earlier")
    trigger = parse(f"scores in {tmp_path / 'served'}")
    stable, moved = (served.observe_scores(trigger, subject(tmp_path, day)) for day in (40, 47))
    assert (stable.fires, moved.fires) == (False, True)
    assert "against the first 28 days of model m" in moved.why
    assert "0 whole days" in served.observe_scores(trigger, subject(tmp_path, 0)).why


def test_a_live_metric_of_a_table_decays(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(2), tmp_path / "live.csv"
    season = [1.0, 1.02, 1.0, 0.98, 1.05, 0.9, 0.92]
    lines = [
        f"{(PROMOTED + timedelta(days=day, hours=12)):%Y-%m-%d %H:%M:%S},"
        f"{0.04 * season[day % 7] * (0.9 if day >= 60 else 1) * (1 + 0.02 * rng.standard_normal())}"
        for day in range(80)
    ]  # fmt: skip
    path.write_text("\n".join(["at,ctr", *lines]) + "\n")
    trigger = parse(f"decay:ctr>=5% in {path}")
    fires = [served.observe_decay(trigger, subject(tmp_path, day)).fires for day in (35, 60, 62, 74)]
    assert fires == [False, False, False, True]
    assert "the first 28 are its baseline" in served.observe_decay(trigger, subject(tmp_path, 10)).why


@pytest.mark.parametrize(
    ("content", "expected"), [("at,clicks\n2026-01-01,3\n", "no column ctr"), (None, "cannot be read")]
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, content: str | None, expected: str) -> None:
    path = tmp_path / "live.csv"
    if content:
        path.write_text(content)
    with pytest.raises(UsageError, match=expected):
        served.observe_decay(parse(f"decay:ctr>=5% in {path}"), subject(tmp_path, 40))


def night(number: int, model_id: str, champion: str, mean: float) -> Event:
    values: dict[str, Any] = {
        "model_id": model_id, "champion": champion, "anchor": "a", "recipe": "r", "metric": "ndcg@10",
        "since": 100.0 * number, "until": 100.0 * number + 100, "requests": 500, "clusters": 100,
        "means": (mean, mean, mean), "covariance": tuple((1e-5, 0.0, 0.0) for _ in range(3)),
    }  # fmt: skip
    values["covariance"] = ((1e-5, 0.0, 0.0), (0.0, 1e-5, 0.0), (0.0, 0.0, 1e-5))
    stored = Night(**values).model_dump(mode="json")
    return Event(n=number + 2, kind="evaluated", model_id=model_id, at="", who="", why="", details={"night": stored})


def test_the_champions_later_evaluations_are_compared_with_its_own(tmp_path: Path) -> None:
    own = night(0, "m", "before", 0.2)

    def observed(level: float, count: int) -> Observation:
        nights = [night(n, f"c{n}", "m", level) for n in range(1, count + 1)]
        return served.observe_decay(parse("decay:ndcg@10"), subject(tmp_path, 40, own, *nights))

    assert not observed(0.2, 20).fires
    assert not observed(0.19, 20).fires, "as far as the limit, and not below"
    assert observed(0.17, 20).fires
    assert not observed(0.17, 1).fires
    assert "0 evaluations of model m on newer requests" in observed(0.17, 0).why
