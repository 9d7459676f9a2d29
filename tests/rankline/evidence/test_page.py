"""The evidence page, read as a browser reads it."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest

from rankline.evidence.page import evidence_page, missing, sections
from rankline.evidence.plots import slice_plot
from tests.rankline.evidence.subjects import (
    EVIL,
    bare,
    full,
    ids,
    manifest,
    parsed,
    report,
    rows,
    run_facts,
    table,
    text,
)

PLAIN_EVIL = " ".join(EVIL.split())


@pytest.fixture(scope="module")
def tree() -> Any:
    return parsed(full())


def test_the_verdict_comes_first_and_the_gates_that_are_not_met_before_the_others(tree: Any) -> None:
    assert text(tree.xpath("//h1")[0]) == f"Refused model {'a' * 16}"
    assert text(tree.xpath("//header/p")[0]) == PLAIN_EVIL
    assert PLAIN_EVIL in text(tree.xpath("//p[@class='warning']")[0])
    first = tree.xpath("//main/section")[0]
    assert first.get("id") == "reasons"
    assert text(first.xpath(".//caption")[0]) == "Gates that are not met: 2 of 3"
    unmet = rows(table(tree, "Gates that are not met"))
    assert unmet[0] == [
        "not worse", "not met", "-0.06", "interval from -0.035", "-0.0400 [-0.0600, -0.0200]", PLAIN_EVIL,
    ]  # fmt: skip
    assert unmet[1][:3] == [f"slice {PLAIN_EVIL}", "insufficient data", "12"]
    (met,) = first.xpath("./details")
    assert met.get("open") is None
    assert rows(met.xpath(".//table")[0])[0][:3] == ["requests", "met", "200"]


def test_without_a_failure_all_gates_are_open() -> None:
    subject = full()
    verdict = subject.verdict.model_copy(update={"outcome": "promote", "checks": subject.verdict.checks[:1]})
    tree = parsed(replace(subject, verdict=verdict))
    assert text(tree.xpath("//h1")[0]).startswith("Promote")
    assert tree.xpath("//section[@id='reasons']/details")[0].get("open") is not None
    assert not [each for each in tree.xpath("//caption") if "not met" in text(each)]


def test_every_system_is_there_in_every_metric_with_its_interval(tree: Any) -> None:
    scores = {row[0]: row[1:] for row in rows(table(tree, "Every system in every metric"))}
    assert list(scores) == ["candidate", "champion", "anchor", "teacher", "item-kNN", "popularity"]
    assert scores["champion"] == ["0.350 0.300 to 0.400"] * 2
    plots = tree.xpath("//section[@id='scores']//svg")
    assert [each.xpath("./title")[0].text for each in plots] == [
        "ndcg@10: mean and interval of each system", "hr@10: mean and interval of each system",
    ]  # fmt: skip
    for plot in plots:
        assert {"candidate", "champion", "anchor", "popularity"} <= {text(each) for each in plot.iter("text")}
    differences = {row[0]: row[1:] for row in rows(table(tree, "Candidate minus the other system"))}
    assert differences["champion"] == ["-0.0400", "-0.0600 to -0.0200"]
    assert differences["popularity"] == ["+0.2100", "+0.1900 to +0.2300"]


def test_slices_have_both_systems_and_the_gap_of_their_kind(tree: Any) -> None:
    by_slice = {row[0]: row[1:] for row in rows(table(tree, "ndcg@10 by slice"))}
    assert by_slice["user: new"][:3] == ["60", "0.200", "0.300"]
    assert by_slice[f"category: {PLAIN_EVIL}"][0] == "12"
    assert rows(table(tree, "How far the slices")) == [["user", "user: established 0.360", "user: new 0.200", "0.160"]]


def test_wins_and_losses_show_the_request_both_lists_and_the_features(tree: Any) -> None:
    section = tree.xpath("//section[@id='comparisons']")[0]
    assert "better on 2, worse on 1, equal on 197 of 200" in text(section)
    articles = section.xpath(".//article")
    assert len(articles) == 3
    win = articles[0]
    assert text(win.xpath(".//summary")[0]).endswith("1.000 against 0.000 (+1.000)")
    assert PLAIN_EVIL in text(win.xpath(".//summary")[0])
    assert [text(each) for each in win.xpath(".//dt")] == ["Asked", "History", "Targets"]
    assert text(win.xpath(".//dd")[1]) == f"3 items, the last 1: {PLAIN_EVIL}"
    candidate, other = win.xpath(".//ol")
    assert [each.get("class") for each in (candidate[0], other[0])] == ["hit", None]
    assert f"{PLAIN_EVIL} 3" in text(candidate.xpath(".//*[@class='features']")[0])
    assert "0.000 against 1.000 (-1.000)" in text(articles[2])


def test_data_cost_training_lineage_and_the_command(tree: Any) -> None:
    cost = rows(table(tree, "What each step took"))
    assert cost[1] == ["finetune", "done", "30.0", "41.2", "900.0 MB"]
    assert "41.8 core-seconds" in text(tree.xpath("//section[@id='cost']")[0])
    assert rows(table(tree, "Rows of each table"))[0] == ["items", "60", "2", "+25.0%"]
    assert rows(table(tree, "Drift")) == [[PLAIN_EVIL, "12.5%"]]
    assert "2 are new and 1 are gone" in text(tree.xpath("//section[@id='data']")[0])
    assert len(tree.xpath("//section[@id='training']//svg")) == 2  # losses, and metrics
    lineage = dict(rows(table(tree, "What the model was made from")))
    assert (lineage["data"], lineage["code"], lineage["image"]) == ("d" * 64, "c" * 64, f"data: {PLAIN_EVIL}")
    assert lineage["weights it started from"] == PLAIN_EVIL
    assert rows(table(tree, "Settings that differ")) == [["ingest.source", f'"{PLAIN_EVIL}"']]
    assert ["finetune", "teacher", "f" * 64] in rows(table(tree, "Digests of the outputs"))
    assert tree.xpath("//pre/code")[0].text_content().splitlines()[0] == "rankline runs retry run-1 -w '/a b'"
    serving = text(tree.xpath("//section[@id='serving']")[0])
    assert "9.5 ms" in serving
    assert "300.0 MB" in serving


# -- safe, for everybody -----------------------------------------------------------------------------------------


def test_nothing_that_the_data_brings_becomes_markup_and_nothing_is_loaded(tree: Any) -> None:
    assert tree.xpath("//script | //img | //link | //iframe | //object | //form | //b[text()='c']") == []
    attributes = [(node.tag, name, value) for node in tree.iter() for name, value in node.attrib.items()]
    assert [each for each in attributes if each[1].lower().startswith("on")] == []
    references = {value for _, name, value in attributes if name.endswith(("href", "src"))}
    assert {each[0] for each in references} == {"#"}
    styles = " ".join(
        [*(node.text for node in tree.iter("style")), *(v for _, name, v in attributes if name == "style")]
    )
    assert "@import" not in styles
    assert {each[:1] for each in re.findall(r"url\(([^)]*)\)", styles)} <= {"#"}
    policy = tree.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_a_screen_reader_and_a_keyboard_find_their_way(tree: Any) -> None:
    assert tree.get("lang") == "en"
    assert len(tree.xpath("//h1")) == len(tree.xpath("//main")) == 1
    levels = [int(node.tag[1]) for node in tree.iter() if re.fullmatch("h[1-6]", str(node.tag))]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    every = [node.get("id") for node in tree.iter() if node.get("id")]
    assert sorted(set(every)) == sorted(every)
    for link in tree.xpath("//a/@href"):
        assert link.removeprefix("#") in every
    for section in tree.xpath("//section"):
        assert section.get("aria-labelledby") in every
    for each in tree.xpath("//table"):
        assert text(each.find("caption"))
        assert {head.get("scope") for head in each.xpath(".//th")} <= {"col", "row"}
        assert each.getparent().get("tabindex") == "0"  # it may have to be scrolled
    for plot in tree.xpath("//svg"):
        assert plot.get("role") == "img"
        assert plot.get("aria-label") == plot.xpath("./title")[0].text != ""


def test_light_and_dark_have_the_same_colours_and_plots_use_them(tree: Any) -> None:
    style = tree.xpath("//style")[0].text
    light, dark = (
        set(re.findall(r"(--\w+):", part)) for part in style.split("@media (prefers-color-scheme: dark)")[:2]
    )
    assert light == dark
    plots = [node.get("style") or "" for plot in tree.xpath("//svg") for node in plot.iter()]
    colours = {each for style in plots for each in re.findall(r"(?:fill|stroke): ?([^;]+)", style)}
    assert {each for each in colours if each.startswith("#")} == set()
    assert {f"var({name})" for name in ("--candidate", "--champion", "--ink")} <= colours


# -- what is not known -------------------------------------------------------------------------------------------


without_items = {name: each for name, each in report().details.items() if name != "items"}
LEFT_OUT: dict[str, dict[str, Any]] = {
    "reasons": {"verdict": full().verdict.model_copy(update={"checks": []})},
    "differences": {"report": report(details={"items": {"count": 1}})},
    "slices": {"report": report(slices={})},
    "comparisons": {"comparisons": None},
    "calibration": {"report": report(calibration={}, heads={})},
    "cost": {"run": None},
    "data": {"run": replace(run_facts(), data=None), "report": report(details=without_items)},
    "training": {"run": replace(run_facts(), curves={})},
    "reproduce": {"run": replace(run_facts(), commands=())},
}


def test_a_full_page_has_every_section_and_nothing_is_missing(tree: Any) -> None:
    assert ids(tree.xpath("//main/section")) == list(sections(full()))
    assert set(LEFT_OUT) <= set(sections(full()))
    assert list(missing(full())) == []


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_section_is_absent_exactly_when_its_input_is(name: str) -> None:
    subject = full(**LEFT_OUT[name])
    tree, absent = parsed(subject), dict(missing(subject))
    expected = {"cost", "training", "reproduce"} if name == "cost" else {name}  # all of them are of the run
    assert set(absent) == expected
    assert ids(tree.xpath("//main/section")) == [each for each in sections(full()) if each not in expected] + ["absent"]
    assert [text(each) for each in tree.xpath("//section[@id='absent']//li")] == list(absent.values())


def test_an_earlier_versions_evaluation_makes_a_page() -> None:
    tree = parsed(bare())
    assert ids(tree.xpath("//main/section")) == ["reasons", "scores", "serving", "lineage", "absent"]


def test_details_of_another_version_are_left_out() -> None:
    odd = report(details={"differences": {"champion": {"ndcg@10": "?"}, "popularity": 3}, "items": "?"})
    subject = full(report=odd, run=None)
    assert (subject.differences, subject.items, subject.languages) == ({}, {}, {})
    assert {"differences", "data"} <= set(dict(missing(subject)))
    assert parsed(subject).xpath("//section[@id='scores']")


def test_a_candidate_that_nothing_was_measured_of_makes_a_page() -> None:
    empty = report(systems={"candidate": {"metrics": {"ndcg@10": {}}}}, latency={}, model={}, details={}, slices={})
    tree = parsed(full(report=empty))
    assert rows(table(tree, "Every system"))[0] == ["candidate", "not measured"]
    assert "not measured" in text(tree.xpath("//section[@id='serving']")[0])


def test_a_baseline_that_beats_the_candidate_is_named_at_the_top() -> None:
    header = text(parsed(full()).xpath("//header")[0])
    assert "is better" not in header, "the teacher is none, and item-kNN is worse"
    better = report(systems={"candidate": {"metrics": {"ndcg@10": {"mean": 0.1}}}, **{
        name: {"metrics": {"ndcg@10": {"mean": mean}}} for name, mean in {"popularity": 0.15, "item_knn": 0.2}.items()
    }})  # fmt: skip
    header = text(parsed(full(report=better)).xpath("//header")[0])
    assert "The baseline item-kNN is better: ndcg@10 0.200 against 0.100 of the candidate." in header


@pytest.mark.parametrize(("compared", "shown"), [(None, False), (False, True), (True, False)])
def test_no_earlier_run_is_said_where_it_is_known(compared: bool | None, shown: bool) -> None:
    run = run_facts()
    assert run.data is not None
    run = replace(run, data=replace(run.data, compared=compared, changes={}))
    assert ("There was no earlier good run" in evidence_page(full(run=run))) is shown


def test_times_are_written_in_one_way(tree: Any) -> None:
    lineage = text(tree.xpath("//section[@id='lineage']")[0])
    assert "2024-01-01 00:00 UTC" in lineage
    assert "+00:00" not in lineage


def test_a_page_of_many_requests_and_slices_stays_small() -> None:
    both = full().comparisons
    assert both is not None
    many = both.model_copy(update={"wins": both.wins * 10, "losses": both.losses * 20})
    part = report().slices["user: new"]
    large = report(slices={f"category: {n}": part for n in range(60)})
    assert len(evidence_page(full(comparisons=many, report=large)).encode()) < 1_500_000


def test_a_plot_takes_names_that_look_like_mathematics() -> None:
    plot = slice_plot({"$x^{$ (3)": {"candidate": 0.5}}, ["candidate"], "ndcg@10")
    assert "$x^{$ (3)" in plot
    assert manifest().catalogue == EVIL
