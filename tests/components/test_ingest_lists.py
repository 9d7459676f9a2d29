"""Lists as tools write them in a text: categories and vectors in every spelling."""

import json
from pathlib import Path
from typing import Any

import pytest

from onboarding.inference.proposal import propose
from onboarding.survey.survey import survey
from tests.components.test_ingest_text import run, table

LISTS = {
    "JSON": '["Action", "Sci-Fi, old"]',
    "Python": "['Action', 'Sci-Fi, old']",
    "Python with both quotes": """["Action", 'Sci-Fi, old']""",
    "a tuple": "('Action', 'Sci-Fi, old')",
    "Postgres": '{Action,"Sci-Fi, old"}',
    "NumPy": "['Action' 'Sci-Fi, old']",
    "JSON objects": '[{"id": 28, "name": "Action"}, {"id": 5, "name": "Sci-Fi, old"}]',
    "Python objects": "[{'id': 28, 'name': 'Action'}, {'id': 5, 'name': 'Sci-Fi, old'}]",
    "PHP": 'a:2:{i:0;s:6:"Action";i:1;s:11:"Sci-Fi, old";}',
    "PHP with keys": 'a:2:{s:1:"x";s:6:"Action";s:1:"y";s:11:"Sci-Fi, old";}',
    "a set": "{'Action', 'Sci-Fi, old'}",
    "a frozenset": "frozenset({'Action', 'Sci-Fi, old'})",
    "an array": "array(['Action', 'Sci-Fi, old'], dtype=object)",
    "JSON in a string": '"[\\"Action\\", \\"Sci-Fi, old\\"]"',
    "YAML": "- Action\n- 'Sci-Fi, old'",
    "YAML in one line": "[Action, 'Sci-Fi, old']",
    "JSON objects with a title": '[{"title": "Action"}, {"title": "Sci-Fi, old"}]',
}


def categories(folder: Path, text: str, **columns: Any) -> list[str]:
    """The categories that ingest reads of an item's text, beside an item without any."""
    rows = [{"item_id": "i0", "title": "x", "genres": text}, {"item_id": "i1", "title": "y", "genres": ""}]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "log.jsonl").write_text('{"user_id": "u", "item_id": "i0", "timestamp": 1680000000}')
    columns = {"title": "title", "category": "genres", **columns}
    run(folder, "log.jsonl", tables={"items": "items.jsonl"}, columns=columns)
    first, second = (item["category"] for item in table(folder, "items"))
    assert second == []
    return first  # type: ignore[no-any-return]


@pytest.mark.integration
@pytest.mark.parametrize("kind", LISTS)
def test_lists_in_every_spelling(tmp_path: Path, kind: str) -> None:
    assert categories(tmp_path, LISTS[kind]) == ["Action", "Sci-Fi, old"]
    assert categories(tmp_path, LISTS[kind], category_separator="|") == ["Action", "Sci-Fi, old"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", []), ("{}", ["{}"]), ("[Action, Drama]", ["Action", "Drama"]), ("{Action,Drama}", ["Action", "Drama"]),
        ('["it\'s", "a \\"b\\""]', ["it's", 'a "b"']), ("['it\\'s', \"b's\"]", ["it's", "b's"]), ("[1, 2]", ["1", "2"]),
        ("Books (old)", ["Books (old)"]), ("(new)", ["(new)"]), ('{"a": 1}', ['{"a": 1}']), ("a, b", ["a, b"]),
        ("a:2:{i:0;i:5;i:1;d:7.5;}", ["5", "7.5"]), ("set()", []), ("a:0:{}", []), ("- a", ["- a"]),
        ("a - b", ["a - b"]), ("set of knives (new)", ["set of knives (new)"]), ("a:b", ["a:b"]),
        ('[null, "a", ""]', ["a"]), ("[{'id': 7}, {'id': 8}]", ["7", "8"]),
    ],
)  # fmt: skip
def test_what_is_a_list_and_what_is_not(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert categories(tmp_path, text) == expected


@pytest.mark.integration
@pytest.mark.parametrize(
    ("opening", "between", "closing"),
    [("[", ", ", "]"), ("", " ", ""), ("", ";", ""), ("{", ",", "}"), ("(", ", ", ")"), ("[", " ", "]"),
     ("array([", ", ", "], dtype=float32)"), ("tensor([", ", ", "])"), ("[ ", "  ", " ]")],
)  # fmt: skip
def test_vectors_in_every_spelling(tmp_path: Path, opening: str, between: str, closing: str) -> None:
    numbers = [0.5, 1.5, -2.5, 35.0, 0.25, 1.75]
    text = opening + between.join(map(str, numbers)) + closing
    rows = [{"item_id": f"i{n}", "title": f"a thing called {n}", "image": text} for n in range(20)]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    log = [{"user_id": f"u{n % 40}", "item_id": f"i{n % 20}", "timestamp": 1_680_000_000 + n} for n in range(200)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    surveyed = survey(str(tmp_path), only=("items.jsonl", "log.jsonl"))
    assert propose(surveyed, name="mine").column("items", "item_vectors") == "image"
    columns = {"title": "title", "item_vectors": ("image",)}
    run(tmp_path, "log.jsonl", tables={"items": "items.jsonl"}, columns=columns)
    assert [item["image"] for item in table(tmp_path, "items")] == [numbers] * 20


@pytest.mark.parametrize(
    ("form", "separator"),
    [("a|b{n}", "|"), ("a;b{n}", ";"), ("a, b{n}", ","), ("a,b{n}", ","), ("Home > Kitchen > p{n}", ">"),
     ("['a', 'b{n}']", ""), ("{{a,b{n}}}", "")],
)  # fmt: skip
def test_a_proposal_says_what_separates_categories(tmp_path: Path, form: str, separator: str) -> None:
    rows = [{"item_id": f"i{n}", "title": f"a thing called {n}", "genres": form.format(n=n % 3)} for n in range(40)]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    log = [{"user_id": f"u{n % 40}", "item_id": f"i{n % 20}", "timestamp": 1_680_000_000 + n} for n in range(200)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    columns = propose(survey(str(tmp_path), only=("items.jsonl", "log.jsonl")), name="mine").settings["columns"]
    assert (columns["category"], columns.get("category_separator", "")) == ("genres", separator)
