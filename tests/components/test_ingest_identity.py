"""Erased users are left out before anything is written, and ids are hashed with a key in every table."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from pydantic import ValidationError

from components.ingest.config import IngestConfig
from components.ingest.ids import plain_forms, tagged_forms
from components.ingest.lineage import lineage
from components.ingest.step import ingest
from rankline.errors import IntegrityError, UsageError
from rankline.runtime.lineage import LineageFacts
from rankline.runtime.run_context import RunContext
from rankline.users.erased import ErasedUsers

KEY = "a key that is long enough"
COLUMNS = {"title": "", "category": "", "created_year": "", "labels": {}, "user_attributes": ()}
EVENTS = """user_id,item_id,timestamp
u1,i1,1700000000
u11,i1,1700000001
u1,i2,1700000002
u1,i9,1700000003
u2,i2,1700000004
u1,i2,not a time
u2,i1,1700000005,more,u1
"u2",i9,1700000006
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "events.csv").write_text(EVENTS)
    (folder / "items.csv").write_text("item_id\ni1\ni2\n")
    (folder / "users.csv").write_text("user_id\nu1\nu1\nu11\nu2\n")
    return folder


def config(source: Path, **settings: Any) -> IngestConfig:
    tables = {"events": "events.csv", "items": "items.csv", "users": "users.csv"}
    given = {"format": "tables", "tables": tables, "columns": COLUMNS, "max_rejected_share": 0.9, **settings}
    return IngestConfig(source=str(source), **given)


def run(source: Path, *, erased: ErasedUsers | None = None, **settings: Any) -> dict[str, Any]:
    ingest(source.parent / "raw", config=config(source, **settings), erased=erased)
    summary: dict[str, Any] = json.loads((source.parent / "raw" / "summary.json").read_text())
    return summary


def users_of(raw: Path, table: str) -> list[str]:
    return [str(each) for each in parquet.read_table(raw / f"{table}.parquet")["user_id"].to_pylist()]


def words_of(raw: Path) -> str:
    """All texts of all tables."""
    tables = [parquet.read_table(path) for path in sorted(raw.glob("*.parquet"))]
    return "\n".join(str(value) for table in tables for row in table.to_pylist() for value in row.values())


def hashed(user: str) -> str:
    return hmac.new(KEY.encode(), user.encode(), hashlib.sha256).hexdigest()


def erased_of(folder: Path, *ids: str) -> ErasedUsers:
    erased = ErasedUsers(folder / "erased")
    erased.add(ids)
    return erased


@pytest.mark.integration
def test_the_rows_of_an_erased_user_are_left_out_of_every_table(source: Path) -> None:
    before = run(source)
    raw = source.parent / "raw"
    assert "erased_rows" not in before
    assert before["rejected"]["events"] == {
        "unknown item": 2,
        "unparsable timestamp": 1,
        "wrong number of columns": 1,
    }
    assert before["rejected"]["users"] == {"duplicate user": 1}
    assert "u1" in words_of(raw).split()
    summary = run(source, erased=erased_of(source.parent, "u1"))
    assert users_of(raw, "events") == ["u11", "u2"]
    assert sorted(users_of(raw, "users")) == ["u11", "u2"]
    assert summary["erased_rows"]["users"] == 2
    assert summary["erased_rows"]["events"] >= 4
    rejected = parquet.read_table(raw / "rejected.parquet").to_pylist()
    assert not [row for row in rejected if "u1" in row["raw"].replace(",", " ").split() or row["key"] == "u1"]
    assert [row["reason"] for row in rejected if row["table"] == "events"] == ["unknown item"]


@pytest.mark.integration
@pytest.mark.parametrize("ids", [("u",), ("1",), ("U1",), ("u1 ",), ("u111",)])
def test_an_id_that_is_part_of_others_erases_nobody(source: Path, ids: tuple[str, ...]) -> None:
    before = run(source)
    summary = run(source, erased=erased_of(source.parent, *ids))
    assert summary["erased_rows"] == {"events": 0, "users": 0}
    assert {**summary, "erased_rows": 0} == {**before, "erased_rows": 0}


