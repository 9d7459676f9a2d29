"""Identifiers use the field's terms: words that this project once used in their place do not come back.

`python -m tests.test_vocabulary PATH…` lists what is wrong below some folders or files.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "rankline", "feature_repo", "serving", "components", "pipelines", "onboarding", "review", "cli", "benchmarks",
    "docs", "tests",
)  # fmt: skip

# word -> the term to use. No identifier contains it, the names of tests included.
WORDS = {
    "door doors": "component, step, entry point",
    "knob knobs": "setting",
    "told": "what it is: response, payload, settings, summary, report",
    "thing things": "resource, entry, or what it is",
    "fate fates": "decision, outcome",
    "spared": "skipped",
    "swept": "removed, sweep result",
    "shelf shelves": "remote cache",
    "ferry": "checkpoint sync",
    "opinion opinions": "soft labels",
    "rival rivals": "champion, baseline",
    "aside": "rejected",
    "lacks": "gaps",
    "guesses": "candidates",
    "meanings": "mapping",
    "crown crowned crowning": "promote",
    "forerunner forerunners": "rollback candidates",
    "patience": "timeout",
    "watchdog": "force exit",
    "leaving": "removal",
    "fulfil fulfilled": "execute",
    "house": "root, project",
}
# The same for words that are plain English in the sentence that names a test, and say too little as a name.
NAMES = {
    "said": "message, output, what it is",
    "found": "matches, result, what it is",
    "made": "created, the object itself",
    "kept": "stored, existing, what it is",
    "look": "resolve inputs",
    "perform": "run step",
    "claim claims": "firing",
    "moment moments": "instant, scheduled_at",
    "material materials": "samples, assets",
    "standing": "ranking",
    "mix": "scorer",
    "joint": "masked_lm",
    "pointer": "registry state",
    "person": "current user",
    "touched": "sampled items",
    "room rooms": "free space, size",
}
# identifier -> why it stays; "file:identifier" where it stays in that file only
EXCEPTIONS = {
    "rankline/errors.py:found": "one of the four parts of an error: expected, found, where, try",
    "pipelines/findings.py:found": "one of the four parts of an error, as `doctor --json` prints it",
    "onboarding/inference/dry_run.py:rows_kept": "beside rows_read, of the source",
    "pipelines/recipe.py:material": "a setting that users' recipe packages name, and a folder of workspaces",
    "rankline/registry/catalogue_history.py:kept": "a key of `catalogue list --json`",
    "review/console/errors.py:found": "one of the four parts of an error: expected, found, where, try",
    "NotFound": "HTTP's 404",
    "user_claim": "a claim of an id_token, as in OpenID Connect",
    "groups_claim": "a claim of an id_token, as in OpenID Connect",
    "not_found_error": "HTTP's 404",
    "serving/api/schemas.py:found": "one of the four parts of an error, as the server answers it",
    "patience": "of early stopping, as in Keras and Lightning",
    "look_up": "one term, and no look",
    "rankline/model/networks.py:joint": "the name of a layer, and so of weights in files",
    "rankline/model/networks.py:mix": "the name of a layer, and so of weights in files",
}


class Identifier(NamedTuple):
    name: str
    line: int
    of_test: bool = False


@functools.cache
def identifiers(path: Path) -> list[Identifier]:
    """Every name that a file defines: its module, functions, classes, parameters, variables, fields, import aliases."""
    return [Identifier(path.parent.name if path.stem == "__init__" else path.stem, 1), *_defined(path)]


def _defined(path: Path) -> Iterator[Identifier]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield Identifier(node.name, node.lineno, node.name.startswith("test_"))
            case ast.arg():
                yield Identifier(node.arg, node.lineno)
            case ast.Name(ctx=ast.Store()):
                yield Identifier(node.id, node.lineno)
            case ast.Attribute(ctx=ast.Store()):
                yield Identifier(node.attr, node.lineno)
            case ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
                yield Identifier(name, node.lineno)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield Identifier(name, node.lineno)


def words_of(identifier: str) -> set[str]:
    """`_ClaimStore` -> claim, store."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)}


def _by_word(table: dict[str, str]) -> dict[str, str]:
    return {word: term for words, term in table.items() for word in words.split()}


def violations(*folders: Path, root: Path = ROOT) -> list[str]:
    """Identifiers with a word of the old vocabulary below some folders, each with the term to use."""
    anywhere, names = _by_word(WORDS), _by_word(WORDS) | _by_word(NAMES)
    lines = []
    for path in sorted(file for folder in folders for file in ([folder] if folder.is_file() else folder.rglob("*.py"))):
        name = path.relative_to(root).as_posix()
        for each in identifiers(path):
            if {each.name, f"{name}:{each.name}"} & EXCEPTIONS.keys():
                continue
            table = anywhere if each.of_test else names
            lines += [
                f"{name}:{each.line} {each.name}: not '{word}' but {table[word]}"
                for word in sorted(words_of(each.name) & table.keys())
            ]
    return lines


@pytest.mark.integration
@pytest.mark.parametrize("package", PACKAGES)
def test_identifiers_use_the_terms_of_the_field(package: str) -> None:
    assert any((ROOT / package).rglob("*.py"))
    assert violations(ROOT / package) == []


@pytest.mark.parametrize("exception", EXCEPTIONS)
def test_every_exception_is_still_needed(exception: str) -> None:
    file, _, name = exception.rpartition(":")
    files = [ROOT / file] if file else [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert any(each.name == name for path in files for each in identifiers(path))


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("told = 1", "told"),
        ("def read_told(): ...", "told"),
        ("def f(shelf): ...", "shelf"),
        ("def f(*, rival=None): ...", "rival"),
        ("def f(**knobs): ...", "knobs"),
        ("async def open_door(): ...", "door"),
        ("class ClaimStore: ...", "claim"),
        ("class Config:\n    patience_s: float = 1", "patience"),
        ("self.fate = 1", "fate"),
        ("for thing in x: ...", "thing"),
        ("x = [said for said in y]", "said"),
        ("with open(x) as found: ...", "found"),
        ("import json as told", "told"),
        ("if (kept := 1): ...", "kept"),
        ("try: ...\nexcept ValueError as told: ...", "told"),
        ("match x:\n    case [made, *_]: ...", "made"),
        ("match x:\n    case {**made}: ...", "made"),
        ("MOMENT = 1", "moment"),
        ("def test_what_is_told(): ...", "told"),
        ("def test_x(made): ...", "made"),
    ],
)
def test_an_old_word_is_refused(tmp_path: Path, source: str, word: str) -> None:
    (tmp_path / "module.py").write_text(source)
    (line,) = violations(tmp_path, root=tmp_path)
    assert f"not '{word}' but " in line


@pytest.mark.parametrize("name", ["shelf.py", "door/__init__.py", "sub/watchdog.py"])
def test_an_old_word_is_refused_as_the_name_of_a_module(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert len(violations(tmp_path, root=tmp_path)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "def test_what_is_not_found(): ...",  # a sentence
        "error(found=1)",  # a parameter belongs to the function that is called
        "x = {'told': told.said}",
        "thingummy = outdoors = 1",  # other words
    ],
)
def test_other_names_are_not(tmp_path: Path, source: str) -> None:
    (tmp_path / "module.py").write_text(source)
    assert violations(tmp_path, root=tmp_path) == []


if __name__ == "__main__":
    print("\n".join(violations(*(Path(argument).resolve() for argument in sys.argv[1:]))))
