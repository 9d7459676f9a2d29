"""Ingest over text files as tools write them: no line is lost before it is a row; the setting that helps is named."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.ingest.config import IngestConfig
from components.ingest.readers import csv_table, text_stream
from components.ingest.step import ingest
from onboarding.survey.survey import survey
from rankline.errors import SourceError
from rankline.io.sources import File

COLUMNS: dict[str, Any] = {"title": "", "category": "", "created_year": "", "labels": {}, "user_attributes": ()}


def run(folder: Path, name: str = "log.csv", **settings: Any) -> dict[str, Any]:
    """Ingest of one file of events."""
    columns = {**COLUMNS, **settings.pop("columns", {})}
    tables = {"events": name, **settings.pop("tables", {})}
    given = {"source": str(folder), "format": "tables", "tables": tables, "items_from_events": True, **settings}
    ingest(folder / "raw", config=IngestConfig(columns=columns, **given))
    result: dict[str, Any] = json.loads((folder / "raw/summary.json").read_text())
    return result


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "raw" / f"{name}.parquet").to_pylist()
    return rows


def refused(folder: Path, name: str = "log.csv", **settings: Any) -> str:
    with pytest.raises(SourceError) as error:
        run(folder, name, **settings)
    return str(error.value)


def log_text(mark: str = ",", *, rows: int = 200, opened: tuple[int, ...] = (), header: bool = True) -> str:
    """A log with a headline; the headlines of the rows ``opened`` begin with a quote that nothing closes."""
    names = ["user_id", "item_id", "headline", "timestamp"]
    lines = [mark.join(names)] if header else []
    for n in range(rows):
        headline = f"{chr(34) * (n in opened)}Great {n}"
        lines.append(mark.join([f"C{n * 7 % 40}", f"P{n * 37 % 20}", headline, str(1_680_000_000 + n * 977)]))
    return "\n".join(lines) + "\n"


# -- empty values behind the last column, and bytes of zeros ----------------------------------------------------

TRAILING = {
    "in every row": lambda text: text.replace("\n", ",\n").replace("timestamp,", "timestamp"),
    "two in every row": lambda text: text.replace("\n", ",,\n").replace("timestamp,,", "timestamp"),
    "in some rows": lambda text: text.replace("7\n", "7,\n").replace("8\n", "8, \n"),
    "in the header alone": lambda text: text.replace("timestamp", "timestamp,"),
    "twice in the header alone": lambda text: text.replace("timestamp", "timestamp,,"),
    "in a file without a header": lambda text: text.replace("\n", ",\n").partition("\n")[2],
    "quoted": lambda text: text.replace("\n", ',""\n').replace('timestamp,""', "timestamp"),
}


@pytest.mark.parametrize("kind", TRAILING)
def test_empty_values_behind_the_last_column_are_none(tmp_path: Path, kind: str) -> None:
    (tmp_path / "log.csv").write_text(TRAILING[kind](log_text()))
    names = ["user_id", "item_id", "headline", "timestamp"] if kind == "in a file without a header" else []
    result = run(tmp_path, files={"names": names}, columns={"event_attributes": ("headline",)})
    assert (result["read"]["events"], result["rejected"]["events"]) == (200, {})
    assert [each["headline"] for each in table(tmp_path, "events")][:3] == ["Great 0", "Great 1", "Great 2"]
    assert [int(each["event_id"]) for each in table(tmp_path, "events")] == list(range(1, 201))


@pytest.mark.parametrize("row", ["C0,P0,x", "C0,P0,x,1680000000,y", "C0,P0,x,1680000000,,y", "C0,P0,"])
def test_other_numbers_of_values_are_rejected(tmp_path: Path, row: str) -> None:
    (tmp_path / "log.csv").write_text(f"{log_text()}{row}\n")
    assert run(tmp_path)["rejected"]["events"] == {"wrong number of columns": 1}


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.jsonl"])
def test_rows_with_bytes_of_zeros_are_rejected_and_others_read(tmp_path: Path, name: str) -> None:
    rows = [{"user_id": f"C{n}", "item_id": f"P{n % 5}", "timestamp": 1_680_000_000 + n} for n in range(40)]
    mark = "\t" if name == "log.tsv" else ","
    lines = [mark.join(map(str, row.values())) for row in rows]
    text = "\n".join(map(json.dumps, rows) if name == "log.jsonl" else [mark.join(rows[0]), *lines])
    (tmp_path / name).write_text(text.replace("P3", "P\0003", 1) + "\n" + "\0" * 512)
    result = run(tmp_path, name, max_rejected_share=0.2)
    assert result["rejected"]["events"] == {"NUL bytes": 2}
    assert result["rows"]["events"] == 39
    assert survey(str(tmp_path / name)).tables["log"].rows == 39
    assert "tr -d" in refused(tmp_path, name, max_rejected_share=0)


# -- quotes that nothing closes --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log.tsv", "log.txt", "log.csv", "log.tsv.gz"])
def test_tab_separated_text_has_no_quotes(tmp_path: Path, name: str) -> None:
    text = log_text("\t", opened=(20, 170)).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    result = run(tmp_path, name, columns={"event_attributes": ("headline",)})
    assert (result["read"]["events"], result["rejected"]["events"]) == (200, {})
    assert {event["headline"] for event in table(tmp_path, "events")} >= {'"Great 20', '"Great 170', "Great 21"}


def test_quotes_in_tab_separated_text_are_read_if_asked_for_or_if_the_header_has_them(tmp_path: Path) -> None:
    rows = 'u1\ti1\t"a\tb"\t1680000000\nu2\ti1\t"a\nb"\t1680000001\n'
    columns = {"event_attributes": ("headline",)}
    (tmp_path / "log.tsv").write_text("user_id\titem_id\theadline\ttimestamp\n" + rows)
    message = refused(tmp_path, "log.tsv", columns=columns)
    assert "wrong number of columns 3" in message
    assert "ingest.files.quote='\"'" in message
    run(tmp_path, "log.tsv", columns=columns, files={"quote": '"'})
    assert [event["headline"] for event in table(tmp_path, "events")] == ["a\tb", "a\nb"]
    (tmp_path / "log.tsv").write_text('"user_id"\t"item_id"\t"headline"\t"timestamp"\n' + rows)
    run(tmp_path, "log.tsv", columns=columns)
    assert [event["headline"] for event in table(tmp_path, "events")] == ["a\tb", "a\nb"]


@pytest.mark.parametrize(
    ("opened", "lost"),
    [
        ((20, 170), 151),  # closed by another stray one
        ((20,), 180),  # never closed
        ((20, 21, 100, 102), 5),
        ((198, 199), 2),
    ],
)
@pytest.mark.parametrize("mark", [",", ";"])
def test_every_line_inside_of_an_open_quote_is_counted(
    tmp_path: Path, opened: tuple[int, ...], lost: int, mark: str
) -> None:
    (tmp_path / "log.csv").write_text(log_text(mark, opened=opened))
    result = run(tmp_path, max_rejected_share=1.0)
    assert result["read"]["events"] == 200
    assert result["rejected"]["events"] == {"inside a quote that is not closed": lost}
    rejected = table(tmp_path, "rejected")
    assert [row["row"] for row in rejected][:2] == [opened[0] + 1, opened[0] + 2]
    assert rejected[1]["raw"].startswith(f"C{(opened[0] + 1) * 7 % 40}{mark}P")
    # the rows after it keep their places
    good = {event["event_id"]: event["user_id"] for event in table(tmp_path, "events")}
    assert all(user == f"C{(int(row) - 1) * 7 % 40}" for row, user in good.items())
    if lost > 10:
        message = refused(tmp_path)
        assert f"inside a quote that is not closed {lost}" in message
        assert "line 21" in message
        assert "ingest.files.quote=''" in message
    result = run(tmp_path, files={"quote": ""})
    assert (result["rows"]["events"], result["rejected"]["events"]) == (200, {})


def test_texts_of_several_lines_are_texts(tmp_path: Path) -> None:
    texts = [
        "one, two\nthree, four\nfive, six, 7",
        "I like it\nIt, and this",
        "a\n\n\nb,c,d",
        "C1,2\nis a chip",
        "1 Main St\nC5, Flat B",
        "C1\nC2, C3\nC4",
    ]
    lines = [f'C{n},"{text}",{1_680_000_000 + n},i1' for n, text in enumerate(texts)]
    (tmp_path / "log.csv").write_text("user_id,headline,timestamp,item_id\n" + "\n".join(lines) + "\n")
    result = run(tmp_path, columns={"event_attributes": ("headline",)})
    assert result["rejected"]["events"] == {}
    assert [event["headline"] for event in table(tmp_path, "events")] == texts


def test_a_quote_without_an_end_in_a_large_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_stream, "CHUNK_BYTES", 1024)
    (tmp_path / "log.csv").write_text(log_text(opened=(5,)))
    message = refused(tmp_path)
    assert "a value of a CSV file has no end" in message
    assert "ingest.files.quote=''" in message
    assert csv_table.UNCLOSED_QUOTE not in message


# -- escaped characters ----------------------------------------------------------------------------------------


def write_escaped(folder: Path) -> None:
    (folder / "log.csv").write_text(log_text())
    rows = [r'P0,"red model 15\" wide","A red thing"', r'P1,"blue","<a href=\"#\" data=\"1,2\">A thing</a>"']
    rows += [f'P{n},"chair {n}","A chair"' for n in range(2, 20)]
    (folder / "items.csv").write_text("item_id,title,text\n" + "\n".join(rows) + "\n")


def test_quotes_behind_a_backslash_are_read_if_asked_for(tmp_path: Path) -> None:
    write_escaped(tmp_path)
    given: dict[str, Any] = {"tables": {"items": "items.csv"}, "columns": {"title": "title", "text": ("text",)}}
    message = refused(tmp_path, **given)
    assert "a quote after a backslash 1, wrong number of columns 1" in message
    assert "ingest.files.escape=\\ (a backslash)" in message
    result = run(tmp_path, files={"escape": "\\"}, **given)
    assert result["rejected"]["items"] == {}
    items = table(tmp_path, "items")
    assert (items[0]["title"], items[1]["text"]) == ('red model 15" wide', '<a href="#" data="1,2">A thing</a>')


def test_files_of_mysql_are_read_with_their_escapes(tmp_path: Path) -> None:
    header = "user_id\titem_id\theadline\ttimestamp\n"
    rows = ["u1\ti1\ta\\tb\\\\n\t1680000000", "u2\ti1\tfirst\\\nsecond\t1680000001", "u3\ti1\t\\N\t1680000002"]
    (tmp_path / "log.tsv").write_text(header + "\n".join(rows) + "\n")
    columns = {"event_attributes": ("headline",)}
    result = run(tmp_path, "log.tsv", columns=columns, files={"escape": "\\"})
    assert result["rejected"]["events"] == {}
    assert [event["headline"] for event in table(tmp_path, "events")] == ["a\tb\\n", "first\nsecond", None]
    (tmp_path / "log.csv").write_text("user_id,item_id,headline,timestamp\nu1,i1,a\\, b,1680000000\n")
    assert "ingest.files.escape" in refused(tmp_path)
    run(tmp_path, columns=columns, files={"escape": "\\", "quote": ""})
    assert table(tmp_path, "events")[0]["headline"] == "a, b"


def test_an_escape_sign_may_end_a_block(tmp_path: Path) -> None:
    text = "x" * (text_stream.SAMPLE_BYTES - 40)
    for length in range(4):
        value = text + "y" * length + r"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\""
        (tmp_path / "log.csv").write_text(f'user_id,item_id,timestamp,headline\nu1,i1,1680000000,"{value}"\n')
        run(tmp_path, columns={"event_attributes": ("headline",)}, files={"escape": "\\"})
        assert table(tmp_path, "events")[0]["headline"] == text + "y" * length + '"' * 24


def test_inches_and_paths_in_ordinary_files_are_values(tmp_path: Path) -> None:
    rows = ['u1,i1,15\\" wide,1680000000', 'u2,i1,"C:\\""x"" y",1680000001', 'u3,i1,"C:\\dir\\",1680000002']
    (tmp_path / "log.csv").write_text("user_id,item_id,headline,timestamp\n" + "\n".join(rows) + "\n")
    assert run(tmp_path, columns={"event_attributes": ("headline",)})["rejected"]["events"] == {}
    assert [event["headline"] for event in table(tmp_path, "events")] == ['15\\" wide', 'C:\\"x" y', "C:\\dir\\"]


# -- files without a header ------------------------------------------------------------------------------------

HEADLESS = {
    "numbers": "196\t242\t3\t881250949\n186\t302\t3\t891717742\n22\t377\t1\t878887116\n",
    "times": "1,2023-03-28T10:40:00.277Z,214530000,0\n8,2023-03-28T10:56:17.277Z,214530017,0\n",
    "ids": "A2SUAM1J3GNN3B,B000013714,u\nA14VAT5EAX3D9S,B000013714,v\nA2C27IQUH9N1Z,B000031887,w\nA1X,B01,u\n",
    "words": "nice product,positive\nbad product here,negative\nI like it,positive\nno,negative\nso,positive\nx,n\n",
    "json": 'N1\tnews\tBrands\thttps://x.y/1\t[]\nN2\tsport\tLoss\thttps://x.y/2\t[{"a": "b"}]\nN3\tnews\tT\t\t[]\n',
}


@pytest.mark.parametrize("kind", HEADLESS)
def test_a_first_line_that_is_a_row_is_not_taken_for_names(tmp_path: Path, kind: str) -> None:
    (tmp_path / "log.csv").write_text(HEADLESS[kind])
    message = refused(tmp_path)
    assert "the first line of a CSV file looks like a row" in message
    assert "ingest.files.names=" in message


@pytest.mark.parametrize(
    "text",
    [
        "user_id,2019,2020\n1,5,6\n2,7,8\n",
        ",0,1,2\n0,5,6,3\n1,7,8,3\n",
        "0,1,2\n5,6,3\n7,8,3\n",
        "user,item\nu1,i1\nu2,i2\nu3,i3\n",
        "title,category\nRed shoes,shoes\nBlue hat,hats\n",
        "Größe,Preis 2024\n5,6\n7,8\n",
        "user_id,item_id\n",
        "user_id,item_id\nuser_id,item_id\n",
    ],
)
def test_a_header_of_names_is_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    config = IngestConfig(source=str(tmp_path), format="tables", tables={"events": "log.csv"})
    part = csv_table.csv_part("events", File(str(tmp_path / "log.csv")), config)
    assert list(part.columns) == [name for name in text.partition("\n")[0].split(",") if name]


@pytest.mark.parametrize("as_list", [True, False])
def test_columns_without_a_header_are_named_by_a_setting(tmp_path: Path, as_list: bool) -> None:
    names = ["user_id", "item_id", "headline", "timestamp"]
    (tmp_path / "log.csv").write_text(log_text(header=False))
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"P{n},Thing {n}\n" for n in range(20)))
    given: dict[str, Any] = {"tables": {"items": "items.csv"}, "columns": {"title": "title"}}
    result = run(tmp_path, files={"names": names if as_list else {"events": names}}, **given)
    assert (result["rows"]["events"], result["rows"]["items"]) == (200, 20)
    assert table(tmp_path, "events")[0]["user_id"] == "C0"
    message = refused(tmp_path, files={"names": names[:3]}, **given)
    assert "another number of columns than ingest.files.names" in message
    columns = {"user_id": "c1", "item_id": "c2", "timestamp": "c4"}
    assert run(tmp_path, files={"header": False}, columns=columns)["rows"]["events"] == 200


def test_only_the_first_file_of_a_folder_may_have_a_header(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log/000").with_suffix(".csv").write_text(log_text(rows=50))
    (tmp_path / "log/001").with_suffix(".csv").write_text(log_text(rows=70, header=False).replace("C", "D"))
    assert "looks like a row" in refused(tmp_path, "log")
    result = run(tmp_path, "log", files={"names": ["user_id", "item_id", "headline", "timestamp"]})
    assert (result["rows"]["events"], result["rejected"]["events"]) == (120, {})


# -- repeats ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "unit", "zone"),
    [
        ("2020-09-{day:02}", "iso", "Europe/Berlin"),
        ("{day:02}.09.2020", "%d.%m.%Y", "America/New_York"),
        ("2020-09-{day:02}T00:00:00Z", "iso", ""),
        ("2020-09-{day:02}T00:00:00+02:00", "iso", ""),
        ("{seconds}", "s", ""),
    ],
)
def test_several_of_one_on_one_day_are_a_quantity(tmp_path: Path, form: str, unit: str, zone: str) -> None:
    rows = [form.format(day=n % 28 + 1, seconds=1_598_918_400 + n % 28 * 86_400) for n in range(200)]
    log = [f"u{n % 40},i{n % 20},{at}\n" for n, at in enumerate(rows)]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(log + log[:20]))
    result = run(tmp_path, columns={"timestamp_unit": unit, "time_zone": zone})
    assert (result["rows"]["events"], result["rejected"]["events"]) == (200, {"duplicate event": 20})


def test_several_of_one_at_one_second_are_a_fault(tmp_path: Path) -> None:
    log = [f"u{n % 40},i{n % 20},2020-09-{n % 28 + 1:02}T10:{n % 60:02}:00Z\n" for n in range(200)]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(log + log[:20]))
    message = refused(tmp_path, columns={"timestamp_unit": "iso"})
    assert "duplicate event 20" in message
    assert "ingest.columns.timestamp must differ" in message
