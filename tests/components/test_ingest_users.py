"""Columns of users in ingest: their texts and the zones of their clocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from pydantic import ValidationError

from components.ingest.config import Columns
from components.ingest.step import ingest
from rankline.errors import SourceError
from tests.components.context_world import ingest_config

EVENTS = "user_id,item_id,timestamp,device,holiday,clock\nu1,i1,1700000000,phone,0,Asia/Tokyo\nu2,i1,1700000060,,1,\n"
USERS = (
    "user_id,gender,age,about,zone\nu1,f,30,i climb rocks,Europe/Berlin\nu2,m,,,Berlin\nu3,m,40,i cook,europe/berlin\n"
)


def run(folder: Path, *, events: str = EVENTS, max_rejected_share: float = 1.0, **columns: Any) -> Path:
    """Ingest three users and two events; as many values as that may be unknown."""
    source = folder / "source"
    source.mkdir()
    for name, text in (("events", events), ("users", USERS), ("items", "item_id,title\ni1,thing\n")):
        (source / f"{name}.csv").write_text(text)
    config = ingest_config(source, **columns).model_copy(update={"max_rejected_share": max_rejected_share})
    ingest(folder / "raw", config=config)
    return folder / "raw"


def test_texts_and_zones_of_users_are_kept(tmp_path: Path) -> None:
    raw = run(tmp_path)
    users = parquet.read_table(raw / "users.parquet").to_pydict()
    assert users["about"] == ["i climb rocks", None, "i cook"]
    assert users["age"] == [30.0, None, 40.0]
    assert users["time_zone"] == ["Europe/Berlin", None, None]  # what is no zone is none
    summary = json.loads((raw / "summary.json").read_text())
    assert (summary["user_texts"], summary["time_zones"]) == (["about"], ["users"])
    assert summary["time_zones_not_read"] == {"users": 2}
    assert "time_zone_as_written" not in users


def test_events_may_have_a_zone(tmp_path: Path) -> None:
    raw = run(tmp_path, event_time_zone="clock")
    assert parquet.read_table(raw / "events.parquet")["time_zone"].to_pylist() == ["Asia/Tokyo", None]
    assert json.loads((raw / "summary.json").read_text())["time_zones"] == ["users", "events"]


@pytest.mark.parametrize("zone", ["GMT+2", "europe/berlin", "Mars/X", "CET+1"])
def test_zones_that_are_none_are_refused_beyond_a_share(tmp_path: Path, zone: str) -> None:
    with pytest.raises(SourceError, match="1 of 1 time zones of events are unknown") as refused:
        run(
            tmp_path, events=EVENTS.replace("Asia/Tokyo", zone), max_rejected_share=0.4, user_time_zone="",
            event_time_zone="clock",
        )  # fmt: skip
    assert zone in refused.value.found


def test_without_them_the_summary_is_as_before(tmp_path: Path) -> None:
    raw = run(tmp_path, user_texts=(), user_time_zone="")
    assert not {"user_texts", "time_zones"} & json.loads((raw / "summary.json").read_text()).keys()
    assert "time_zone" not in parquet.read_schema(raw / "users.parquet").names


@pytest.mark.parametrize("setting", ["user_time_zone", "event_time_zone"])
def test_a_zone_column_has_to_exist(setting: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no column 'nowhere'"):
        run(tmp_path, **{setting: "nowhere"})


@pytest.mark.parametrize(
    "columns",
    [
        {"user_texts": ("Row",)},
        {"user_texts": ("about",), "user_attributes": ("About",)},
        {"user_time_zone": "zone", "user_numbers": ("time_zone",)},
        {"event_time_zone": "zone", "event_attributes": ("a.Time_Zone",)},
    ],
)
def test_names_that_would_collide_are_refused(columns: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Columns(**columns)
