"""`rankline init`: what it writes, what it asks, and its errors."""

from __future__ import annotations

import os
import pty
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.data.init import _recipe_name
from cli.main import app
from rankline.errors import RanklineError
from tests.cli.command import RANKLINE
from tests.cli.in_process import rankline, refused
from tests.onboarding import odd_sources
from tests.onboarding.proposals import Cell, csv, log, tried, write

pytestmark = pytest.mark.integration


def test_the_map_and_the_recipe_are_written_and_work(tmp_path: Path) -> None:
    odd_sources.ratings(tmp_path / "books")
    done = rankline("init", "books", "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for expected in ("labels.rating", "sure: 5 distinct numbers from 1 to 5", "The book of 0", "recipe: interactions"):
        assert expected in done.stdout
    assert "events       2,000 rows, none rejected" in done.stdout
    assert (tmp_path / "books.toml").is_file()
    # the next commands take what it wrote
    shown = rankline("recipes", "show", "books:books", cwd=tmp_path)
    assert "ingest.columns.item_id = 'bookId'" in shown.stdout
    assert "exist already" in refused("init", "books", "--yes", cwd=tmp_path, code=2)
    assert rankline("init", "books", "--yes", "--force", cwd=tmp_path).returncode == 0


def test_without_a_terminal_nothing_is_written_without_yes(tmp_path: Path) -> None:
    source = odd_sources.ratings(tmp_path / "books", times=["2021-03-04 10:00:00", "2021-05-06 10:00:00"])
    output = refused("init", source, cwd=tmp_path, code=2)
    assert "expected: --time-zone --yes" in output
    output = refused("init", source, "--yes", cwd=tmp_path, code=2)
    assert "expected: --time-zone\n" in output
    assert "it would write books.toml and books.py (interactions)" in output
    assert not (tmp_path / "books.toml").exists()
    done = rankline("init", source, "--yes", "--time-zone", "UTC", cwd=tmp_path)
    assert (done.returncode, "`rankline run` refuses them" in done.stdout) == (1, True)  # two times are too few
    assert tomllib.loads((tmp_path / "books.toml").read_text())["columns"]["time_zone"] == "UTC"


@pytest.mark.parametrize("name", ["class", "email", "dataclasses", "pipelines", "recipes", "numpy"])
def test_a_recipe_does_not_take_the_name_of_another_module(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert "cannot have that name" in message("init", tmp_path / name, "--name", name, code=2)
    assert _recipe_name(None, str(tmp_path / name)) == "mine"


def test_nothing_is_written_before_the_dry_run_succeeds(tmp_path: Path) -> None:
    books = odd_sources.ratings(tmp_path / "books", times=["yesterday", "soon"])
    out = tmp_path / "out"
    output = message("init", books, "--yes", "-o", out, "--column", "timestamp_unit=bananas", code=2)
    assert "there is no such unit or pattern of times" in output
    assert "found: bananas" in output
    # every row is rejected: the message has the user's limit, and no path of the temporary folder
    times = ("--column", "timestamp=when", "--column", "timestamp_unit=iso", "--time-zone", "UTC")
    output = message("init", books, "--yes", "-o", out, *times)
    assert "nothing was written: ingest cannot read the source with this map: 2000 of 2000 rows of events" in output
    assert "at most 5.0% rejected" in output
    assert "found: 100.0%" in output
    assert "ratings.jsonl\n" in output
    assert "rejected.parquet" not in output
    assert "go on without them" not in output
    # the map itself is refused
    taken = ("--column", "timestamp=", "--column", "item_attributes=title")
    output = message("init", books, "--yes", "-o", out, *taken, code=2)
    assert "the map refuses [columns] item_attributes" in output
    assert "Value error" not in output
    assert not out.exists()


def test_rejected_rows_are_printed_with_their_reason(tmp_path: Path) -> None:
    source = odd_sources.ratings(tmp_path / "books")
    with (source / "ratings.jsonl").open("a") as log:
        log.write('\n{"userId": "u1", "bookId": 12345, "stars": 3, "when": 1600000000}')
        log.write("\nno json at all" * 200)
    done = rankline("init", source, "--yes", cwd=tmp_path)
    assert "200 not a JSON object: no json at all" in done.stdout
    assert "1 unknown item: " in done.stdout
    assert "too many events are rejected (at most 5%)" in done.stdout


def test_in_a_terminal_it_asks(tmp_path: Path) -> None:
    source = odd_sources.german_shop(tmp_path / "shop")
    answers = [
        "",  # events
        "",  # items
        "",  # users: none
        "",  # queries: none
        "event_numbers=Preis",  # refused: events have no such column
        "title=Beschreibung",  # a change of a sure column
        "",
        "",
        "Europa/Berlin",  # no such zone
        "Europe/Berlin",
        "y",
    ]
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [RANKLINE, "init", str(source)], stdin=follower, stdout=follower, stderr=follower, cwd=tmp_path,
        env={**os.environ, "COLUMNS": "160", "TERM": "dumb"}, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    os.write(leader, ("\n".join(answers) + "\n").encode())
    output = b""
    while True:
        try:
            block = os.read(leader, 1 << 16)
        except OSError:
            break
        if not block:
            break
        output += block
    text = output.decode()
    assert process.wait(60) == 0, text
    assert "no table of events has a column 'Preis'" in text
    assert "there is no such time zone" in text
    assert "purchase  action = purchase; a positive, weight 5" in text
    map_settings = tomllib.loads((tmp_path / "shop.toml").read_text())
    assert map_settings["columns"]["title"] == "Beschreibung"
    assert map_settings["columns"]["time_zone"] == "Europe/Berlin"
    assert "rankline run --recipe shop:shop" in text


def message(*arguments: object, code: int = 1) -> str:
    """The error message of the command."""
    error = CliRunner().invoke(app, [*map(str, arguments)]).exception
    assert isinstance(error, RanklineError), repr(error)
    assert error.exit_code == code
    return str(error)


def test_bad_input_is_one_message(tmp_path: Path) -> None:
    assert "the source does not exist" in refused("init", tmp_path / "nowhere", "--yes")
    (tmp_path / "empty").mkdir()
    assert "no table that can be read" in message("init", tmp_path / "empty", "--yes")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8")
    assert "the file is not a table" in message("init", tmp_path / "photo.jpg", "--yes")
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)) * 40)
    assert "cannot be read as text" in message("init", tmp_path / "bytes.csv", "--yes")
    assert "there is no source" in message("init", "--yes", code=2)
    books = odd_sources.ratings(tmp_path / "books")
    assert "--column takes setting=column" in message("init", books, "--column", "title", code=2)
    assert "no such time zone" in message("init", books, "--time-zone", "CEST!", code=2)
    assert "no such kind of recipe" in message("init", books, "--kind", "magic", code=2)
    assert "cannot have that name" in message("init", books, "--name", "My Shop", code=2)
    assert "no files of events" in message("init", books, "--events", "nowhere.csv")
    assert "chained URLs" in message("init", f"zip://*.csv::file://{tmp_path}/a.zip", "--yes")


