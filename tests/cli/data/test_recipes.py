"""`rankline recipes`: the list, and every setting of a recipe with its description."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cli.main import app
from pipelines.recipe import as_dict, list_settings
from pipelines.recipes import RECIPES, load_for_display, named
from tests.cli.in_process import refused


def run_cli(*arguments: str) -> str:
    printed = CliRunner().invoke(app, ["recipes", *arguments])
    assert printed.exit_code == 0, printed.output
    return printed.output


def test_every_recipe_is_listed_with_its_description() -> None:
    printed = run_cli()
    for name in RECIPES:
        assert f"{name} " in printed
        assert load_for_display(name).description in printed


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_setting_is_shown_with_its_value_and_description(name: str) -> None:
    printed = run_cli("show", name).splitlines()
    assert len(list(list_settings(load_for_display(name)))) > 100
    for setting, value, sentence in list_settings(load_for_display(name)):
        place = printed.index(f"  {setting} = {value!r}")
        assert printed[place + 1].strip() == sentence.strip() != ""


def test_a_changed_setting_is_shown_changed() -> None:
    before = set(run_cli("show", "movielens").splitlines())
    after = set(run_cli("show", "movielens", "--set", "finetune.epochs=3", "-s", "ingest.source=/data").splitlines())
    assert after - before == {"  finetune.epochs = 3", "  ingest.source = '/data'"}


def test_json_is_the_recipe() -> None:
    printed = json.loads(run_cli("show", "smoke", "--json", "--set", "finetune.epochs=3"))
    assert printed == as_dict(named("smoke", ["finetune.epochs=3"]))


def test_an_unknown_recipe_and_a_misspelt_setting_are_usage() -> None:
    assert "no recipe named 'smoky'" in refused("recipes", "show", "smoky", code=2)
    assert "did you mean 'epochs'?" in refused("recipes", "show", "smoke", "--set", "finetune.epoch=3", code=2)


def test_one_section_is_shown_alone() -> None:
    printed = run_cli("show", "smoke", "decide")
    assert "decide.mode = " in printed
    assert "finetune." not in printed
    assert "cluster.small.cpu = " in run_cli("show", "smoke", "cluster.small")
    assert json.loads(run_cli("show", "smoke", "cluster.small", "--json"))["cpu"] == "1"
    assert run_cli("show", "smoke", "finetune.epochs").count(" = ") == 1
    assert "did you mean 'finetune'?" in refused("recipes", "show", "smoke", "finetun", code=2)
    assert "has no section 'fine'" in refused("recipes", "show", "smoke", "fine", code=2)
