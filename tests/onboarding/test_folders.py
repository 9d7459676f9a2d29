"""Folders as tools leave them: which files are one table, which are none, and what a log has removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from onboarding.survey.locations import table_places
from onboarding.survey.survey import survey
from rankline.errors import SourceError
from tests.onboarding import odd_sources
from tests.onboarding.proposals import log
from tests.rankline.io.test_table_logs import add, remove, write_table

LOG = "user_id,item_id,timestamp\n" + "".join(f"u{n},i{n % 7},{1_600_000_000 + n}\n" for n in range(50))
ITEMS = "item_id,title\n" + "".join(f"i{n},Thing {n}\n" for n in range(7))


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("names", "place"),
    [
        (["events/part-00000-3f1c0d5e-c000.csv", "events/part-00000-a7be92d4-c000.csv"], "events/*.csv"),
        (["part-00000-beadfeed-c000.csv", "part-00000-a7be92d4-c000.csv"], "part-*-*-*.csv"),
        (["events/01ARZ3NDEKTSV4RRFFQ69G5FAV.csv", "events/01BX5ZZKBKACTAV9WEVGEMMVRZ.csv"], "events/*.csv"),
        (["events/january.csv", "events/february.csv", "events/march.csv"], "events/*.csv"),
        (["events/00f1.csv", "events/beef.csv"], "events/*.csv"),
        (["events_jan.csv", "events_feb.csv", "events_mar.csv"], "events_*.csv"),
        (["2023/log.csv", "2024/log.csv"], "2023/log.csv | 2024/log.csv"),
        (["shoes.csv", "hats.csv"], "hats.csv | shoes.csv"),
    ],
)
def test_files_with_the_same_columns_are_one_table(tmp_path: Path, names: list[str], place: str) -> None:
    write(tmp_path, dict.fromkeys(names, LOG) | {"items.csv": ITEMS})
    surveyed = survey(str(tmp_path))
    rows = {table.place: (table.files, table.rows) for table in surveyed.tables.values()}
    assert rows == {place: (len(names), 50 * len(names)), "items.csv": (1, 7)}


@pytest.mark.parametrize(
    "names",
    [
        ["set/train.csv", "set/test.csv"],
        ["events.csv", "events_backup.csv"],
        ["a/events.csv", "b/events.csv"],
    ],
)
def test_words_that_say_something_keep_files_apart(tmp_path: Path, names: list[str]) -> None:
    assert sorted(table_places(str(write(tmp_path, dict.fromkeys(names, LOG))))) == sorted(names)


def test_files_with_other_columns_stay_apart(tmp_path: Path) -> None:
    names = write(tmp_path, {"data/a1b2.csv": LOG, "data/c3d4.csv": ITEMS})
    assert table_places(str(names)) == ["data/a1b2.csv", "data/c3d4.csv"]


@pytest.mark.parametrize("inside", [True, False])
def test_a_delta_table_is_read_by_its_log(tmp_path: Path, inside: bool) -> None:
    names = ["part-0-ab.parquet", "part-0-cd.parquet"]
    folder = write_table(tmp_path / "events", names, [[add(names[0])], [remove(names[0]), add(names[1])]])
    (table,) = survey(str(folder if inside else tmp_path)).tables.values()
    assert (table.place, table.rows) == ("**/*.parquet" if inside else "events", 1)
    assert table.columns["user_id"].examples == (names[1],)


def test_an_iceberg_table_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"t/data/a.parquet": "", "t/metadata/v1.metadata.json": "{}", "items.csv": ITEMS})
    with pytest.raises(SourceError, match="an Iceberg table cannot be read"):
        survey(str(tmp_path))


METADATA: dict[str, str] = {
    "one object over several lines": json.dumps({"title": "a shop", "licenses": [{"name": "CC0"}]}, indent=2),
    "arrays": "[1, 2]\n[3, 4]\n",
    "values": "1\n2\n",
    "an array": "[1, 2, 3]",
    "nothing": "",
    "an empty object": "{}\n",
}


@pytest.mark.integration
@pytest.mark.parametrize("kind", METADATA)
@pytest.mark.parametrize("name", ["dataset-metadata.json", "info.jsonl"])
def test_json_beside_the_tables_is_left_out_and_named(tmp_path: Path, kind: str, name: str) -> None:
    source = write(tmp_path, {"events.csv": LOG, "items.csv": ITEMS, "README.md": "words", name: METADATA[kind]})
    surveyed = survey(str(source))
    assert set(surveyed.tables) == {"events", "items"}
    assert set(surveyed.left_out) == {"README.md", name}
    with pytest.raises(SourceError) as error:
        survey(str(source / name))
    assert error.value.has_no_rows
    (source / "events.csv").unlink()
    (source / "items.csv").unlink()
    with pytest.raises(SourceError, match=r"a JSON file|is empty"):
        survey(str(source))


@pytest.mark.parametrize(
    "text", ['[{"item_id": "i1"}]', '[\n  {"item_id": "i1"}\n]', '[\n{\n"item_id": "i1"}]', "{\n" * (1 << 20)]
)
def test_json_in_another_layout_that_holds_the_data_is_refused(tmp_path: Path, text: str) -> None:
    source = write(tmp_path, {"events.csv": LOG, "items.json": text})
    with pytest.raises(SourceError, match="jq -c"):
        survey(str(source))


def test_a_table_without_rows_is_left_out(tmp_path: Path) -> None:
    surveyed = survey(str(write(tmp_path, {"events.csv": LOG, "queries.csv": "query_id,text\n"})))
    assert (set(surveyed.tables), surveyed.left_out) == (
        {"events"},
        {"queries.csv": "a table holds no row that can be read"},
    )


def objects(rows: int, keys: int) -> list[dict[str, Any]]:
    return [{"item_id": f"i{n}", "details": {f"Detail {n * 7 % keys + k}": k for k in range(8)}} for n in range(rows)]


@pytest.mark.integration
def test_an_object_with_hundreds_of_keys_is_one_column(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, objects(400, 700))))
    (table,) = survey(str(tmp_path)).tables.values()
    assert list(table.columns) == ["item_id", "details"]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, objects(400, 20))))
    (table,) = survey(str(tmp_path)).tables.values()
    assert len(table.columns) == 2 + 27


def test_a_struct_with_hundreds_of_fields_is_one_column(tmp_path: Path) -> None:
    fields = ", ".join(f"'d{n}': i" for n in range(300))
    duckdb.sql(
        f"COPY (SELECT i AS item_id, {{{fields}}} AS details FROM range(9) AS t(i)) TO '{tmp_path / 'i.parquet'}'"
    )
    (table,) = survey(str(tmp_path)).tables.values()
    assert list(table.columns) == ["item_id", "details"]


@pytest.mark.integration
def test_every_column_of_a_beir_folder_is_looked_at(tmp_path: Path) -> None:
    tables = survey(str(odd_sources.beir(tmp_path / "beir"))).tables
    values = {role: {name: stats.values for name, stats in table.columns.items()} for role, table in tables.items()}
    assert values["items"] == {"_id": 30, "title": 30, "text": 30}
    assert values["queries"] == {"_id": 20, "text": 20}


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 20, b"1 2 3\n4 5 6\n" * 9, b"5,1680000000,x\n6,1680000001,x\n" * 9]
)
def test_files_of_any_content_beside_the_tables_are_left_out_and_named(tmp_path: Path, content: bytes) -> None:
    for name, each in (("log.csv", log().encode()), ("cache.dat", content), ("data", b"1,2\n3,4\n")):
        (tmp_path / name).write_bytes(each)
    surveyed = survey(str(tmp_path))
    assert list(surveyed.tables) == ["log"]
    assert {"cache.dat", "data"} <= set(surveyed.left_out)
