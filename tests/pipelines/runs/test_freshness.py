"""How fresh features are: read from watermarks, the ledger and the champion; exit codes for whoever watches."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from components.promote.store_lock import store_lock
from pipelines.runs.freshness import freshness, newest_data, parse_duration_s
from rankline.errors import UsageError
from rankline.io.files import write_json
from tests.pipelines.test_features import promoted

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def watermark(workspace: Path, service: str, *, until: datetime, **result: Any) -> None:
    """What a materialization leaves behind."""
    write_json(workspace / "online" / service / "watermark.json", {"until": until.isoformat(), **result})


def ingested(workspace: Path, run: str, *, last: datetime) -> None:
    entry = {"result": {"event_time": {"last": last.isoformat()}}}
    write_json(workspace / "runs" / run / "ingest.json", entry)


def requested(workspace: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["features", "status", "-w", str(workspace), *arguments])
    return done.exit_code, done.output


def test_each_service_with_who_reads_it_and_how_far_it_is_behind(tmp_path: Path) -> None:
    promoted(tmp_path)
    result = {"owner": {"who": "schedule hourly", "run": "r7"}, "entities": {"user_history": 3, "item_content": 4}}
    at = (NOW - timedelta(minutes=5)).isoformat()
    watermark(tmp_path, "ranking_v1", until=NOW - timedelta(hours=2), at=at, took_s=8.5, **result)
    watermark(tmp_path, "ranking_v0", until=NOW - timedelta(days=30), project="rankline")  # of an earlier version
    ingested(tmp_path, "a", last=NOW - timedelta(hours=1))
    ingested(tmp_path, "b", last=NOW - timedelta(days=9))
    write_json(tmp_path / "runs" / "c" / "ingest.json", {"result": {}})  # it failed, or is under way
    assert newest_data(tmp_path) == NOW - timedelta(hours=1)
    read, left = freshness(tmp_path, now=NOW)
    assert (read.service, read.champion_reads, read.owner, read.run) == ("ranking_v1", True, "schedule hourly", "r7")
    assert (read.lag_s, read.behind_data_s, read.age_s, read.took_s, read.rows) == (7200, 3600, 300, 8.5, 7)
    assert (left.service, left.champion_reads, left.owner, left.age_s) == ("ranking_v0", False, "", None)
    with store_lock(tmp_path / "online" / "ranking_v1", timeout_s=1, who="promotion", run="r8"):
        assert "promotion, run r8: process" in freshness(tmp_path, now=NOW)[0].writer
    assert freshness(tmp_path, now=NOW)[0].writer == ""


def test_what_is_exceeded_is_an_exit_code(tmp_path: Path) -> None:
    promoted(tmp_path)
    now = datetime.now(UTC)
    code, lines = requested(tmp_path, "--max-lag", "2h")
    assert (code, "is not online, and the champion reads it" in lines) == (1, True)
    watermark(tmp_path, "ranking_v1", until=now - timedelta(hours=1), at=now.isoformat())
    watermark(tmp_path, "ranking_v0", until=now - timedelta(days=30))  # nobody reads it: it may be as old as it is
    assert requested(tmp_path)[0] == 0
    assert requested(tmp_path, "--max-lag", "2h", "--max-age", "10m")[0] == 0
    code, lines = requested(tmp_path, "--max-lag", "30m")
    assert (code, "behind now, more than 1800 s" in lines) == (1, True)
    watermark(tmp_path, "ranking_v1", until=now, at=(now - timedelta(hours=3)).isoformat())
    assert requested(tmp_path, "--max-lag", "30m")[0] == 0
    code, lines = requested(tmp_path, "--max-age", "30m", "--json")
    result = json.loads(lines)
    assert (code, len(result["exceeded"]), result["services"][0]["service"]) == (1, 1, "ranking_v1")


@pytest.mark.parametrize("content", ['{"until": "nonsense"}', "{}", "[1]", "{", '{"until": "2026-11-22T10:00:00"}'])
def test_a_damaged_watermark_is_reported(tmp_path: Path, content: str) -> None:
    promoted(tmp_path)
    watermark(tmp_path, "ranking_v1", until=NOW)
    (tmp_path / "online" / "ranking_v1" / "watermark.json").write_text(content)
    code, lines = requested(tmp_path)
    assert (code, "ranking_v1 has a watermark that cannot be read" in lines, "damaged" in lines) == (1, True, True)
    assert requested(tmp_path, "--json")[0] == 1


def test_without_events_no_data_is_too_old(tmp_path: Path) -> None:
    promoted(tmp_path)
    watermark(tmp_path, "ranking_v1", until=datetime.fromtimestamp(0, UTC), at=NOW.isoformat())
    (result,) = freshness(tmp_path, now=NOW)
    assert (result.lag_s, result.exceeds(lag=60), result.exceeds(age=60)) == (None, [], [])


def test_an_invalid_duration_is_refused() -> None:
    assert [parse_duration_s(text) for text in ("90s", "30m", "2h", "1d")] == [90, 1800, 7200, 86_400]
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration_s("2 hours")
