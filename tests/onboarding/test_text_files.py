"""Proposals for text files as tools write them: what the map says of quotes, escapes and missing headers."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from onboarding.inference.dry_run import DryRun, dry_run
from onboarding.inference.proposal import propose
from onboarding.inference.render import render_map
from onboarding.survey.survey import survey
from pipelines.recipes import interactions
from rankline.errors import SourceError, UsageError
from tests.components.test_ingest_text import log_text, write_escaped
from tests.onboarding.proposals import log, write


def tried(source: Path, *files: str, **overrides: str) -> tuple[dict[str, Any], DryRun]:
    """The settings of text files that the map of a source has, and what ingest reads with it."""
    surveyed = survey(str(source), files=files)
    proposal = propose(surveyed, name="mine", time_zone="UTC", overrides=overrides)
    path = (source if source.is_dir() else source.parent) / "mine.toml"
    path.write_text(render_map(proposal))
    settings = tomllib.loads(path.read_text()).get("files", {})
    return settings, dry_run(interactions(surveyed.source, str(path)).ingest)


@pytest.mark.parametrize("opened", [(), (20,), (20, 170)])
def test_no_quotes_in_tab_separated_text(tmp_path: Path, opened: tuple[int, ...]) -> None:
    (tmp_path / "log.tsv").write_text(log_text("\t", opened=opened))
    settings, result = tried(tmp_path / "log.tsv")
    assert (settings, result.rows_kept["events"], result.hint) == ({}, 200, "")


def test_tab_separated_text_with_quotes_that_close(tmp_path: Path) -> None:
    text = log_text("\t").replace("\tGreat 7\t", '\t"Great\t7"\t').replace("\tGreat 9\t", '\t"so ""great"""\t')
    (tmp_path / "log.tsv").write_text(text)
    settings, result = tried(tmp_path / "log.tsv")
    assert (settings, result.rows_kept["events"]) == ({"quote": '"'}, 200)
    assert tried(tmp_path / "log.tsv", "quote=")[0] == {"quote": ""}


def test_the_dry_run_names_the_setting_that_helps(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(log_text(opened=(20, 170)))
    settings, result = tried(tmp_path / "log.csv")
    assert (settings, result.tables_over_limit) == ({}, ["events"])
    assert "ingest.files.quote=''" in result.hint
    settings, result = tried(tmp_path / "log.csv", "quote=")
    assert (settings, result.rows_kept["events"], result.hint) == ({"quote": ""}, 200, "")


def test_quotes_behind_a_backslash_are_seen(tmp_path: Path) -> None:
    write_escaped(tmp_path)
    settings, result = tried(tmp_path)
    assert (settings, result.rows_kept["items"], result.rejected["items"]) == ({"escape": "\\"}, 20, {})


@pytest.mark.integration
def test_a_file_without_a_header_is_refused_until_its_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "clicks.csv").write_text(log_text(header=False))
    with pytest.raises(SourceError, match="looks like a row") as error:
        survey(str(tmp_path))
    assert "--files names=" in str(error.value)
    settings, result = tried(tmp_path, "names=user_id,item_id,headline,at")
    assert settings == {"names": {"events": ["user_id", "item_id", "headline", "at"]}}
    assert (result.rows_kept["events"], result.rejected["events"]) == (200, {})
    (tmp_path / "items.tsv").write_text("".join(f"P{n}\tThing {n}\t{n}\n" for n in range(20)))
    settings, result = tried(tmp_path, "names:clicks.csv=user_id,item_id,headline,at", "names:items.tsv=id,title,rank")
    assert settings["names"]["items"] == ["id", "title", "rank"]
    assert (result.rows_kept["events"], result.rows_kept["items"]) == (200, 20)


@pytest.mark.parametrize("given", ["quotes=", "names", "quote:a=b", "decimal=x", "escape=ab"])
def test_settings_of_files_that_do_not_exist(tmp_path: Path, given: str) -> None:
    with pytest.raises(UsageError, match="--files takes"):
        survey(str(tmp_path), files=(given,))