def test_a_row_that_cannot_be_read_is_left_out_where_it_names_an_erased_user(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(
        '{"user_id": "u1", "item_id": "i1", "timestamp": 1}\n{"user_id": "u2", "item_id": "i1", "timest\n'
        '{"user_id": "u1", "item_id": "i1", "timest\n{"user_id": "u2", "item_id": "i1", "timestamp": 2}\n'
    )
    settings = {"format": "tables", "tables": {"events": "events.jsonl"}, "items_from_events": True}
    settings |= {"columns": COLUMNS, "max_rejected_share": 0.9}
    ingest(tmp_path / "raw", config=IngestConfig(source=str(tmp_path), **settings), erased=erased_of(tmp_path, "u1"))
    assert "u1" not in words_of(tmp_path / "raw")
    assert len(parquet.read_table(tmp_path / "raw" / "rejected.parquet")) == 1


def test_ids_are_hashed_in_every_table(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKLINE_ID_KEY", KEY)
    raw = source.parent / "raw"
    plain = run(source)
    summary = run(source, hash_users="RANKLINE_ID_KEY")
    assert summary["rows"] == plain["rows"]
    assert summary["rejected"] == plain["rejected"]
    assert sorted(users_of(raw, "users")) == sorted(map(hashed, ("u1", "u11", "u2")))
    assert set(users_of(raw, "events")) == {*map(hashed, ("u1", "u11", "u2"))}
    words = words_of(raw).replace(",", " ").split()
    assert not {"u1", "u11", "u2"} & {*words}
    assert parquet.read_table(raw / "rejected.parquet").filter(pa.compute.field("table") == "users")["key"][0].as_py()
    assert summary["hash_users"]["variable"] == "RANKLINE_ID_KEY"
    assert KEY not in (raw / "summary.json").read_text()


def test_the_ids_of_requests_are_hashed_with_those_of_users(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKLINE_ID_KEY", KEY)
    rows = ("u1,i1,1700000000,1,u1-1700", "u1,i2,1700000000,0,u1-1700", "u2,i1,1700000001,1,u2-1700")
    (source / "events.csv").write_text("\n".join(["user_id,item_id,timestamp,click,page", *rows]) + "\n")
    columns = {**COLUMNS, "request_id": "page", "labels": {"click": "click"}}
    raw = source.parent / "raw"
    for settings, expected in ({}, ("u1-1700", "u2-1700")), ({"hash_users": "RANKLINE_ID_KEY"}, ("u1-1700", "u2-1700")):
        run(source, columns=columns, **settings)
        requests = parquet.read_table(raw / "events.parquet")["request_id"].to_pylist()
        assert set(requests) == {*(map(hashed, expected) if settings else expected)}
    assert "u1" not in words_of(raw)


def test_an_erased_user_is_named_by_the_plain_id(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKLINE_ID_KEY", KEY)
    run(source, hash_users="RANKLINE_ID_KEY", erased=erased_of(source.parent, "u1"))
    assert set(users_of(source.parent / "raw", "events")) == {hashed("u11"), hashed("u2")}


def test_normalised_ids_are_erased_and_hashed_as_they_are_in_the_tables(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANKLINE_ID_KEY", KEY)
    (source / "users.csv").write_text("user_id\nU1\nU2\n")
    columns = {**COLUMNS, "normalise_ids": ("case",)}
    run(source, columns=columns, hash_users="RANKLINE_ID_KEY", erased=erased_of(source.parent, "u1"))
    assert users_of(source.parent / "raw", "users")[:1] == [hashed("u2")]


@pytest.mark.parametrize(
    ("given", "written", "names"),
    [
        ("Anna", "ANNA ", ("case",)),
        ("007", "7", ("zeros",)),
        ("gid://shop/Customer/7", "7", ("prefix", "case")),
        ("7.0", "7", ()),
        ("7", "7.0", ()),
        (" anna ", "anna", ()),
        ("0anna", "0anna", ("zeros",)),
    ],
)
def test_a_normalisation_that_is_declared_later_brings_nobody_back(
    source: Path, given: str, written: str, names: tuple[str, ...]
) -> None:
    (source / "users.csv").write_text(f"user_id\n{written}\nu11\nu2\n")
    (source / "events.csv").write_text(f"{EVENTS}{written},i1,1700000009\n")
    erased = ErasedUsers(source.parent / "erased")
    erased.add(plain_forms([given]), tagged_forms(plain_forms([given])))
    columns = {**COLUMNS, "normalise_ids": names}
    assert run(source, columns=columns, erased=erased)["erased_rows"] == {"events": 1, "users": 1}
    if names:
        other = run(source, columns={**COLUMNS, "normalise_ids": ("accents",)}, erased=erased)
        assert other["erased_rows"]["users"] == int(given == written)


@pytest.mark.integration
@pytest.mark.parametrize("user", ["anna maria", "a,b", "urn:anna", 'anna "b" c', "<anna", "O'Hara, Anna"])
def test_an_id_of_several_words_is_in_no_rejected_row(source: Path, user: str) -> None:
    quoted = '"' + user.replace('"', '""') + '"'
    rows = f"{quoted},i1,1700000005,more,{quoted}\n{quoted},i1,not a time\nu2,i9,1700000007\nu2,i1,x\n"
    (source / "events.csv").write_text(EVENTS + rows)
    raw = source.parent / "raw"
    run(source)
    assert [row for row in rejected_texts(raw) if user in row.replace('""', '"').replace('\\"', '"')]
    run(source, erased=erased_of(source.parent, user))
    assert not [row for row in rejected_texts(raw) if user in row.replace('""', '"').replace('\\"', '"')]
    assert len([row for row in rejected_texts(raw) if "u2" in row]) >= 2


def rejected_texts(raw: Path) -> list[str]:
    return [str(row["raw"]) for row in parquet.read_table(raw / "rejected.parquet").to_pylist()]


@pytest.mark.parametrize("value", [None, "", "short"])
def test_a_missing_key_is_one_message(source: Path, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("RANKLINE_ID_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("RANKLINE_ID_KEY", value)
    with pytest.raises(UsageError, match="RANKLINE_ID_KEY") as caught:
        run(source, hash_users="RANKLINE_ID_KEY")
    assert "cluster.secrets.RANKLINE_ID_KEY" in str(caught.value)
    with pytest.raises(ValidationError, match="hash_users"):
        config(source, hash_users="not a variable")


def test_the_cache_key_knows_the_list_and_the_key_and_holds_neither(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = RunContext(source.parent, "run")
    settings = config(source, hash_users="RANKLINE_ID_KEY")
    facts = LineageFacts(run=context, source="digest")
    assert lineage(config(source), facts) == {"source": "digest"}
    keys = []
    for value in (KEY, KEY, f"{KEY}!"):
        monkeypatch.setenv("RANKLINE_ID_KEY", value)
        keys.append(lineage(settings, facts))
        assert KEY not in json.dumps(keys[-1])
    assert keys[0] == keys[1] != keys[2]
    erased_of(source.parent, "u1")
    one = lineage(config(source), facts)
    assert one["erased users"]
    assert "u1" not in json.dumps(one)
    erased_of(source.parent, "u1")
    assert lineage(config(source), facts) == one
    erased_of(source.parent, "u2")
    assert lineage(config(source), facts) != one


def test_the_list_holds_no_id_and_needs_its_key(tmp_path: Path) -> None:
    erased = erased_of(tmp_path, "anna@example.com", "11")
    assert "anna" not in "".join(path.read_text() for path in (tmp_path / "erased").iterdir())
    again = ErasedUsers(tmp_path / "erased")
    assert (len(again), again.digest) == (2, erased.digest)
    assert (again.holds("anna@example.com"), again.holds("1"), again.holds("11")) == (True, False, True)
    assert (tmp_path / "erased" / "key").stat().st_mode & 0o077 == 0
    (tmp_path / "erased" / "key").unlink()
    with pytest.raises(IntegrityError, match="lost its key"):
        ErasedUsers(tmp_path / "erased")
