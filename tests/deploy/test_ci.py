"""Continuous integration: what it runs, and that a machine without the means is skipped with a reason."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "dirname", "timeout", "df", "tail", "env", "sh", "true", "false", "echo", "touch", "mkdir", "chmod")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A project with the scripts of continuous integration, on a machine with little more than a shell."""
    shutil.copytree(ROOT / ".ci", tmp_path / "project" / ".ci")
    (tmp_path / "project" / "pyproject.toml").touch()
    (tmp_path / "project" / "constraints.lock").touch()
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        if path := shutil.which(name):
            (tmp_path / "bin" / name).symlink_to(path)
    return tmp_path


def executable(path: Path, script: str) -> None:
    """A stand-in for a command, in the place of a link to the real one, which must stay what it is."""
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(machine: Path, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [machine / "project" / ".ci" / script, *arguments], capture_output=True, text=True, timeout=60,
        env={"PATH": str(machine / "bin"), "HOME": str(machine), **variables},
    )  # fmt: skip


# Images -----------------------------------------------------------------------------------------------------------


def test_a_machine_without_docker_is_skipped(machine: Path) -> None:
    done = run(machine, "images")
    assert (done.returncode, done.stdout) == (0, "images: skipped: there is no docker command\n")


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command here")
def test_an_engine_that_does_not_answer_is_skipped(machine: Path) -> None:
    (machine / "bin" / "docker").symlink_to(str(shutil.which("docker")))
    done = run(machine, "images", DOCKER_HOST="unix:///nowhere.sock")
    assert (done.returncode, done.stdout) == (0, "images: skipped: no Docker engine answers (docker info)\n")


def test_a_script_that_cannot_bring_an_engine_up_is_skipped(machine: Path) -> None:
    (machine / "up").write_text("exit 1\n")
    done = run(machine, "images", RANKLINE_CONTAINER_ENGINE_UP=str(machine / "up"))
    assert (done.returncode, done.stdout) == (0, f"images: skipped: {machine / 'up'} did not bring an engine up\n")


def test_images_are_built_with_the_engine_of_the_named_script(machine: Path) -> None:
    """And without the variable nothing outside of the project is run, whatever lies beside it."""
    (machine / "shared" / "containers").mkdir(parents=True)
    (machine / "shared" / "containers" / "up").write_text(f"touch {machine}/beside\n")
    (machine / "up").write_text(f"touch {machine}/named\n")
    executable(machine / "bin" / "docker", "exit 0")
    executable(machine / "bin" / "df", "echo Avail; echo 99000000")
    executable(machine / "bin" / "make", 'echo make "$@"')
    done = run(machine, "images", BASE="base:1")
    assert done.stdout == "make --no-print-directory images BASE=base:1 BUILD=\n"
    done = run(machine, "images", BASE="base:1", RANKLINE_CONTAINER_ENGINE_UP=str(machine / "up"))
    assert done.stdout == "make --no-print-directory images BASE=base:1 BUILD=--network host\n"
    assert (machine / "named").exists()
    assert not (machine / "beside").exists()


# The browser ------------------------------------------------------------------------------------------------------


def test_a_machine_without_a_browser_is_skipped(machine: Path) -> None:
    done = run(machine, "browser")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("browser: skipped: there is no chromium")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs packages")
@pytest.mark.parametrize(("installs", "printed"), [("touch", "1\n"), ("true", ""), ("false", "")])
def test_root_installs_a_browser(machine: Path, installs: str, printed: str) -> None:
    chromium = machine / "bin" / "chromium"
    executable(
        machine / "bin" / "apt-get", f'[ "$1" = update ] || {installs} {chromium} && chmod 755 {chromium} || true'
    )
    if installs == "false":
        executable(machine / "bin" / "apt-get", "exit 1")
    done = run(machine, "browser")
    assert (done.returncode, done.stdout) == (0, printed)


def test_continuous_integration_asks_for_the_browser_that_is_there(machine: Path) -> None:
    executable(machine / "bin" / "chromium", "exit 0")
    executable(machine / "bin" / "make", 'echo "browser: $RANKLINE_NEEDS_BROWSER"')
    done = run(machine, "run", RANKLINE_CI_PYTHONS="", RANKLINE_CI_IMAGES="0")
    assert set(done.stdout.splitlines()) == {"browser: 1"}


# Other versions of Python -----------------------------------------------------------------------------------------


def test_a_version_without_an_interpreter_is_skipped(machine: Path) -> None:
    executable(machine / "bin" / "python3.13", "echo not installed >&2; exit 127")
    done = run(machine, "python", "3.13")
    assert (done.returncode, done.stdout) == (0, "python 3.13: skipped: there is no python3.13\n")


@pytest.mark.parametrize("outcome", [0, 1])
def test_a_version_is_installed_once_and_its_tests_decide(machine: Path, outcome: int) -> None:
    """With an interpreter that only reports what it is asked to do."""
    interpreter = machine / ".pyenv" / "versions" / "3.13.7" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    executable(
        interpreter,
        'if [ "$2" = venv ]; then echo venv; mkdir -p "$3/bin"; for each in python pip; do\n'
        f'  printf "#!/bin/sh\\necho $each \\$2\\nexit \\$([ $each = pip ] || echo {outcome})\\n" > "$3/bin/$each"\n'
        '  chmod 755 "$3/bin/$each"; done; fi',
    )
    executable(machine / "bin" / "df", "echo Avail; echo 99000000")
    done = run(machine, "python", "3.13")
    assert (done.returncode, done.stdout.splitlines()) == (outcome, ["venv", "pip --quiet", "python pytest"]), (
        done.stderr
    )
    again = run(machine, "python", "3.13")
    assert (again.returncode, again.stdout.splitlines()) == (outcome, ["python pytest"])


def test_the_tests_of_the_quick_checks_exist() -> None:
    paths = re.findall(r"\btests/\S+", (ROOT / ".ci" / "python").read_text())
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []


# All of it --------------------------------------------------------------------------------------------------------

OURS = ["make test", "make integration"]
PYTHONS = ["python 3.12", "python 3.13"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, [*OURS, *PYTHONS, "images"]),
        ({"RANKLINE_CI_PYTHONS": ""}, [*OURS, "images"]),
        ({"RANKLINE_CI_PYTHONS": "3.13", "RANKLINE_CI_IMAGES": "0"}, [*OURS, "python 3.13"]),
        ({"RANKLINE_CI_SLOW": "1"}, [*OURS, *PYTHONS, "make slow", "images"]),
        ({"BROKEN": "test"}, ["make test"]),
        ({"BROKEN": "integration"}, OURS),
        ({"BROKEN": "3.12"}, [*OURS, "python 3.12"]),
        ({"BROKEN": "slow", "RANKLINE_CI_SLOW": "1"}, [*OURS, *PYTHONS, "make slow"]),
    ],
)
def test_continuous_integration_tests_first_and_then_builds(
    machine: Path, variables: dict[str, str], expected: list[str]
) -> None:
    """With commands that only report what they are asked to do, and one of them fails where BROKEN says so."""
    fails_if_broken = '[ "$1" != "${BROKEN:-}" ]'
    executable(machine / "project" / ".ci" / "images", "echo images")
    executable(machine / "project" / ".ci" / "python", f'echo python "$1"\n{fails_if_broken}')
    executable(machine / "bin" / "make", f'echo make "$1"\n{fails_if_broken}')
    done = run(machine, "run", **variables)
    assert done.stdout.splitlines() == expected
    assert (done.returncode == 0) == ("BROKEN" not in variables)