@pytest.mark.parametrize("name", ["clicks.csv", "clicks.tsv"])
def test_values_in_single_quotes(tmp_path: Path, name: str) -> None:
    sign = "\t" if name.endswith("tsv") else ","
    rows = [["user_id", "item_id", "title"], *([f"u{n}", f"i{n % 5}", f"words{sign} and more {n}"] for n in range(40))]
    text = "\n".join(sign.join(f"'{cell}'" for cell in row) for row in rows)
    (table,) = survey(str(write(tmp_path, {name: text}))).tables.values()
    assert (list(table.columns), table.rows) == (["user_id", "item_id", "title"], 40)


@pytest.mark.parametrize(("sign", "hint"), [("   ", "sed"), ("\x01", "delimiter="), ("^", "delimiter=^")])
def test_what_separates_values_otherwise_is_named(tmp_path: Path, sign: str, hint: str) -> None:
    with pytest.raises(SourceError) as error:
        survey(str(write(tmp_path, {"log.csv": log().replace(",", sign)})))
    assert hint in error.value.hint
    if len(sign) == 1:
        (table,) = survey(str(tmp_path), files=(f"delimiter={sign}",)).tables.values()
        assert list(table.columns) == ["user_id", "item_id", "timestamp"]


@pytest.mark.parametrize("sign", ["::", "||", "^|^"])
def test_delimiters_of_several_characters(tmp_path: Path, sign: str) -> None:
    (table,) = survey(str(write(tmp_path, {"log.dat": log().replace(",", sign)}))).tables.values()
    assert (list(table.columns), table.rows) == (["user_id", "item_id", "timestamp"], 40)


@pytest.mark.parametrize("files", [(), ("delimiter=::",)])
def test_what_stands_for_a_delimiter_may_not_be_in_the_file(tmp_path: Path, files: tuple[str, ...]) -> None:
    text = log().replace(",", "::").replace("i1::", "i\x1f1::", 1)
    with pytest.raises(SourceError, match="the one that stands for it") as error:
        survey(str(write(tmp_path, {"log.dat": text})), files=files)
    assert "tr -d" in error.value.hint


def test_empty_values_are_no_delimiter_of_two_bars(tmp_path: Path) -> None:
    rows = "".join(f"{n}|A thing (1995)|01-Jan-1995||u{n % 3}\n" for n in range(40))
    (table,) = survey(str(write(tmp_path, {"log.txt": "id|title|day|video|user\n" + rows}))).tables.values()
    assert (list(table.columns), table.rows) == (["id", "title", "day", "video", "user"], 40)


CLASSICS = {
    "u.data": ("19{n}\t242\t3\t881250949", "user_id,item_id,rating,timestamp"),
    "ratings.dat": ("1{n}::1193::5::978300760", "user_id,item_id,rating,timestamp"),
    "ratings_Books.csv": ("AH2L9G3DQHH{n},0000000116,4.0,1019865600", "user_id,item_id,rating,timestamp"),
    "yoochoose-clicks.dat": ("{n},2014-04-07T10:51:09.277Z,214536502,0", "session_id,timestamp,item_id,category"),
    "movies.dat": ("{n}::Toy Story (1995)::Animation|Comedy", "item_id,title,genres"),
    "behaviors.tsv": (
        "{n}\tU13740\t11/11/2019 9:05:58 AM\tN55 N42\tN55-1 N35-0", "impression_id,user_id,time,history,impressions",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSICS)
def test_well_known_files_without_a_header_are_refused_with_their_names(tmp_path: Path, name: str) -> None:
    row, names = CLASSICS[name]
    source = str(write(tmp_path, {name: "".join(row.replace("{n}", str(n)) + "\n" for n in range(9))}))
    with pytest.raises(SourceError, match=r"looks like a row|no header") as error:
        survey(source)
    assert f"--files names={names}," in error.value.hint
    (table,) = survey(source, files=(f"names={names}",)).tables.values()
    assert (list(table.columns), table.rows) == (names.split(","), 9)


def test_comments_above_the_header_are_left_out(tmp_path: Path) -> None:
    (table,) = survey(str(write(tmp_path, {"log.csv": "# exported in May\n# by us\n" + log()}))).tables.values()
    assert (list(table.columns), table.rows) == (["user_id", "item_id", "timestamp"], 40)
