"""The data window of a scheduled run: what a cluster may say of the time, and what comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.ingest.config import IngestConfig
from components.ingest.window import BACKFILL, TRIGGER_FILE, with_scheduled_window
from rankline.errors import UsageError

RAW = ("[[ScheduledTime]]", "{{$.pipeline_job_schedule_time_utc}}")  # as a cluster leaves them that knows neither
NIGHTLY = {"name": "nightly", "cron": "0 0 3 * * *", "window": "1d", "lag": "1h"}
CONFIG = IngestConfig(source="/data")


def window(folder: Path, *result: str, **schedule: Any) -> tuple[str | None, str | None]:
    config = with_scheduled_window(CONFIG, {**NIGHTLY, **schedule}, result, folder)
    return config.window_start, config.window_end


def test_a_run_that_no_schedule_began_keeps_its_settings(tmp_path: Path) -> None:
    assert with_scheduled_window(CONFIG, None, ("", ""), tmp_path) is CONFIG
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "reported",
    [
        ("20261101030000", RAW[1]),  # the run's parameter alone is filled in
        (RAW[0], "2026-11-01T03:00:00Z"),  # the placeholder alone
        ("20261101030000", "2026-11-01T03:07:41Z"),  # the placeholder holds the time at which a late run began
        ("2026-11-01T03:00:00Z", ""),
        ("2026-11-01T04:00:00+01:00", ""),
    ],
)
def test_the_window_ends_at_the_scheduled_time(tmp_path: Path, reported: tuple[str, str]) -> None:
    assert window(tmp_path, *reported) == ("2026-10-31T02:00:00+00:00", "2026-11-01T02:00:00+00:00")
    trigger = json.loads((tmp_path / TRIGGER_FILE).read_text())
    assert trigger["kind"] == "scheduled"
    assert trigger["schedule"] == "nightly"
    assert trigger["scheduled_at"] == "2026-11-01T03:00:00+00:00"
    assert trigger["window_end"] == "2026-11-01T02:00:00+00:00"


def test_a_backfill_passes_its_own_time_to_the_run(tmp_path: Path) -> None:
    result = (f"{BACKFILL}2026-11-01T03:00:00+00:00", "2026-11-22T12:00:00Z")
    assert window(tmp_path, *result) == ("2026-10-31T02:00:00+00:00", "2026-11-01T02:00:00+00:00")
    assert json.loads((tmp_path / TRIGGER_FILE).read_text())["kind"] == "backfill"


@pytest.mark.parametrize("instant", ["yesterday", "2026-11-01T03:00:07+00:00", ""])
def test_a_backfill_without_its_scheduled_time_is_refused(tmp_path: Path, instant: str) -> None:
    with pytest.raises(UsageError, match="does not pass the scheduled time"):
        window(tmp_path, BACKFILL + instant, "2026-11-22T12:00:00Z")


def test_without_a_length_it_holds_all_there_is(tmp_path: Path) -> None:
    assert window(tmp_path, "20261101030000", window="", lag="0s") == (None, "2026-11-01T03:00:00+00:00")


@pytest.mark.parametrize(
    ("reported", "matches"),
    [
        (RAW, "[[ScheduledTime]] and {{$.pipeline_job_schedule_time_utc}}"),
        (("", ""), "nothing and nothing"),
        ((RAW[0], "2026-11-01T03:07:41Z"), "2026-11-01T03:07:41Z"),  # a run's beginning, which fires at no second 0
    ],
)
def test_a_missing_time_is_refused_without_a_retry(tmp_path: Path, reported: tuple[str, str], matches: str) -> None:
    with pytest.raises(UsageError, match="does not pass the scheduled time") as refusal:
        window(tmp_path, *reported)
    assert matches in str(refusal.value)
    assert refusal.value.final
    assert not list(tmp_path.iterdir())
