"""`rankline data`: the profile of a source, the page, and a slice that runs."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.data.data import sparkline
from cli.main import app
from rankline.errors import RanklineError
from tests.cli.in_process import rankline, refused
from tests.onboarding import odd_sources
from tests.onboarding.event_logs import common, cycle, event_log


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `rankline init` has written the recipe of some ratings."""
    folder = tmp_path_factory.mktemp("books")
    odd_sources.ratings(folder / "books")
    with (folder / "books/ratings.jsonl").open("a") as log:
        log.write('\n{"userId": "u1", "bookId": 12345, "stars": 3, "when": 1600000000}')
    assert rankline("init", "books", "--yes", cwd=folder).returncode == 0
    return folder


@pytest.mark.integration
def test_the_profile_is_printed_and_drawn(books: Path) -> None:
    done = rankline("data", "profile", "--recipe", "books:books", "--html", "profile.html", cwd=books)
    assert done.returncode == 0, done.stderr
    for expected in (
        "events: 2,000 rows", "items: 90 rows", "rating: 1.0 400, 2.0 400", "events per day,",
        "rejected: 1 events: unknown item", "wrote profile.html",
    ):  # fmt: skip
        assert expected in done.stdout
    page = (books / "profile.html").read_text()
    assert page.count("<svg") >= 4
    assert "src=" not in page  # it is self-contained
    assert "<link" not in page


def test_json_holds_every_number(books: Path) -> None:
    done = rankline("data", "profile", "--recipe", "books:books", "--json", cwd=books)
    profile = json.loads(done.stdout)
    assert profile["tables"]["events"]["rows"] == 2000
    assert profile["tails"]["users"]["names"] == 250
    assert profile["tails"]["users"]["events"]["50%"] == 8
    assert profile["labels"]["rating"] == {f"{n}.0": 400 for n in range(1, 6)}
    assert sum(events for _, events in profile["days"]) == 2000
    assert profile["rejected"]["events"] == {"unknown item": 1}
    assert sum(profile["hours"]) == 2000
    columns = {column["name"]: column for column in profile["tables"]["items"]["columns"]}
    assert columns["category"]["top"] == {"drama": 90, **{f"number {n}": 23 if n < 2 else 22 for n in range(4)}}


@pytest.mark.integration
def test_a_slice_is_a_source_of_its_own(books: Path) -> None:
    done = rankline("data", "slice", "--recipe", "books:books", "--users", 20, "--to", "slice", cwd=books)
    assert done.returncode == 0, done.stderr
    assert "users           20 of 250" in done.stdout
    events = pq.read_table(books / "slice/events.parquet")
    assert len(set(events.column("user_id").to_pylist())) == 20
    assert len(events) == 160  # all events of these users
    again = rankline(
        "data",
        "profile",
        "--recipe",
        "books:books",
        "--source",
        "slice",
        "--map",
        "slice/map.toml",
        "--json",
        cwd=books,
    )
    profile = json.loads(again.stdout)
    assert (profile["tables"]["events"]["rows"], profile["rejected"]) == (160, {})
    assert profile["labels"]["rating"].keys() <= {f"{n}.0" for n in range(1, 6)}
    assert tomllib.loads((books / "slice/map.toml").read_text())["columns"]["labels"] == {"rating": "rating"}


@pytest.mark.integration
def test_positives_negatives_and_neither_are_counted_and_stay_in_a_slice(tmp_path: Path) -> None:
    kinds = cycle("impression", "impression", "click", "purchase", "return", "login")
    columns = common(event=kinds, request_id=lambda n: f"r{n // 6}", position=lambda n: n % 6 + 1)
    event_log(tmp_path / "log", columns)
    assert rankline("init", "log", "--name", "offers", "--yes", cwd=tmp_path).returncode == 0
    done = rankline("data", "profile", "--recipe", "offers:offers", cwd=tmp_path)
    assert "what events say of items: 400 positive (33.3%), 600 negative (50.0%), 200 neither (16.7%)" in done.stdout
    assert "return: 0.0 800, 1.0 200, none 200; counts in 20.0%" in done.stdout
    slice_ = ("--source", "slice", "--map", "slice/map.toml")
    rankline("data", "slice", "--recipe", "offers:offers", "--users", 1000, "--to", "slice", cwd=tmp_path)
    again = rankline("data", "profile", "--recipe", "interactions", *slice_, "--json", cwd=tmp_path)
    profile = json.loads(again.stdout)
    assert profile["feedback"] == {"positive": 400, "negative": 600, "neither": 200}
    assert profile["label_shares"] == {"click": 0.2, "purchase": 0.2, "return": 0.2}
    settings = tomllib.loads((tmp_path / "slice/map.toml").read_text())
    assert (settings["columns"]["request_id"], settings["columns"]["position"]) == ("request_id", "position")
    assert settings["labels"]["return"]["weight"] == -1


def message(*arguments: object, code: int = 1) -> str:
    """The error message of the command."""
    error = CliRunner().invoke(app, [*map(str, arguments)]).exception
    assert isinstance(error, RanklineError), repr(error)
    assert error.exit_code == code
    return str(error)


def test_bad_input_is_one_message(tmp_path: Path) -> None:
    assert "the folder does not exist" in refused("data", "profile", tmp_path / "nowhere")
    assert "no canonical tables" in message("data", "profile", tmp_path)
    assert "found: neither" in message("data", "profile", code=2)
    (tmp_path / "events.parquet").write_bytes(b"PAR1 no")
    assert "a table cannot be read" in message("data", "profile", tmp_path)
    assert "no recipe named" in message("data", "profile", "--recipe", "boks", code=2)


def test_a_sparkline_has_one_block_per_value_until_there_are_too_many() -> None:
    assert sparkline([0, 1, 4, 8]) == " ▁▄█"
    assert len(sparkline(list(range(1000)))) <= 60
    assert sparkline([]) == ""