@pytest.mark.parametrize(
    ("cell", "reason"),
    [(lambda n: 0, "no event is a positive"), (lambda n: "no", "no event is a positive")],
)
def test_what_run_would_refuse_ends_with_an_error_code(tmp_path: Path, cell: Cell, reason: str) -> None:
    write(tmp_path / "shop", {"events.csv": log(clicked=cell)})
    done = rankline("init", "shop", "--yes", cwd=tmp_path)
    assert (done.returncode, (tmp_path / "shop.toml").exists()) == (1, True), done.stderr
    assert reason in done.stdout
    refused("data", "profile", "--recipe", "shop:shop", cwd=tmp_path)


def test_many_rejected_rows_end_with_an_error_code(tmp_path: Path) -> None:
    items = csv(rows=5, item_id=lambda n: f"i{n}", title=lambda n: f"a thing called {n}")
    events = log(item_id=lambda n: f"i{n % 5}" if n % 5 else f"gone {n}")
    write(tmp_path / "shop", {"events.csv": events, "items.csv": items})
    assert rankline("init", "shop", "--yes", cwd=tmp_path).returncode == 1


def test_ids_that_are_half_in_other_case_are_normalised(tmp_path: Path) -> None:
    items = csv(rows=20, item_id=lambda n: f"i{n}", title=lambda n: f"a thing called {n}")
    events = log(80, item_id=lambda n: f"{'iI'[n % 2]}{n % 20}")
    result = tried(tmp_path, {"events.csv": events, "items.csv": items})
    assert (result.proposal.settings["columns"]["normalise_ids"], result.rejected) == (["case"], {})
