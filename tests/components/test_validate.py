"""Every expectation is seen to fail on data made bad for it, and to pass on good data."""

import html
import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from components.ingest.step import ingest
from components.validate import frames, profile, step, suites
from components.validate.checkpoint import checkpoint
from components.validate.config import ValidateConfig
from components.validate.lineage import lineage
from components.validate.step import validate
from pipelines.recipes import labels
from rankline.errors import IntegrityError, ValidationFailed
from rankline.runtime.lineage import LineageFacts
from rankline.runtime.run_context import RunContext
from tests.components import events as data
from tests.components.events import Rows

# age and the change against an earlier run are asked for, so that every expectation is at work
CONFIG = ValidateConfig(max_age_days=2, min_year=2000)

SCHEMA = "every column is present with its type"
ROWS = "events: the rows of {} changed by a share of at most # since the last good run"
DRIFT = "events: a share of at most # of the values of {} moved since the last good run"
GONE = "tables: every column of the last good run is still there"
ONE_CLASS = (
    "events: {} has more than one value (a label with one value teaches nothing by itself: "
    "only sampled negatives differ from it)"
)
MIXED = "{}: no {} is present with and without a fraction (# and #: mixed types)"
WARNINGS = {
    "items: at least #% of the items have a title or a text",
    "items: no item was created after #",
    "items: every language is a code such as en or zh-CN",
    "items: at most #% of the items are unavailable",
    "users: at least #% of the users have a history",
    GONE,
    *map(ONE_CLASS.format, ("click", "rating")),
    *map(ROWS.format, ("items", "users", "queries", "events")),
    *map(DRIFT.format, ("click", "rating", "price")),
}


