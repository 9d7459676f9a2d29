"""The declared ranges fit the settings, and what a search finds can be set."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pipelines.overrides import change
from pipelines.recipes import named
from pipelines.tuning.ranges import RANGES, Range, ranges_of, value_of
from pipelines.tuning.report import BEST, History, TrialRecord, write_report
from pipelines.tuning.study import Tuning
from rankline.errors import UsageError

SETTINGS = {"distill.dropout": 0.25, "distill.layers": 2, "finetune.learning_rate": 0.001}


@pytest.mark.parametrize("each", RANGES, ids=lambda each: each.setting)
def test_both_ends_of_a_range_are_values_of_the_setting(each: Range) -> None:
    for end in (each.low, each.high):
        value = int(end) if each.whole else end
        assert value_of(change(named("smoke"), [f"{each.setting}={value}"]), each.setting) == value


def test_a_recipes_own_value_is_in_its_range() -> None:
    recipe = named("smoke", ["distill.dropout=0.8", "finetune.layers=6"])
    ranges = {each.setting: each for each in ranges_of(recipe)}
    assert (ranges["distill.dropout"].high, ranges["finetune.layers"].high) == (0.8, 6)


def test_some_of_the_ranges_are_chosen_by_setting_or_section() -> None:
    recipe = named("smoke")
    assert {each.setting for each in ranges_of(recipe, ["finetune"])} == {
        each.setting for each in RANGES if each.setting.startswith("finetune.")
    }
    assert [each.setting for each in ranges_of(recipe, ["distill.dropout"])] == ["distill.dropout"]
    with pytest.raises(UsageError, match=r"distill\.scorer_epochs"):
        ranges_of(recipe, ["distill.scorer_epochs"])


def test_another_recipe_is_another_study_and_its_gates_are_not_part_of_it(tmp_path: Path) -> None:
    def folder(*settings: str, only: tuple[str, ...] = ()) -> str:
        return Tuning.of(named("smoke", settings), tmp_path, only).folder.name

    assert folder() == folder("decide.margin=0.4", "cluster.small.cpu=2")
    assert (
        len({folder(), folder("featurize.negatives=11"), folder(only=("distill",)), folder("finetune.epochs=3")}) == 4
    )


def history(*values: float | None) -> History:
    trials = [
        TrialRecord(number=n, state="pruned" if value is None else "complete", value=value, seconds=1.5,
                    settings=SETTINGS if n else {**SETTINGS, "distill.dropout": 0.3})
        for n, value in enumerate(values)
    ]  # fmt: skip
    return History(recipe="smoke", metric="ndcg", own={**SETTINGS, "distill.dropout": 0.3}, trials=tuple(trials))


def test_the_best_settings_are_set_by_their_file(tmp_path: Path) -> None:
    write_report(tmp_path, history(0.1, None, 0.2))
    assert tomllib.loads((tmp_path / BEST).read_text())["distill"] == {"dropout": 0.25, "layers": 2}
    recipe = named("smoke", [f"@{tmp_path / BEST}", "distill.layers=3"])
    assert (recipe.distill.dropout, recipe.distill.layers, recipe.finetune.learning_rate) == (0.25, 3, 0.001)


def test_the_page_names_the_best_and_the_own_settings(tmp_path: Path) -> None:
    write_report(tmp_path, history(0.1, None, 0.2))
    page = (tmp_path / "index.html").read_text()
    assert "trial 2 with ndcg" in page
    assert "0.1000" in page
    assert page.count("<svg") == 1 + len(SETTINGS)
    write_report(tmp_path, history(None))
    assert "No trial has come to its end" in (tmp_path / "index.html").read_text()


@pytest.mark.parametrize(
    ("values", "better"), [((0.1, 0.2), True), ((0.2, 0.1), False), ((0.2, 0.2), False), ((), False)]
)
def test_the_own_settings_win_a_tie(values: tuple[float, ...], better: bool) -> None:
    assert history(*values).is_better is better


@pytest.mark.parametrize(
    "text", ["[distil]\ndropout = 0.1\n", "distill = 3\n", "name = 'x'\n", "[distill]\ndropuot = 1\n"]
)
def test_a_file_of_settings_that_fit_no_section_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(UsageError):
        named("smoke", [f"@{tmp_path / 'settings.toml'}"])
    with pytest.raises(UsageError, match="cannot be read"):
        named("smoke", [f"@{tmp_path / 'absent.toml'}"])
