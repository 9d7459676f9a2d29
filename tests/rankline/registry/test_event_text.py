"""Terminals and pages print who and why of an event: neither holds what they would obey instead of showing it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rankline.errors import UsageError
from rankline.registry.model_registry import ModelRegistry

HOSTILE = [
    "\x1b[2J gone",
    "nul \0",
    "a\x9b31m",
    "reads \u202eylno\u2069",
    "half \ud800",
    "line\u2028break",
    "\u200eleft",
]


@pytest.mark.parametrize("field", ["who", "why"])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_character_that_cannot_be_shown_is_refused(tmp_path: Path, field: str, text: str) -> None:
    models = ModelRegistry(tmp_path)
    with pytest.raises(UsageError, match=f"{field} has a character"):
        models.append(
            "rejected", "m" * 16, who=text if field == "who" else "ada", why=text if field == "why" else "it is bad"
        )
    assert models.history() == []


def test_other_languages_and_signs_stay_as_they_are(tmp_path: Path) -> None:
    why = "gut für l\u2019utilisateur \u00a0— 日本語 👩\u200d🔬 عربي"
    models = ModelRegistry(tmp_path)
    assert models.append("rejected", "m" * 16, who="Åda", why=why).why == why
    assert models.history()[0].why == why


def test_line_breaks_and_what_earlier_versions_stored_are_printed_as_spaces(tmp_path: Path) -> None:
    ModelRegistry(tmp_path).append("rejected", "m" * 16, who="ada", why="two\nlines")
    file = tmp_path / "events" / "1.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "who": "ada\n\x1b[31m", "why": "\u202ea\0b"}))
    (event,) = ModelRegistry(tmp_path).history()
    assert (event.who, event.why) == ("ada  [31m", " a b")