def named(matches: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """`table: sentence`, numbers and moments written as #, -> result."""
    return {re.sub(r"\d+([-:. ]+\d+)*", "#", f"{each['table']}: {each['sentence']}"): each for each in matches}


def results(report: Path) -> dict[str, dict[str, Any]]:
    return named(json.loads((report / "results.json").read_text()))


def failed(report: Path) -> list[str]:
    return [name for name, each in results(report).items() if not each["success"]]


SCHEMAS = {
    **data.SCHEMAS,
    "items": data.SCHEMAS["items"].append(pa.field("image", pa.list_(pa.float32()))),
    "events": data.SCHEMAS["events"].append(pa.field("split", pa.string())),
}


def good_rows() -> Rows:
    """Good rows with all that may be there, too: languages, vectors, turns, a split."""
    rows = data.rows()
    for item in rows["items"]:
        item.update(language="en" if item["item_id"] != "i1" else "zh-CN", image=[0.5, 1.0])
    rows["items"][5].update(image=None, available=None)
    rows["queries"].append({"query_id": "q3", "text": None, "turns": ["where is it", "and now?"]})
    for n, event in enumerate(rows["events"]):
        event["split"] = ("train", "valid", "test")[n // 50 + n // 55]
    return rows


def lay(raw: Path, rows: Rows, types: dict[str, pa.Schema] | None = None) -> Path:
    return data.write(raw, rows, types={**SCHEMAS, **(types or {})})


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Great Expectations for all faults: its reports are looked at elsewhere.

    A fault spoils one table; what was asked of the very same frame before is answered as it was.
    """
    known: dict[tuple[Any, ...], list[dict[str, Any]]] = {}

    def remembered(table: str, part: str, frame: pd.DataFrame, expectations: list[Any]) -> list[dict[str, Any]]:
        limits = [
            {k: str(v) for k, v in each.dict().items() if k not in ("id", "rendered_content")} for each in expectations
        ]
        key = (table, part, frame.to_csv(), str(frame.dtypes), str([type(each) for each in expectations]), str(limits))
        if key not in known:
            known[key] = check(table, part, frame, expectations)
        return known[key]

    with checkpoint(tmp_path_factory.mktemp("docs")) as check:
        yield remembered


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The profile of an earlier good run: the same data, one event fewer."""
    folder = tmp_path_factory.mktemp("before")
    rows = good_rows()
    rows["events"].pop()
    validate(lay(folder / "raw", rows), folder / "clean", folder / "report", config=CONFIG)
    return folder / "clean" / "profile.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, before: Path) -> Path:
    """A run over good data, compared with the one before."""
    folder = tmp_path_factory.mktemp("good")
    raw = lay(folder / "raw", good_rows())
    validate(raw, folder / "clean", folder / "report", config=CONFIG, previous=before)
    return folder


def edit(table: str, row: int, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[table][row].update(values)


def repeat(table: str, row: int, **values: Any) -> Callable[[Rows], None]:
    """The row again at the table's end."""
    return lambda rows: rows[table].append({**rows[table][row], **values})


def constant(label: str, value: float, *, but: float | None = None) -> Callable[[Rows], None]:
    """A label that is the same everywhere, ``but`` for one event."""

    def spoil(rows: Rows) -> None:
        for event in rows["events"]:
            event[label] = value
        if but is not None:
            rows["events"][0][label] = but

    return spoil


def dearer(rows: Rows) -> None:
    """Every price is a hundred times as high."""
    for item in rows["items"]:
        item["price"] *= 100


def unavailable(rows: Rows) -> None:
    for item in rows["items"][:7]:
        item["available"] = False


def idle(rows: Rows) -> None:
    """Only two of six users did anything."""
    for event in rows["events"]:
        event["user_id"] = f"u{int(event['user_id'][1:]) % 2}"


def renamed(table: str, old: str, new: str) -> Callable[[Rows], None]:
    """A column under another name; what the schema of the table says of it is set by `lay`."""

    def spoil(rows: Rows) -> None:
        for row in rows[table]:
            row[new] = row.pop(old, None)

    return spoil


def more(table: str, key: str, count: int, **values: Any) -> Callable[[Rows], None]:
    return lambda rows: rows[table].extend({key: f"new{n}", **values} for n in range(count))


def fewer_events(rows: Rows) -> None:
    del rows["events"][29:]


def nothing(rows: Rows) -> None:
    """Good data, under a stricter setting."""


LAST = data.START + (data.EVENT_COUNT - 1) * data.HOUR
FIFTH = "000000000005"

# what fails (numbers written as #), how the data is made bad, other settings, examples the result must show
FAULTS: list[tuple[str, Callable[[Rows], Any], dict[str, Any], list[Any]]] = [
    ("items: there are at least # rows", nothing, {"min_items": 13}, []),
    ("items: every item_id is present", repeat("items", 0, item_id=None), {}, []),
    ("items: every item_id is unique", repeat("items", 3), {}, ["i3"]),
    ("items: at least #% of the items have a title or a text", edit("items", 0, title=" "), {}, ["i0"]),
    (MIXED.format("items", "item_id"), repeat("items", 3, item_id="i3.0"), {}, ["i3.0"]),
    ("items: every language is a code such as en or zh-CN", edit("items", 2, language="English"), {}, ["English"]),
    ("items: at most #% of the items are unavailable", unavailable, {}, ["i0", "i4"]),
    ("items: every image is as long as the others", edit("items", 2, image=[0.5]), {}, ["i2 (1)"]),
    ("items: no price is negative", edit("items", 2, price=-0.5), {}, [-0.5]),
    ("items: no item was created after #", edit("items", 2, created_at=LAST + 2 * data.HOUR), {}, []),
    ("users: there are at least # rows", nothing, {"min_users": 7}, []),
    ("users: every user_id is present", repeat("users", 0, user_id=None), {}, []),
    ("users: every user_id is unique", repeat("users", 3), {}, ["u3"]),
    (MIXED.format("users", "user_id"), repeat("users", 3, user_id="u3.0"), {}, ["u3.0"]),
    ("users: at least #% of the users have a history", idle, {}, ["u2", "u5"]),
    ("queries: there are at least # rows", nothing, {"min_queries": 5}, []),
    ("queries: every query_id is present", repeat("queries", 0, query_id=None), {}, []),
    ("queries: every query_id is unique", repeat("queries", 2), {}, ["q2"]),
    (MIXED.format("queries", "query_id"), repeat("queries", 1, query_id="q1.0"), {}, ["q1.0"]),
    ("queries: every query has a text or turns", edit("queries", 1, text="  "), {}, ["q1"]),
    ("queries: every query has a text or turns", edit("queries", 3, turns=[" "]), {}, ["q3"]),
    ("events: there are at least # rows", nothing, {"min_events": 61}, []),
    ("events: every event_id is present", edit("events", 5, event_id=None), {}, []),
    ("events: every event_id is unique", edit("events", 5, event_id="000000000004"), {}, ["000000000004"]),
    ("events: every event_timestamp is present", edit("events", 5, event_timestamp=None), {}, []),
    ("events: every known_at is present", edit("events", 5, known_at=None), {}, []),
    ("events: every item_id is present", edit("events", 5, item_id=None), {}, []),
    ("events: every event has a user or a query", edit("events", 5, user_id=None), {}, [FIFTH]),
    ("events: every item_id is one of items", edit("events", 5, item_id="i99"), {}, ["i99"]),
    ("events: every user_id is one of users", edit("events", 5, user_id="u99"), {}, ["u99"]),
    ("events: every query_id is one of queries", edit("events", 4, query_id="q99"), {}, ["q99"]),
    (
        "events: no event is a duplicate (user, query, item, time)",
        repeat("events", -1, event_id="000000000060"),
        {},
        ["000000000059", "000000000060"],
    ),
    (
        "events: every event is in [#, #)",
        edit("events", 0, event_timestamp=data.START.replace(year=1999)),
        {},
        ["1999-01-01T00:00:00+00:00"],
    ),
    (
        "events: every event is in [#, #)",
        edit("events", -1, event_timestamp=LAST + data.HOUR, known_at=LAST + data.HOUR),
        {},
        ["2024-01-03T12:00:00+00:00"],
    ),
    ("events: no event is known before it happens", edit("events", 5, known_at=data.START), {}, [FIFTH]),
    (
        "events: the events are in order of time",
        edit("events", 5, event_timestamp=data.START + timedelta(minutes=1)),
        {},
        [FIFTH],
    ),
    ("events: every click is in [#, #]", edit("events", 5, click=2.0), {}, [2.0]),
    ("events: every rating is in [#, #]", edit("events", 5, rating=0.5), {}, [0.5]),
    ("events: every split is train, valid or test", edit("events", 5, split="dev"), {}, ["dev"]),
    ("events: every split is train, valid or test", edit("events", 5, split=None), {}, ["none"]),
    (ONE_CLASS.format("click"), constant("click", 1.0), {"max_drift": 0.6}, []),
    (ONE_CLASS.format("rating"), constant("rating", 3.0), {"max_drift": 0.9}, []),
    ("events: the newest event is at most # days old", nothing, {"now": "2024-01-09"}, []),
    (ROWS.format("items"), more("items", "item_id", 7, title="New"), {}, []),
    (ROWS.format("users"), more("users", "user_id", 4), {}, []),
    (ROWS.format("queries"), more("queries", "query_id", 3, text="new"), {}, []),
    (ROWS.format("events"), fewer_events, {}, []),
    (DRIFT.format("click"), constant("click", 1.0, but=0.0), {}, []),
    (DRIFT.format("rating"), constant("rating", 3.0, but=2.0), {}, []),
    (DRIFT.format("price"), dearer, {}, []),
]


@pytest.mark.integration
@pytest.mark.parametrize(("what", "spoil", "settings", "examples"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_fault_fails_its_expectation_and_no_other(
    tmp_path: Path,
    before: Path,
    check: step.Check,
    what: str,
    spoil: Callable[[Rows], Any],
    settings: dict[str, Any],
    examples: list[Any],
) -> None:
    rows = good_rows()
    spoil(rows)
    raw = lay(tmp_path / "raw", rows)
    config = ValidateConfig(**{**CONFIG.model_dump(), **settings})
    actual, _ = step.examine(raw, check, config=config, previous=before)
    bad = {name: each for name, each in named(actual).items() if not each["success"]}
    assert list(bad) == [what]
    assert [example for example in examples if example not in bad[what]["examples"]] == []


@pytest.mark.integration
def test_a_critical_fault_stops_the_flow_and_leaves_the_report(tmp_path: Path) -> None:
    rows = data.rows()
    edit("events", 5, item_id="i99")(rows)
    edit("items", 2, price=-0.5)(rows)
    clean, report = tmp_path / "clean", tmp_path / "report"
    with pytest.raises(ValidationFailed) as refused:
        validate(data.write(tmp_path / "raw", rows), clean, report, config=CONFIG)
    assert "events: every item_id is one of items: fails for 1 of 60 rows (i99)" in str(refused.value)
    assert "items: no price is negative: fails for 1 of 12 rows (-0.5)" in str(refused.value)
    assert str(report / "index.html") in str(refused.value)
    assert failed(report) == ["items: no price is negative", "events: every item_id is one of items"]
    assert (report / "index.html").is_file()
    assert not clean.exists()


def test_a_warning_is_reported_and_the_step_continues(tmp_path: Path) -> None:
    rows = data.rows()
    edit("items", 0, title=" ")(rows)
    result = validate(data.write(tmp_path / "raw", rows), tmp_path / "clean", tmp_path / "report", config=CONFIG)
    assert result["warnings"] == [
        "items: at least 95% of the items have a title or a text: fails for 1 of 12 rows (i0)"
    ]
    assert (tmp_path / "clean" / "events.parquet").is_file()


@pytest.mark.integration
def test_good_data_passes_and_every_expectation_has_a_fault_above(good: Path) -> None:
    assert failed(good / "report") == []
    content = {name for name in results(good / "report") if not name.endswith(SCHEMA)}
    assert content == {GONE, *(what for what, *_ in FAULTS)}  # a column that is gone has a test below
    assert {name for name, each in results(good / "report").items() if each["severity"] == "warning"} == WARNINGS


def _with_field(schema: pa.Schema, name: str, type: pa.DataType) -> pa.Schema:
    return schema.set(schema.get_field_index(name), pa.field(name, type))


@pytest.mark.parametrize("table", list(data.SCHEMAS))
@pytest.mark.parametrize("matches", ["absent", "double"])
def test_a_missing_or_mistyped_column_stops_before_anything_else_is_asked(
    tmp_path: Path, check: step.Check, table: str, matches: str
) -> None:
    schema = data.SCHEMAS[table]
    key = schema.names[0]
    rows = data.rows()
    for row in rows[table]:
        row[key] = None
    bad = schema.remove(0) if matches == "absent" else _with_field(schema, key, pa.float64())
    raw = lay(tmp_path / "raw", rows, {table: bad})
    result, profile = step.examine(raw, check, config=CONFIG, previous=None)
    assert [name for name, each in named(result).items() if not each["success"]] == [f"{table}: {SCHEMA}"]
    assert f"{key}: {matches}" in str([each["examples"] for each in result])
    assert {name.split(": ")[1] for name in named(result)} == {SCHEMA}
    assert profile == {}


def test_a_label_that_is_no_number_is_refused(tmp_path: Path) -> None:
    rows = data.rows()
    for row in rows["events"]:
        row["rating"] = "good"
    types = {"events": _with_field(data.SCHEMAS["events"], "rating", pa.string())}
    with pytest.raises(ValidationFailed, match="rating: string"):
        validate(data.write(tmp_path / "raw", rows, types=types), tmp_path / "c", tmp_path / "r", config=CONFIG)


@pytest.mark.integration
def test_a_label_that_is_gone_has_drifted(tmp_path: Path, before: Path) -> None:
    schema = SCHEMAS["events"]
    types = {"events": schema.remove(schema.get_field_index("click"))}
    rows = good_rows()
    for row in rows["events"]:
        del row["click"]
    raw = lay(tmp_path / "raw", rows, types)
    result = validate(raw, tmp_path / "clean", tmp_path / "report", config=CONFIG, previous=before)
    assert failed(tmp_path / "report") == [GONE, DRIFT.format("click")]
    assert (result["changes"]["click_drift"], result["changes"]["events_rows_change"]) == (1.0, round(1 / 59, 6))


@pytest.mark.integration
@pytest.mark.parametrize(("table", "column"), [("items", "release_year"), ("events", "split")])
def test_a_renamed_column_is_reported_with_the_new_one(tmp_path: Path, before: Path, table: str, column: str) -> None:
    schema, rows = SCHEMAS[table], good_rows()
    place = schema.get_field_index(column)
    renamed(table, column, "other")(rows)
    raw = lay(tmp_path / "raw", rows, {table: schema.set(place, pa.field("other", schema.field(place).type))})
    result = validate(raw, tmp_path / "clean", tmp_path / "report", config=CONFIG, previous=before)
    assert result["warnings"] == [
        f"{GONE}: fails for 1 of {sum(map(len, SCHEMAS.values()))} rows "
        f"(column {column} of {table} was in the last run and is missing; new: other)"
    ]
    strict = CONFIG.model_copy(update={"changes": "critical"})
    with pytest.raises(
        ValidationFailed, match=f"column {column} of {table} was in the last run and is missing; new: other"
    ):
        validate(raw, tmp_path / "clean2", tmp_path / "report2", config=strict, previous=before)


@pytest.mark.integration
def test_a_clock_behind_the_last_run_is_refused(tmp_path: Path, before: Path) -> None:
    """The machine's clock went back: what it sees is older than what was there already."""
    rows = good_rows()
    del rows["events"][40:]
    raw = lay(tmp_path / "raw", rows)
    early = CONFIG.model_copy(update={"now": (data.START + 41 * data.HOUR).isoformat()})
    with pytest.raises(ValidationFailed, match="the clock is not behind the newest event of the last good run"):
        validate(raw, tmp_path / "clean", tmp_path / "report", config=early, previous=before)
    right = CONFIG.model_copy(update={"now": (data.START + 59 * data.HOUR).isoformat()})
    validate(raw, tmp_path / "clean", tmp_path / "report2", config=right, previous=before)


@pytest.mark.integration
def test_a_clock_behind_the_events_is_refused(tmp_path: Path) -> None:
    early = CONFIG.model_copy(update={"now": (data.START + 41 * data.HOUR).isoformat()})
    with pytest.raises(ValidationFailed, match=r"every event is in .*, 2024-01-02 17:00\): fails for 19 of 60 rows"):
        validate(lay(tmp_path / "raw", good_rows()), tmp_path / "clean", tmp_path / "report", config=early)


@pytest.mark.integration
def test_a_source_without_users_or_without_queries_is_fine(tmp_path: Path) -> None:
    for name, (key, table) in {"search": ("user_id", "users"), "visits": ("query_id", "queries")}.items():
        rows = good_rows()
        rows[table].clear()
        for n, event in enumerate(rows["events"]):
            event.update({"query_id": f"q{n % 3}", key: None})
        validate(lay(tmp_path / name, rows), tmp_path / f"c {name}", tmp_path / f"r {name}", config=CONFIG)
        assert failed(tmp_path / f"r {name}") == []


def test_all_that_is_at_fault_is_counted_and_some_of_it_named(
    tmp_path: Path, check: step.Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MAX_NAMED", 2)
    rows = good_rows()
    for event in rows["events"][::4]:
        event["item_id"] = f"x{event['event_id'][-2:]}"
    raw = lay(tmp_path / "raw", rows)
    actual, _ = step.examine(raw, check, config=CONFIG, previous=None)
    (unknown,) = [each for each in actual if not each["success"]]
    assert unknown["unexpected_count"] == 15
    assert unknown["rows"] == 60
    assert unknown["examples"] == ["x00", "x04", *[frames.OTHERS] * 3]


@pytest.mark.integration
def test_a_change_stops_the_flow_where_the_settings_say_so(tmp_path: Path, before: Path) -> None:
    rows = good_rows()
    fewer_events(rows)
    config = CONFIG.model_copy(update={"changes": "critical"})
    raw = lay(tmp_path / "raw", rows)
    with pytest.raises(ValidationFailed, match=r"found -0\.508475"):
        validate(raw, tmp_path / "clean", tmp_path / "report", config=config, previous=before)


def test_a_table_that_is_missing_is_refused(tmp_path: Path) -> None:
    raw = data.write(tmp_path / "raw", data.rows())
    (raw / "items.parquet").unlink()
    with pytest.raises(ValidationFailed, match="no table of items"):
        validate(raw, tmp_path / "clean", tmp_path / "report", config=CONFIG)


def test_clean_holds_the_same_tables_and_a_profile(good: Path) -> None:
    for name in ("items", "users", "queries", "events", "rejected"):
        assert (good / "clean" / f"{name}.parquet").read_bytes() == (good / "raw" / f"{name}.parquet").read_bytes()
    saved = json.loads((good / "clean" / "profile.json").read_text())
    assert saved["rows"] == {"items": 12, "users": 6, "queries": 4, "events": 60}
    assert saved["columns"]["items"]["image"] == "list<float>"
    assert {label: sum(value["counts"]) for label, value in saved["labels"].items()} == {
        "click": 60,
        "rating": 60,
    }


def test_the_report_is_a_site_that_names_every_sentence(good: Path) -> None:
    pages = [page.read_text() for page in (good / "report").rglob("*.html")]
    assert (good / "report" / "index.html").is_file()
    results = json.loads((good / "report" / "results.json").read_text())
    assert results
    for each in results:
        assert any(html.escape(each["sentence"]) in page or each["sentence"] in page for page in pages)


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """Great Expectations would only log it, with a stack trace."""
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "validations").write_text("in the way of the folder of that name")

    def write() -> None:
        import great_expectations.expectations as gxe

        present = gxe.ExpectColumnToExist(column="a", meta={"sentence": "a", "severity": "critical"})
        with checkpoint(tmp_path / "report") as check:
            check("items", "part", pd.DataFrame({"a": [1]}), [present])

    with pytest.raises(IntegrityError, match="report could not be written") as stop:
        write()
    assert "Error" in str(stop.value)
    assert "Traceback" not in str(stop.value)


def test_an_expectation_that_cannot_be_checked_is_a_fault(check: step.Check) -> None:
    impossible = suites.expect("it is there", "ColumnValuesToNotBeNull", severity="warning", column="nowhere")
    (result,) = check("items", "rows", pd.DataFrame({"item_id": ["i1"]}), [impossible])
    assert not result["success"]
    assert result["severity"] == "critical"
    assert "could not be evaluated" in step._describe(result)


def facts(workspace: Path, **known: Any) -> LineageFacts:
    return LineageFacts(run=RunContext(workspace, "run"), **known)


class TestProfiles:
    """A run is compared with the last good run over other data, and doing it again changes nothing."""

    def profile(self, folder: Path, name: str, content: str) -> tuple[Path, Path]:
        raw, clean = folder / f"raw {name}", folder / f"profile {name}.json"
        raw.mkdir(exist_ok=True)
        for path in (raw / "summary.json", clean):
            path.write_text(json.dumps({"data_digest": content}))
        return raw, clean

    def run(self, folder: Path, content: str) -> str | None:
        """One successful run over some data: which data it was compared with."""
        raw, clean = self.profile(folder, content, content)
        data = profile.data_digest((raw / "summary.json").read_bytes())
        previous = profile.previous_profile_for(folder, "recipe", data)
        compared = json.loads(previous.read_text())["data_digest"] if previous else None
        profile.save(folder, "recipe", clean.read_bytes())
        return compared

    def test_what_a_run_is_compared_with(self, tmp_path: Path) -> None:
        data = ["a", "a", "b", "b", "b", "a", "a", "c"]
        assert [self.run(tmp_path, each) for each in data] == [None, None, "a", "a", "a", "b", "b", "a"]

    def test_lineage_is_the_same_when_a_run_is_repeated(self, tmp_path: Path) -> None:
        seen = []
        for content in ("a", "b", "b"):
            _, clean = self.profile(tmp_path, content, content)
            seen.append(lineage(CONFIG, facts(tmp_path, data=content)))
            profile.save(tmp_path, CONFIG.profile_name, clean.read_bytes())
        assert seen[1] == seen[2] != seen[0]

    def test_a_run_of_features_leaves_no_profile(self, tmp_path: Path) -> None:
        """An hourly one would have the next training compared with an hour ago."""
        for content, flow in (("a", ""), ("b", "features"), ("c", "features")):
            profile.save(tmp_path, "recipe", self.profile(tmp_path, content, content)[1].read_bytes(), flow=flow)
        assert self.run(tmp_path, "d") == "a"

    def test_recipes_do_not_share_a_profile(self, tmp_path: Path) -> None:
        self.run(tmp_path, "a")
        assert profile.previous_profile_for(tmp_path, "other", "b") is None

    def test_age_against_the_clock_is_asked_anew_every_day(self, tmp_path: Path) -> None:
        assert "day" in lineage(ValidateConfig(max_age_days=1), facts(tmp_path))
        assert "day" not in lineage(ValidateConfig(max_age_days=1, now="2024-01-01"), facts(tmp_path))
        assert "day" not in lineage(ValidateConfig(), facts(tmp_path))

    def test_a_damaged_profile_is_no_profile(self, tmp_path: Path) -> None:
        self.run(tmp_path, "a")
        (tmp_path / "profiles" / "recipe.json").write_text("{")
        assert profile.previous_profile_for(tmp_path, "recipe", "b") is None


@pytest.mark.integration
def test_texts_that_all_have_the_same_label_are_refused_in_those_words(tmp_path: Path) -> None:
    lines = ["text,label", *(f"text number {n},positive" for n in range(120))]
    (tmp_path / "texts.csv").write_text("\n".join(lines) + "\n")
    recipe = labels(str(tmp_path))
    ingest(tmp_path / "raw", config=recipe.ingest)
    with pytest.raises(ValidationFailed, match="every text has the label 'positive'; 2 or more are needed: found 1"):
        validate(tmp_path / "raw", tmp_path / "clean", tmp_path / "report", config=recipe.validate)


@pytest.mark.integration
def test_what_the_data_brings_is_no_markup_in_the_report(tmp_path: Path) -> None:
    script, name = "<script>alert(1)</script>", '<img src=x onerror="a">&'
    rows = good_rows()
    for item in rows["items"]:
        item[name] = item.pop("image")
    rows["items"][3].update(item_id=script, title=None, text=None)
    rows["items"][4][name] = [1.0]
    items = data.SCHEMAS["items"].append(pa.field(name, pa.list_(pa.float32())))
    raw = lay(tmp_path / "raw", rows, {"items": items})
    with pytest.raises(ValidationFailed) as error:
        validate(raw, tmp_path / "clean", tmp_path / "report", config=CONFIG)
    pages = "".join(page.read_text() for page in (tmp_path / "report").rglob("*.html"))
    assert script not in pages
    assert name not in pages
    assert html.escape(script, quote=False) in pages
    assert f"every {name} is as long as the others" in str(error.value)  # messages are no HTML
    text = json.dumps(results(tmp_path / "report"))
    assert script in text
    assert "&lt;" not in text


@pytest.mark.integration
@pytest.mark.parametrize("name", ['v"ec', "v'ec", "v; DROP TABLE items", "select", "a.b", "{0}", "v\nec", "$path"])
def test_a_vector_may_have_any_name(tmp_path: Path, name: str) -> None:
    rows = good_rows()
    for item in rows["items"]:
        item[name] = item.pop("image")
    items = data.SCHEMAS["items"].append(pa.field(name, pa.list_(pa.float32())))
    raw = lay(tmp_path / "raw", rows, {"items": items})
    assert validate(raw, tmp_path / "clean", tmp_path / "report", config=CONFIG)["rows"]["items"] == 12


def test_a_label_beyond_its_scale_names_the_setting(tmp_path: Path) -> None:
    rows = good_rows()
    rows["events"][5]["rating"] = 10.0
    with pytest.raises(ValidationFailed, match=r"validate\.scales\.rating=\[LOW, HIGH\]"):
        validate(lay(tmp_path / "raw", rows), tmp_path / "clean", tmp_path / "report", config=CONFIG)
