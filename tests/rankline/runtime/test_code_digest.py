"""Code digests change with what a step computes, and not with prose."""

from pathlib import Path

import pytest

from rankline.runtime import code_digest

MODULE = '''"""What it is."""

import json
from pathlib import Path

LIMIT = 3


class Box:
    """A box."""

    size: int = 1


def total(values: list[int], *, start: int = 0) -> int:
    """Their sum."""
    # a comment
    return sum(values[:LIMIT], start)


async def later() -> str:
    """Later."""
    return f"{LIMIT!r:>3} and {json.dumps({'a': 1})}"
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another comment, and\n    # a second line of it"),
        ('"""What it is."""', '"""Something else, at length.\n\nWith a second paragraph.\n"""'),
        ('    """Their sum."""\n', ""),
        ('    """A box."""\n', '    """A box of other words."""\n'),
        ('    """Later."""\n', ""),
        ("values: list[int], *, start: int = 0", "\n    values: list[int],\n    *,\n    start: int = 0,\n"),
        ("return sum(values[:LIMIT], start)", "return (\n        sum(values[:LIMIT], start)\n    )"),
        ("LIMIT = 3\n", "\n\n\nLIMIT=3 # so many\n"),
        ('f"{LIMIT!r:>3} and ', 'f"{LIMIT!r:>3}"   f" and '),
    ],
)
def test_prose_and_formatting_change_nothing(old: str, new: str) -> None:
    assert old in MODULE
    assert code_digest.of_source(MODULE.replace(old, new)) == code_digest.of_source(MODULE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT = 3", "LIMIT = 3.0"),
        ("LIMIT = 3", "LIMIT = True"),
        ("size: int = 1", "size: int = 2"),
        ("start: int = 0", "start: int = 1"),
        ("values[:LIMIT]", "values[LIMIT:]"),
        (" and ", " or "),
        ("!r:>3", "!r:>4"),
        ("import json", "import json as json"),
        ("async def later", "def later"),
        ('    """Their sum."""\n', '    ("""Their sum.""", 1)\n'),
    ],
)
def test_code_changes_it(old: str, new: str) -> None:
    assert old in MODULE
    assert code_digest.of_source(MODULE.replace(old, new)) != code_digest.of_source(MODULE)


def test_a_constant_is_not_taken_for_another_type() -> None:
    texts = ("X = 1", "X = '1'", "X = b'1'", "X = 1.0", "X = True", "X = None", "X = ...")
    assert len({code_digest.of_source(text) for text in texts}) == len(texts)


def test_the_digest_does_not_depend_on_the_version_of_python() -> None:
    """Recorded with Python 3.11; tests of the other versions compare with the same record."""
    assert code_digest.of_source(MODULE)[:16] == "46eac8ddec765f0f"


def test_code_of_one_step_does_not_see_another() -> None:
    finetune = code_digest.closure("components.finetune.step", packages=code_digest.PACKAGES)
    evaluate = code_digest.closure("components.evaluate.step", packages=code_digest.PACKAGES)
    assert "rankline.model.networks" in finetune
    assert "rankline.model.networks" not in evaluate
    assert "rankline.evaluation.metrics" in evaluate
    assert not any(name.startswith("components.evaluate") for name in finetune)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own: two steps over one shared module, and a module that only a type checker reads."""
    for name, text in {
        "__init__.py": "",
        "errors.py": '"""Errors."""\nLIMIT = 1\n',
        "types.py": "LIMIT = 1\n",
        "lazy.py": "LIMIT = 1\n",
        "one.py": "from typing import TYPE_CHECKING\nfrom shop import errors\n"
        "if TYPE_CHECKING:\n    from shop import types\ndef f():\n    from shop.lazy import LIMIT\n",
        "two.py": "from shop.errors import LIMIT\n",
    }.items():
        (tmp_path / "shop").mkdir(exist_ok=True)
        (tmp_path / "shop" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(code_digest, "PACKAGES", ("shop",))
    return tmp_path / "shop"


@pytest.mark.parametrize(
    ("file", "text", "changed"),
    [
        ("errors.py", '"""Errors, described better."""\nLIMIT = 1  # one\n', ()),
        ("errors.py", "LIMIT = 2\n", ("one", "two")),
        ("types.py", "LIMIT = 2\n", ()),
        ("lazy.py", "LIMIT = 2\n", ("one",)),
        ("__init__.py", "LIMIT = 2\n", ("one", "two")),
        ("unused.py", "LIMIT = 2\n", ()),
    ],
)
def test_a_step_sees_what_it_really_imports(project: Path, file: str, text: str, changed: tuple[str, ...]) -> None:
    before = {name: code_digest.of_code(f"shop.{name}") for name in ("one", "two")}
    (project / file).write_text(text)
    after = {name: code_digest.of_code(f"shop.{name}") for name in ("one", "two")}
    assert {name for name in before if before[name] != after[name]} == set(changed)
