"""A user is found in every kind of file, and one whose id is part of another's is not."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import zipfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from feature_repo.removal import entity_key
from pipelines.erasure import rewriting
from pipelines.erasure.ids import UserIds
from pipelines.erasure.layouts import Layout, layout_of
from pipelines.erasure.search import holds
from pipelines.erasure.sources import Examined, examine


def ids(*forms: str) -> UserIds:
    return UserIds(frozenset(forms), frozenset({"customer"}))


def parquet_of(**columns: list) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


def sqlite_of(folder: Path, column: str, values: list) -> bytes:
    path = folder / "database"
    path.unlink(missing_ok=True)
    db = sqlite3.connect(path)
    db.execute(f'CREATE TABLE rows ("{column}")')
    db.executemany("INSERT INTO rows VALUES (?)", [(value,) for value in values])
    db.commit()
    db.close()
    return path.read_bytes()


TEXTS = [
    "user u17 is unknown", '{"user_id": "u17"}', "test:u17:3", "a,u17,b", "u17", "no such user: u17.", "<td>u17</td>",
    "/users/u17?k=3", "[u17]", "u17\t5",
]  # fmt: skip
OTHER_TEXTS = ["u170", "xu17", "u17-b", "au-u17", "u17@shop", "u1", "7", "u17.b", "U17", "u_17"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_word_of_a_text_is_found_and_redacted(text: str) -> None:
    assert holds("any.log", text.encode(), ids("u17"))
    new = rewriting.redacted(text.encode(), ids("u17"))
    assert new is not None
    assert not holds("any.log", new, ids("u17"))
    assert new.decode() == text.replace("u17", "[erased]")


@pytest.mark.parametrize("text", OTHER_TEXTS)
def test_a_part_of_a_word_is_not(text: str) -> None:
    assert not holds("any.log", text.encode(), ids("u17"))
    assert rewriting.redacted(text.encode(), ids("u17")) == text.encode()


@pytest.mark.parametrize(
    "text", ["user 1 is unknown", '{"user_id": "1"}', '{"user_id": 1}', "test:1:3", "users/x user=1"]
)
def test_a_number_is_a_user_where_the_text_says_so(text: str) -> None:
    assert holds("any.log", text.encode(), ids("1"))
    assert not holds("any.log", rewriting.redacted(text.encode(), ids("1")) or b"", ids("1"))


@pytest.mark.parametrize(
    "text", ["user 11", "1 row", '{"item_id": "1"}', "took 1 s", "users: 100", "test:11:1", "2026-1-1"]
)
def test_another_number_is_none(text: str) -> None:
    assert not holds("any.log", text.encode(), ids("1"))


@pytest.mark.parametrize("form", ['a"b', "a&b", "zoë", "a b/c", "anna@example.com"])
def test_an_id_is_found_as_other_formats_write_it(form: str) -> None:
    import html
    import urllib.parse

    written = [
        form,
        json.dumps({"user_id": form}),
        f"<td>{html.escape(form)}</td>",
        f"?u={urllib.parse.quote(form, safe='')}&",
    ]
    assert [holds("any", each.encode(), ids(form)) for each in written] == [True] * 4


@pytest.mark.parametrize(
    ("columns", "is_held"),
    [
        ({"user_id": ["1", "2"]}, True),
        ({"user_id": ["11", None]}, False),
        ({"item_id": ["1"], "title": ["user 1"]}, False),
        ({"request_id": ["test:1:15"]}, True),
        ({"request_id": ["test:11:1", "valid:q:1"]}, False),
        ({"raw": ['{"user_id": "1"}']}, True),
        ({"raw": ["a 1"]}, False),
        ({"user_id": pa.array([], pa.string())}, False),
        ({"n": [1]}, False),
        ({"customer": [1]}, True),
        ({"customer": [11]}, False),
    ],
)
def test_a_table_has_a_user_where_a_column_of_users_does(columns: dict, is_held: bool) -> None:
    assert holds("any.parquet", parquet_of(**columns), ids("1")) is is_held


def test_databases_and_archives_are_opened(tmp_path: Path) -> None:
    key = entity_key("user_id", "u17")
    for content, is_held in (
        (sqlite_of(tmp_path, "user_id", ["u17"]), True),
        (sqlite_of(tmp_path, "user_id", ["u170"]), False),
        (sqlite_of(tmp_path, "params", ["failed for user u17"]), True),
        (sqlite_of(tmp_path, "entity_key", [key]), True),
        (sqlite_of(tmp_path, "user_id", ["customer-u17", "u17-customer"]), False),
        (sqlite_of(tmp_path, "entity_key", [entity_key("user_id", "u171")]), False),
    ):
        assert holds("online.db", content, ids("u17")) is is_held
        assert holds("online.db.gz", gzip.compress(content), ids("u17")) is is_held
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("inner/online.db", content)
        assert holds("any.zip", sink.getvalue(), ids("u17")) is is_held
        redacted = rewriting.redacted(content, ids("u17"))
        assert redacted is not None
        assert not holds("online.db", redacted, ids("u17"))
    with duckdb.connect(str(tmp_path / "any.duckdb")) as db:
        db.execute("CREATE TABLE log AS SELECT 'u17' AS user_id, 'u5' AS item_id")
    assert holds("any.duckdb", (tmp_path / "any.duckdb").read_bytes(), ids("u17"))
    assert not holds("any.duckdb", (tmp_path / "any.duckdb").read_bytes(), ids("u1", "u5"))


def test_what_was_deleted_from_a_database_is_found_until_it_is_vacuumed(tmp_path: Path) -> None:
    path = tmp_path / "database"
    path.write_bytes(sqlite_of(tmp_path, "user_id", ["anna@example.com", "b"]))
    db = sqlite3.connect(path)
    db.execute("PRAGMA secure_delete = OFF")
    db.execute("DELETE FROM rows WHERE user_id LIKE 'anna%'")
    db.commit()
    assert holds("any.db", path.read_bytes(), ids("anna@example.com"))
    db.execute("VACUUM")
    db.close()
    assert not holds("any.db", path.read_bytes(), ids("anna@example.com"))


@pytest.mark.parametrize(
    "damage", [b"PAR1 user u17", b"SQLite format 3\0 user u17", b"\x1f\x8b user u17", b"PK\x03\x04 u17"]
)
def test_a_damaged_file_is_searched_all_the_same(damage: bytes) -> None:
    assert holds("any", damage, ids("u17"))


def test_weights_hold_no_short_id_by_chance() -> None:
    assert not holds("weights.onnx", b"\0\xff u17 \0", ids("u17"))
    assert not holds("tokenizer.json", b'{"u17": 5}', ids("u17"))
    assert holds("weights.onnx", b"\0\xff anna@example.com", ids("anna@example.com"))
    assert not holds("weights.onnx", b"\0\xff anna@example.com2", ids("anna@example.com"))


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a.inter", "user_id:token\titem_id:token\n1\t5\n11\t1\n", "user_id:token\titem_id:token\n11\t1\n"),
        ("a.csv", "item,user\r\n1,2\r\n2,1\r\n", "item,user\r\n1,2\r\n"),
        ("a.csv", 'item,customer\n"1","1"\n1,11\n', "item,customer\n1,11\n"),
        ("a.jsonl", '{"user_id": 1, "item": 2}\n{"user_id": "11", "item": "1"}\n', '{"user_id": "11", "item": "1"}\n'),
    ],
)
def test_a_source_loses_the_rows_of_a_user_and_nothing_else(name: str, before: str, after: str) -> None:
    new = source(before.encode(), "1", name=name)
    assert (new.remaining, new.fault) == (after.encode(), "")
    packed = source(gzip.compress(before.encode()), "1", name=f"{name}.gz")
    assert gzip.decompress(packed.remaining) == after.encode()


def source(content: bytes, user: str, *, name: str = "a.csv", layout: Layout | None = None) -> Examined:
    return examine(name, content, ids(user), layout or Layout(frozenset({"user_id", "customer"})))


def test_a_parquet_source_loses_its_rows() -> None:
    new = source(parquet_of(user_id=["1", "11"], n=[1, 2]), "1")
    assert parquet.read_table(io.BytesIO(new.remaining)).to_pylist() == [{"user_id": "11", "n": 2}]
    new = source(parquet_of(customer=[1, 11]), "1")
    assert parquet.read_table(io.BytesIO(new.remaining))["customer"].to_pylist() == [11]
    for untouched in (parquet_of(user_id=["11"], title=["user 1"]), gzip.compress(b"user,item\n11,1\n")):
        assert source(untouched, "1") == Examined(untouched)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('user_id,note\nmax,"one\ntwo"\nu2,"max,3\nu3,4"\n', 'user_id,note\nu2,"max,3\nu3,4"\n'),
        ('user_id,note\r\nu2,"a\r\nmax,b"\r\nmax,c\r\n', 'user_id,note\r\nu2,"a\r\nmax,b"\r\n'),
        ('note;user_id\n"x\n";max\n"max";u2\n', 'note;user_id\n"max";u2\n'),
        ('user_id\tnote\nu2\ta "quote\nmax\tb\n', 'user_id\tnote\nu2\ta "quote\n'),
        ("user_id,user_name\n5,max\nmax,5\n", "user_id,user_name\n5,max\n"),
    ],
)
def test_only_whole_records_whose_user_it_is_are_removed(before: str, after: str) -> None:
    assert source(before.encode(), "max").remaining == after.encode()


@pytest.mark.parametrize(
    ("content", "user"),
    [
        (b"user_id,item\n5,Nike air max 90\n", "max"),
        (b'{"user_id": "5", "comment": "u17 told me"}\n', "u17"),
        (parquet_of(user_id=["5"], comment=["anna@example.com told me"]), "anna@example.com"),
    ],
)
def test_a_word_of_free_text_is_left_and_said(content: bytes, user: str) -> None:
    assert source(content, user) == Examined(content, mentioned=True)
    assert source(content, "ai") == Examined(content)


def test_an_item_is_not_taken_for_a_user() -> None:
    recipe = {"tables": {"items": "items.csv", "users": ["users.csv"]}, "columns": {"user_key": "id", "item_key": "id"}}
    content = b"id,name\n17,a\n18,b\n"
    assert source(content, "17", layout=layout_of("data/items.csv", [recipe])) == Examined(content)
    assert source(content, "17", layout=layout_of("data/users.csv", [recipe])).remaining == b"id,name\n18,b\n"


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "utf-32", "utf-8-sig"])
def test_other_encodings_are_read_and_kept(encoding: str) -> None:
    before, after = "user_id,item\nzoë,1\nu2,é\n", "user_id,item\nu2,é\n"
    recipe = {"files": {"encoding": encoding}}
    new = source(before.encode(encoding), "zoë", layout=layout_of("a.csv", [recipe]))
    assert new.remaining.decode(encoding) == after


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "user_id,item\nzoë,1\n".encode("cp1252")),
        ("a.csv", "user_id,item\nu17,1\n".encode("utf-16-le")),
        ("a.csv", b'user_id,item\nu2,"1\nu17,2\n'),
        ("a.json", b'[{"user_id": 17}]'),
        ("a.json", b'{\n"users": [{"user_id": "17"}]\n}'),
        ("a.jsonl", b'{"item": 1, "by": {"user_id": 17}, "friends": {"users": [17, 5]}}\n{"friend_users": [17]}\n'),
        ("a.xlsx", b"PK\x03\x04"),
        ("a.parquet", b"PAR1 damaged"),
    ],
)
def test_what_cannot_be_searched_or_taken_out_is_said(name: str, content: bytes) -> None:
    assert source(content, "17", name=name).fault


def test_an_archive_and_a_database_of_a_source_are_said(tmp_path: Path) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("log.csv", "user_id,item\n17,1\n")
    assert source(sink.getvalue(), "17", name="a.zip").fault
    assert not source(sink.getvalue(), "1", name="a.zip").fault
    with duckdb.connect(str(tmp_path / "any.duckdb")) as db:
        db.execute("CREATE TABLE log AS SELECT 17.0::DOUBLE AS user_id")
    assert source((tmp_path / "any.duckdb").read_bytes(), "17", name="any.duckdb").fault


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["17", "18"]).dictionary_encode(),
        pa.array(["17", "18"], pa.string_view()),
        pa.array([b"17", b"18"]),
        pa.array([17.0, 18.0]),
        pa.array([" 17 ", "18"]),
        pa.array(["17.0", "18"]),
    ],
)
def test_a_user_of_any_type_is_found(column: pa.Array) -> None:
    content = parquet_of(user_id=column)
    assert holds("a.parquet", content, ids("17"))
    assert not holds("a.parquet", content, ids("1"))
    new = source(content, "17", name="a.parquet")
    assert (len(parquet.read_table(io.BytesIO(new.remaining))), new.fault) == (1, "")


@pytest.mark.parametrize("value", [["17"], {"id": "17"}, [{"user_id": 17}]])
def test_a_user_in_a_list_or_record_is_found_and_said(value: object) -> None:
    content = parquet_of(user=[value])
    assert holds("a.parquet", content, ids("17"))
    assert source(content, "17", name="a.parquet").fault
    assert not source(content, "1", name="a.parquet").fault


def test_ids_are_compared_as_the_recipes_normalise_them() -> None:
    users = UserIds(frozenset({"anna1"}), normalisations=frozenset({("case", "zeros")}))
    new = examine("a.csv", b"user_id,item\n 00ANNA1 ,1\nannA,1\n", users, Layout())
    assert new.remaining == b"user_id,item\nannA,1\n"
