"""Commands in the documents exist: every `rankline` command parses, every `make` target is there."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for pattern in ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "components/*/README.md", "benchmarks/*.md")
    for page in ROOT.glob(pattern)
)
FENCED = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:rankline|make|python) [^`\n]+)`")
ELLIPSES = ("...", "…")  # at the end of a line


def typed(text: str, command: str) -> list[str]:
    """Every line of a page that is to be typed and begins with ``command``."""
    lines = [line for block in FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    lines += INLINE.findall(FENCED.sub("", text))
    lines = [line.strip().removeprefix("$ ").removeprefix(".venv/bin/") for line in lines]
    return [re.split(" [#|]", line)[0].strip() for line in lines if line.split(" ")[0] == command]


@functools.cache
def command_tree() -> Any:
    """The command line, built once for all lines of all pages."""
    return typer.main.get_command(app)


@functools.cache
def has_help(*path: str) -> bool:
    """Whether a command or a group of them describes itself."""
    return CliRunner().invoke(app, [*path, "--help"]).exit_code == 0


def parses(line: str) -> None:
    """Fail if the line has an unknown command or option, an invalid value, or too many arguments."""
    group, path = command_tree(), []
    words = shlex.split(line)[1:]
    is_cut_off = words[-1] in ELLIPSES and not words[-2].startswith("-")
    if is_cut_off:
        words.pop()
    while words and hasattr(group, "commands") and not words[0].startswith("-"):
        assert words[0] in group.commands, f"{line}: there is no command {words[0]!r}"
        path.append(words[0])
        group = group.commands[words.pop(0)]
    known = {flag for parameter in group.params for flag in parameter.opts} | {"--help", "-h"}
    for word in words:
        if word.startswith("-"):
            assert word.split("=")[0] in known, f"{line}: there is no option {word}"
    if not words or "--help" in words:  # only the name of the command
        assert has_help(*path)
        return
    try:
        group.make_context(" ".join(path), words)
    except Exception as error:  # typer vendors click: its errors are known by their names only
        if is_cut_off and type(error).__name__ == "MissingParameter":
            return
        message = getattr(error, "message", "") or type(error).__name__
        raise AssertionError(f"{line}: there is no way to parse it: {message}") from error


def test_pages_have_commands_to_check() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    assert {command: len(typed(text, command)) > 5 for command in ("rankline", "make", "python")} == {
        "rankline": True, "make": True, "python": True,
    }  # fmt: skip


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.integration
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    for line in typed(text, "rankline"):
        parses(line)
    for line in typed(text, "make"):
        assert set(line.split()[1:2]) <= targets(), f"{line}: there is no such target"
    for line in typed(text, "python"):
        if line.startswith("python -m "):
            assert find_spec(line.split()[2]), f"{line}: there is no such module"


def test_the_readme_has_the_first_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(typed(text, "rankline")) >= 5
    assert "make demo" in typed(text, "make")
    assert "ingest -> validate -> featurize -> finetune -> distill -> export -> evaluate -> promote -> serve" in text


@pytest.mark.integration
def test_every_setting_a_page_changes_exists() -> None:
    from pipelines.recipes import named

    checked = 0
    for page in PAGES:
        for line in typed(page.read_text(), "rankline"):
            settings = re.findall(r"--set[ =]'?([a-z_.]+=[^ '…]+)(?=[ ']|$)", line)
            named("movielens", [setting for setting in settings if "=@" not in setting])  # no file of the reader's
            checked += len(settings)
    assert checked > 10


def test_the_policy_file_of_the_page_is_one(tmp_path: Path) -> None:
    from pipelines.recipes import named

    block = next(each for each in FENCED.findall((ROOT / "docs/gates.md").read_text()) if each.startswith("# policy"))
    (tmp_path / "policy.toml").write_text(block)
    decide = named("movielens", [f"decide=@{tmp_path / 'policy.toml'}"]).decide
    assert [gate.kind for gate in decide.gates] == ["ceiling", "floor", "not_worse", "better"]


@pytest.mark.parametrize(
    "line",
    [
        "rankline runn", "rankline run --colour red", "rankline recipes shows movielens", "rankline ask 1 -k many",
        "rankline ask 1 -k", "rankline doctor movielens smoke", "rankline data slice --recipe movielens",
    ],
)  # fmt: skip
def test_a_wrong_line_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError, match="there is no"):
        parses(typed(f"Type:\n\n```\n$ {line}  # so\n```\n", "rankline")[0])


def test_make_alone_lists_the_targets() -> None:
    # a make that runs these tests would make its child print the folders it enters
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=alone).stdout
    assert {line.split()[0] for line in output.splitlines() if line} == targets()
    assert all(len(line.split()) > 2 for line in output.splitlines())
