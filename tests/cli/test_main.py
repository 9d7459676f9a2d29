"""The command itself: its help is quick and complete, its errors are messages."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.main import app, commands_by_title
from tests.cli import command
from tests.cli.in_process import refused

# libraries that take long to import, and that the help does not need
HEAVY = {
    "kfp", "torch", "feast", "pandas", "mlflow", "numpy", "pyarrow", "duckdb", "onnxruntime", "transformers",
    "great_expectations", "fastapi", "httpx", "pydantic", "rich", "scipy", "kubernetes",
}  # fmt: skip


def commands(group: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(words, command) of every command that is not hidden, groups included."""
    yield path, group
    for name, each in getattr(group, "commands", {}).items():
        if not each.hidden:
            yield from commands(each, *path, name)


COMMANDS = dict(commands(typer.main.get_command(app)))


def imported(*arguments: str) -> set[str]:
    """Top-level names of all modules that a command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cli.main", *arguments], capture_output=True, text=True, check=True
    )
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}


def test_help_imports_nothing_heavy() -> None:
    names = imported("--help")
    assert "typer" in names
    assert names & HEAVY == set()
    assert "pydantic" in imported("recipes")  # so the check would see it


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: "-".join(path) or "rankline")
def test_the_help_of_every_command_has_its_options(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    helped = COMMANDS[path]
    assert helped.help
    assert " ".join(helped.help.split()[:5]) in " ".join(result.output.split())
    for parameter in helped.params:
        if parameter.name in ("help", "install_completion", "show_completion"):
            continue
        assert parameter.help, f"{path}: {parameter.name} has no help"
        for flag in parameter.opts if parameter.param_type_name == "option" else ():
            assert flag in result.output


def test_there_is_a_command_for_every_step() -> None:
    from rankline.runtime.steps import TRAINING_STEPS

    assert {path[1] for path in COMMANDS if path[:1] == ("step",) and len(path) == 2} == set(TRAINING_STEPS) - {
        "resolve_inputs"
    }


def test_without_a_command_it_shows_the_steps() -> None:
    result = CliRunner().invoke(app, [])
    assert "ingest -> validate -> featurize" in result.output
    assert "rankline demo" in result.output


def test_an_unknown_command_is_usage(tmp_path: Path) -> None:
    assert "No such command 'runn'" in refused("runn", code=2, cwd=tmp_path)


def test_the_help_lists_every_command_under_a_title() -> None:
    titles = commands_by_title(COMMANDS[()])
    assert "Commands" not in titles
    assert {name for named in titles.values() for name in named} == {path[0] for path in COMMANDS if len(path) == 1}
    output = CliRunner().invoke(app, ["--help"]).output
    assert all(f"{title}:" in output for title in titles)


def test_a_closed_pipe_is_not_an_error() -> None:
    """`rankline recipes show movielens | head -1` ends quietly."""
    script = f"{sys.executable} -m cli.main recipes show movielens | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert "refused" not in done.stderr
    assert signal.SIGPIPE not in (done.returncode, -done.returncode)


def test_the_version_is_that_of_the_package() -> None:
    from importlib import metadata

    assert command.rankline("--version").stdout == f"rankline {metadata.version('rankline')}\n"
    assert imported("--version") & HEAVY == set()


@pytest.mark.parametrize(
    "arguments", [("items", "hide", "a\udcff"), ("users", "erase", "a\udcff"), ("ask", "--user", "\udce9"), ("\udcff",)]
)
def test_bytes_that_are_no_text_are_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    message = refused(*arguments, cwd=tmp_path, code=2)
    assert "an argument is not UTF-8" in message
    assert ascii(arguments[-1]) in message


@pytest.mark.parametrize("url", ["reference://x", "dir://x", "zip://x", "cached://x", "nothing://x", "s3:/bucket"])
def test_urls_that_are_no_storage_are_refused(tmp_path: Path, url: str) -> None:
    message = refused("history", "--repository", url, cwd=tmp_path, code=1)
    assert "bug of Rankline" not in message
    assert url in message
    assert ("s3://bucket" in message) == (url == "s3:/bucket" or url.split(":")[0] in ("reference", "dir", "zip"))
