"""Whatever a source is: `rankline init` proposes something or says in one message what is wrong."""

from __future__ import annotations

import json
import runpy
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onboarding.inference import trial
from onboarding.inference.proposal import propose
from onboarding.survey.survey import survey
from tests.cli.in_process import rankline

LOG = [{"user_id": f"u{n % 40}", "item_id": f"i{n % 20}", "timestamp": 1_680_000_000 + n} for n in range(200)]


def lines(rows: list[Any]) -> str:
    return "\n".join(map(json.dumps, rows))


def deep(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def parquet(folder: Path, name: str, table: Any) -> None:
    pq.write_table(table, folder / name)


def archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "log.csv", "w") as each:
        each.writestr("a", "b")


def duplicate_names(folder: Path) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    parquet(folder, "log.parquet", table)


NESTED = pa.table({"a": pa.array([[{"b": [{"c": 1}]}]] * 9), "d": pa.array([{"e": {"f": 1}}] * 9)})
INPUTS: dict[str, Callable[[Path], Any]] = {
    "nothing": lambda folder: None,
    "an empty file": lambda folder: (folder / "log.csv").write_bytes(b""),
    "a header alone": lambda folder: (folder / "log.csv").write_text("user_id,item_id\n"),
    "bytes": lambda folder: (folder / "log.csv").write_bytes(bytes(range(256)) * 20),
    "zeros": lambda folder: (folder / "log.csv").write_bytes(b"user_id,item_id\n\x00,\x00\n" * 20),
    "a zip": archive,
    "parquet that is none": lambda folder: (folder / "log.parquet").write_bytes(b"PAR1xxxxPAR1"),
    "a folder named like a file": lambda folder: (folder / "log.csv").mkdir(),
    "no columns": lambda folder: parquet(folder, "log.parquet", pa.table({})),
    "columns of the same name": duplicate_names,
    "names that differ by case": lambda folder: (folder / "log.jsonl").write_text(
        lines([{**row, "Item_ID": 1, "ITEM_id": 2} for row in LOG])
    ),
    "csv names that differ by case": lambda folder: (folder / "log.csv").write_text(
        "user_id,User_id,item_id,timestamp\n" + "".join(f"u{n},x,i{n % 9},{n}\n" for n in range(90))
    ),
    "names of our own": lambda folder: (folder / "log.jsonl").write_text(
        lines([{**row, "row": 1, "raw": 2, "cell": 3, "c0": 4, "broken": 5, "object": 6, "select": 7} for row in LOG])
    ),
    "odd names": lambda folder: (folder / "log.jsonl").write_text(
        lines([{**row, 'a"b': 1, "c'd": 2, "": 3, "e.f": 4, "g\nh": 5, "{0}": 6, "$x": 7, "😀": 8} for row in LOG])
    ),
    "deep objects": lambda folder: (folder / "log.jsonl").write_text((deep(30) + "\n") * 20),
    "objects too deep": lambda folder: (folder / "log.jsonl").write_text((deep(5000) + "\n") * 20),
    "objects of a depth that few parsers take": lambda folder: (folder / "log.jsonl").write_text(
        (deep(1200) + "\n") * 20
    ),
    "objects beyond all depth": lambda folder: (folder / "log.jsonl").write_text((deep(200_000) + "\n") * 20),
    "lists too deep": lambda folder: (folder / "log.csv").write_text(
        "user_id,items\n" + f"u,{'[' * 5000}{']' * 5000}\n" * 20
    ),
    "halves of characters": lambda folder: (folder / "log.jsonl").write_text('{"user_id": "\\ud800", "x": 1}\n' * 20),
    "numbers beyond all bounds": lambda folder: (folder / "log.jsonl").write_text(
        '{"user_id": 1e999, "x": 123456789012345678901234567890123456789012345678901, "y": NaN}\n' * 20
    ),
    "a thousand columns": lambda folder: (folder / "log.csv").write_text(
        ",".join(f"column{n}x" for n in range(1000)) + "\n" + (",".join("1" * 1000) + "\n") * 5
    ),
    "rows of any length": lambda folder: (folder / "log.csv").write_text(
        "user_id,item_id\n" + "".join("x," * n + "y\n" for n in range(40))
    ),
    "a cell of a megabyte": lambda folder: (folder / "log.csv").write_text(
        "user_id,item_id,text\n" + f'u,i,"{"x" * (1 << 20)}"\n' * 3
    ),
    "lists of objects": lambda folder: parquet(
        folder,
        "log.parquet",
        pa.table({"a": pa.array([[{"b": [{"c": 1}]}]] * 9), "d": pa.array([{"e": {"f": 1}}] * 9)}),
    ),
    "nulls alone": lambda folder: parquet(folder, "log.parquet", pa.table({"a": pa.nulls(9), "b": pa.nulls(9)})),
    "a name with an emoji": lambda folder: (folder / "😀.jsonl").write_text(lines(LOG)),
    "a name with a line end": lambda folder: (folder / "log\nx.jsonl").write_text(lines(LOG)),
    "a name with a quote": lambda folder: (folder / "log'\"x.jsonl").write_text(lines(LOG)),
    "a name with a star": lambda folder: (folder / "log[1]*.jsonl").write_text(lines(LOG)),
    "a name that is no text": lambda folder: Path(folder, "log\udcff.jsonl").write_text(lines(LOG)),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", INPUTS)
def test_no_input_ends_in_a_stack_trace(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    INPUTS[name](source)
    done = rankline("init", source, "--name", "mine", "--yes", "--time-zone", "UTC", cwd=tmp_path)
    assert done.returncode in (0, 1, 2), done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert "unforeseen" not in done.stderr, done.stderr
    if done.returncode == 0:
        profiled = rankline("data", "profile", "--recipe", "mine:mine", cwd=tmp_path)
        assert profiled.returncode == 0, profiled.stderr


@pytest.mark.parametrize(
    "name", ["shop 😀", 'shop\nformat = "sql"\n[files]\nquote = "x"', "sh\"o'p\\", "größe", "a\u2028b"]
)
def test_a_folder_of_any_name_is_in_the_map_and_the_recipe_as_it_is(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.mkdir()
    (source / "log.jsonl").write_text(lines(LOG))
    done = rankline("init", source, "--name", "mine", "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    settings = tomllib.loads((tmp_path / "mine.toml").read_text())
    assert (settings["format"], "files" in settings) == ("tables", False)
    recipe = runpy.run_path(str(tmp_path / "mine.py"))["mine"]()
    assert recipe.ingest.source == str(source)


def test_a_zone_that_is_missing_makes_no_time_a_mere_guess(tmp_path: Path) -> None:
    log = [{**row, "timestamp": f"2023-03-{n % 28 + 1:02} 10:00:00"} for n, row in enumerate(LOG)]
    (tmp_path / "log.jsonl").write_text(lines(log))
    columns = propose(survey(str(tmp_path)), name="mine").column_mappings["events"]
    assert {each.setting: each.confidence_label for each in columns}["timestamp"] == "sure"


@pytest.mark.integration
def test_prices_that_ingest_would_refuse_are_no_guess(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(lines(LOG))
    items = [{"item_id": f"i{n}", "title": f"a thing called {n}", "price": f"{n}.50"} for n in range(200)]
    (tmp_path / "items.jsonl").write_text(lines(items))
    assert propose(survey(str(tmp_path)), name="mine").column("items", "price") == "price"
    for item in items[:16]:
        item["price"] = "ask us"  # 8%: mostly numbers, but more others than ingest allows
    (tmp_path / "items.jsonl").write_text(lines(items))
    proposal = propose(survey(str(tmp_path)), name="mine")
    assert proposal.column("items", "price") == ""
    assert propose(survey(str(tmp_path)), name="mine", overrides={"price": "price"}).column("items", "price") == "price"
    shares = trial._unreadable_shares(proposal, "items")
    assert shares["item_id is not a plain value"] == 0


def test_an_unforeseen_error_is_one_message_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log.jsonl").write_text(lines(LOG))
    monkeypatch.setattr("onboarding.survey.survey.survey", lambda *_, **__: 1 / 0)
    done = rankline("init", tmp_path, "--yes", cwd=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "an unforeseen ZeroDivisionError" in done.stderr
    log = Path(done.stderr.partition("where: ")[2].splitlines()[0])
    assert "Traceback" in log.read_text()
    log.unlink()
