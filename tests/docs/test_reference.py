"""docs/reference.md matches the code, and a difference is noticed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from docs.tools import reference
from pipelines.recipe import list_settings
from pipelines.recipes import RECIPES, load_for_display
from rankline.errors import IntegrityError
from tests.cli.test_main import COMMANDS


def test_the_page_matches_the_code() -> None:
    diff = reference.page_diff(reference.FILE.read_text())
    assert not diff, f"docs/reference.md differs; run: make reference\n{diff}"


@pytest.mark.integration
def test_nothing_is_left_out() -> None:
    page = reference.document()
    for path, command in COMMANDS.items():
        assert f"### {' '.join(('rankline', *path))}\n" in page
        for parameter in command.params:
            for flag in parameter.opts if parameter.param_type_name == "option" else ():
                assert flag in page
    for name in RECIPES:
        for setting, _, sentence in list_settings(load_for_display(name)):
            (line,) = (line for line in page.splitlines() if line.startswith(f"| `{setting}` |"))
            assert sentence.replace("|", "\\|") in line
    assert "| `decide.confidence` | `float`, > 0, < 1 | `0.95` |" in page
    assert "| `cluster.small.memory` | `str`, matches" in page
    assert '| `"2Gi"` | Memory allowed; a step that needs more is killed. |' in page
    assert "| `StaleEvidence` | `RegistryError` | 4 |" in page
    assert "### POST /v1/rank" in page
    assert "| events | `known_at` | timestamp[us, tz=UTC] | required |" in page


@pytest.mark.integration
def test_a_page_that_differs_is_refused_with_the_command_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference, "FILE", tmp_path / "reference.md")
    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    assert reference.main() == 1
    reference.FILE.write_text(reference.document().replace("`finetune.epochs`", "`finetune.epoch`"))
    assert reference.main() == 1
    printed = capsys.readouterr().err
    assert "+| `finetune.epochs`" in printed
    assert "run: make reference" in printed
    monkeypatch.setattr(sys, "argv", ["reference"])
    assert reference.main() == 0
    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    assert reference.main() == 0


def test_an_undocumented_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(reference.ENVIRONMENT, "RANKLINE_URL")
    with pytest.raises(IntegrityError, match=r"environment variable[\s\S]*missing: RANKLINE_URL"):
        reference.document()
    monkeypatch.setitem(reference.ENVIRONMENT, "RANKLINE_URL", "…")
    monkeypatch.setitem(reference.EXIT_CODES, 7, "…")
    with pytest.raises(IntegrityError, match="gone: 7"):
        reference.document()
