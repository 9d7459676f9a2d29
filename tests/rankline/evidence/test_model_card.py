"""The model card: its numbers are those of the report, and the data's texts are no markup."""

from __future__ import annotations

import dataclasses
import re

import pytest

from rankline.evidence.model_card import model_card
from tests.rankline.evidence.subjects import bare, full, run_facts


@pytest.fixture(scope="module")
def card() -> str:
    return model_card(full())


def section(card: str, title: str) -> str:
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def cells(part: str) -> list[list[str]]:
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_a_card_has_every_part(card: str) -> None:
    parts = ["Intended use", "Data", "Model", "Metrics", "Fairness", "Limits", "Reproduce"]
    assert re.findall(r"^## (.+)$", card, re.MULTILINE) == parts
    assert all(section(card, part).strip() for part in parts)


def test_data_has_counts_window_and_languages(card: str) -> None:
    data = section(card, "Data")
    for line in ("Test requests: 200,", "60 items", "Items: 7", "Training events: 99", "de (2)", "from 2023-01-01 to"):
        assert line in data


def test_the_times_of_test_requests_are_those_of_the_split(card: str) -> None:
    assert "200, each later than its own user's history; the training events of other users may be later" in card
    cut = dataclasses.replace(run_facts(), settings={"featurize.split": '"time_cut"'})
    assert "200, all later than every training event" in model_card(full(run=cut))
    assert "200, held out from the training" in model_card(full(run=None))


def test_metrics_have_intervals_and_the_strongest_baseline(card: str) -> None:
    assert "| metric | candidate | champion | item\\_knn |" in section(card, "Metrics")
    assert cells(section(card, "Metrics"))[0] == [
        "ndcg@10", "0.3100 (0.2600 to 0.3600)", "0.3500 (0.3000 to 0.4000)", "0.2000 (0.1500 to 0.2500)",
    ]  # fmt: skip


def test_fairness_has_every_group_of_a_kind_and_the_gap_at_the_worst(card: str) -> None:
    assert cells(section(card, "Fairness")) == [
        ["user: established", "140", "0.3600", ""], ["user: new", "60", "0.2000", "0.1600"],
    ]  # fmt: skip


def test_limits_have_the_gates_that_are_not_met_and_the_small_groups(card: str) -> None:
    limits = section(card, "Limits")
    assert "Not met: not worse." in limits
    assert "Not proven: slice" in limits
    assert "Fewer than 50 requests, so little is known: category:" in limits


def test_texts_of_the_data_are_no_markup(card: str) -> None:
    outside_code = re.sub(r"```.*?```|`[^`\n]*`", "", card, flags=re.DOTALL)
    assert re.findall(r"<[a-z/]", outside_code) == []
    assert "**c**" not in outside_code
    assert len({len(row) for row in cells(section(card, "Metrics"))}) == 1


def test_a_card_of_an_earlier_version_says_what_is_not_known() -> None:
    card = model_card(bare())
    assert "no two groups" in section(card, "Fairness")
    assert "is not where" in section(card, "Reproduce")
    assert "Languages" not in card
