"""Times as loggers and shops write them: what ingest reads of each spelling, and what a proposal says of it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from onboarding.inference.proposal import propose
from onboarding.survey.survey import survey
from tests.components.test_ingest_text import run, table

AT = datetime(2023, 3, 28, 10, 40, tzinfo=UTC)
ISO = [
    "2023-03-28T10:40:00Z", "2023-03-28T10:40:00.000Z", "2023-03-28 10:40:00", "2023-03-28T12:40:00+0200",
    "2023-03-28T12:40:00+02", "2023-03-28 12:40:00 +02:00", "2023-03-28 10:40:00,000", "2023-03-28 10:40:00,000Z",
    "2023-03-28T10:40:00Z[UTC]", "2023-03-28T12:40:00+02:00[Europe/Berlin]", "2023-03-28 10:40:00 +0000 UTC",
    "2023-03-28T10:40:00 GMT", "2023-03-28t10:40:00z", "20230328T104000Z", "20230328T104000", "20230328T1040Z",
    "20230328T124000+0200", "2023-03-28T10:40Z", "2023-03-28T10:40:00.000000000Z",
]  # fmt: skip


@pytest.mark.parametrize("text", ISO)
def test_iso_in_every_spelling(tmp_path: Path, text: str) -> None:
    rows = [{"user_id": "u", "item_id": "i", "timestamp": text}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run(tmp_path, "log.jsonl", columns={"timestamp_unit": "iso", "time_zone": "UTC"})
    assert table(tmp_path, "events")[0]["event_timestamp"] == AT


@pytest.mark.parametrize(
    "text",
    ["10:40", "2023", "2023-03-28 10:40 PM", "2023-13-28T10:40:00Z", "20231328", "2023-03-28T10:40:00 PST"],
)
def test_what_is_no_time_is_none(tmp_path: Path, text: str) -> None:
    rows = [{"user_id": "u", "item_id": "i", "timestamp": each} for each in (text, "2023-03-28")]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = {"timestamp_unit": "iso", "time_zone": "UTC"}
    result = run(tmp_path, "log.jsonl", columns=columns, max_rejected_share=0.5)
    assert result["rejected"]["events"] == {"unparsable timestamp": 1}


@pytest.mark.parametrize(
    ("unit", "values"),
    [
        ("ms", ["/Date(1680000000000)/", "/Date(1680000000000+0200)/", "1680000000000"]),
        ("s", ["1680000000", "1680000000.0", "1,680,000,000"]),
        ("excel", ["45013.4444444444", 45013.44444444444]),
        ("ticks", ["638155968000000000", 638155968000000000]),
    ],
)
def test_units_of_sheets_and_of_net(tmp_path: Path, unit: str, values: list[object]) -> None:
    expected = AT if unit in ("excel", "ticks") else datetime(2023, 3, 28, 10, 40, tzinfo=UTC)
    rows = [{"user_id": f"u{n}", "item_id": "i", "timestamp": value} for n, value in enumerate(values)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run(tmp_path, "log.jsonl", columns={"timestamp_unit": unit, "time_zone": "UTC"})
    times = [event["event_timestamp"] for event in table(tmp_path, "events")]
    assert all(abs(at - expected) < timedelta(seconds=1) for at in times), times


# a strftime format of Python -> what a proposal reads it as, and whether the zone has to be asked for
SPELLINGS = {
    "%a, %d %b %Y %H:%M:%S GMT": ("%d %b %Y %H:%M:%S %Z", False),
    "%a, %d %b %Y %H:%M:%S +0000": ("%d %b %Y %H:%M:%S %z", False),
    "%a %b %d %H:%M:%S %Y": ("%b %d %H:%M:%S %Y", True),
    "%a %b %d %H:%M:%S +0000 %Y": ("%b %d %H:%M:%S %z %Y", False),
    "%a %b %d %H:%M:%S UTC %Y": ("%b %d %H:%M:%S %Z %Y", False),
    "%d/%b/%Y:%H:%M:%S +0000": ("%d/%b/%Y:%H:%M:%S %z", False),
    "[%d/%b/%Y:%H:%M:%S +0000]": ("[%d/%b/%Y:%H:%M:%S %z]", False),
    "%d-%b-%y": ("%d-%b-%y", True),
    "%d-%b-%y %I.%M.%S.%f %p": ("%d-%b-%y %I.%M.%S.%f %p", True),
    "%b %d %Y %I:%M%p": ("%b %d %Y %I:%M%p", True),
    "%B %d, %Y": ("%b %d, %Y", True),
    "%d %b %Y, %H:%M": ("%d %b %Y, %H:%M", True),
    "%m/%d/%Y, %I:%M:%S\u202f%p": ("%m/%d/%Y, %I:%M:%S %p", True),
    "%d.%m.%y %H:%M": ("%d.%m.%y %H:%M", True),
    "%Y年%m月%d日": ("%Y年%m月%d日", True),
    "%Y%m%d": ("%Y%m%d", True),
    "%Y%m%d%H%M%S": ("%Y%m%d%H%M%S", True),
    "%Y-%m-%d-%H.%M.%S.%f": ("%Y-%m-%d-%H.%M.%S.%f", True),
    "%Y%m%dT%H%M%SZ": ("iso", False),
    "%Y-%m-%d %H:%M:%S,123": ("iso", True),
    "%Y-%m-%d %H:%M:%S +0000 UTC": ("iso", False),
}


@pytest.mark.parametrize("form", SPELLINGS)
def test_a_proposal_reads_times_as_they_are_written(tmp_path: Path, form: str) -> None:
    unit, is_local = SPELLINGS[form]
    times = [AT + timedelta(days=n % 400, minutes=7 * n) for n in range(300)]
    log = [{"user_id": f"u{n % 40}", "item_id": f"i{n % 20}", "when": f"{at:{form}}"} for n, at in enumerate(times)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    proposal = propose(survey(str(tmp_path)), name="mine")
    assert (proposal.column("events", "timestamp"), proposal.time_unit) == ("when", unit)
    assert [gap.flag for gap in proposal.gaps if gap.flag] == ["--time-zone"] * is_local
    columns = {"timestamp": "when", "timestamp_unit": unit, "time_zone": "UTC"}
    result = run(tmp_path, "log.jsonl", columns=columns, max_rejected_share=0.0)
    assert result["event_time"]["first"][:10] == "2023-03-28"


def test_numbers_of_eight_digits_that_are_no_dates_stay_numbers(tmp_path: Path) -> None:
    rows = [{"user_id": f"u{n}", "item_id": 20_230_001 + n * 37, "timestamp": 1_680_000_000 + n} for n in range(200)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert propose(survey(str(tmp_path)), name="mine").column("events", "item_id") == "item_id"
