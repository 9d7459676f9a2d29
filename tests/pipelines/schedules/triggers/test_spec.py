"""Triggers as text, and schedules with them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pipelines.schedules.model import Schedule, due, validate_schedule
from pipelines.schedules.triggers.spec import parse
from rankline.errors import UsageError

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def schedule(*when: str, **values: Any) -> Schedule:
    named = {"name": "s", "recipe": "smoke", "created_at": NOW.isoformat(), "updated_at": NOW.isoformat()}
    return validate_schedule({**named, "when": when, **values})


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("events>=10000", "events>=10000"),
        (" events >= 20% ", "events>=20%"),
        ("drift:price", "drift:price>=0.2"),
        ("drift:items.price>=0.25", "drift:items.price>=0.25"),
        ("scores in served/", "scores>=0.2 in served/"),
        ("decay:ndcg@10", "decay:ndcg@10>=5%"),
        ("decay:ctr>=7.5% in live metrics.csv", "decay:ctr>=7.5% in live metrics.csv"),
        ("code", "code"),
        ("webhook:DEPLOY_KEY", "webhook:DEPLOY_KEY"),
    ],
)
def test_a_trigger_is_read_and_printed_back(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)
    assert schedule(text).when == (canonical,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is one of"),
        ("volume>=3", "is one of"),
        ("events>3", "is one of"),
        ("events", "has a limit"),
        ("events>=0", "more than 0"),
        ("events:x>=3", "without a colon"),
        ("events>=1.2.3", "not a number"),
        ("drift", "names a column"),
        ("drift:price>=20%", "has no %"),
        ("scores", "reads its data `in PATH`"),
        ("decay:ctr>=5", "is a share"),
        ("decay:ctr>=100%", "cannot fall"),
        ("code>=3", "has no limit"),
        ("code in there", "reads no"),
        ("webhook:https://x", "name of an environment variable"),
    ],
)
def test_what_is_no_trigger_is_refused(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match="when of the schedule is not valid") as refusal:
        schedule(text)
    assert expected in refusal.value.expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"when": ("events>=3", "events>=4")}, "there once"),
        ({"when": ("drift:price",), "flow": "refresh"}, "a run of the flow train"),
        ({"when": ("events>=3",), "flow": "refresh"}, "a run of the flow train or features"),
        ({"when": ("code",), "check_every": "30s"}, "the shortest is 1m"),
        ({"when": ("code",), "cooldown": "soon"}, "a number and a unit"),
        ({"when": ("code",), "budget": {"runs": 0}}, "greater than or equal to 1"),
        ({"when": ("code",), "false_alarms": 0.7}, "less than 0.5"),
        ({"when": ()}, "has 0 fields"),
    ],
)
def test_settings_of_triggers_that_do_not_fit_are_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as refusal:
        schedule(**values)
    assert expected in str(refusal.value)


def test_without_a_cron_expression_nothing_is_due_and_windows_are_those_of_the_clock() -> None:
    one = schedule("code", window="1d", lag="6h", zone="Europe/Berlin")
    assert list(due([one], after=NOW, until=datetime(2027, 1, 1, tzinfo=UTC))) == []
    window = one.window_of(NOW)
    assert (str(window.end), str(window.start)) == ("2026-11-01 06:00:00+00:00", "2026-10-31 06:00:00+00:00")


def test_the_rate_is_divided_among_the_triggers_that_may_fire_by_chance() -> None:
    assert schedule("events>=3", "code").alpha == 0.05
    assert schedule("drift:price", "decay:ndcg@10", "code", false_alarms=0.1).alpha == 0.05
