"""What continuous integration runs; a machine that cannot build images is skipped with a reason, never in silence."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "dirname", "timeout", "df", "tail", "env", "sh", "true", "false", "echo")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A project whose machine has no more than a shell."""
    (tmp_path / "project" / ".ci").mkdir(parents=True)
    shutil.copy(HOUSE / ".ci" / "images", tmp_path / "project" / ".ci" / "images")
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        if result := shutil.which(name):
            (tmp_path / "bin" / name).symlink_to(result)
    return tmp_path


def ran(machine: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [machine / "project" / ".ci" / "images"], capture_output=True, text=True, timeout=60,
        env={"PATH": str(machine / "bin"), **more},
    )  # fmt: skip


def test_a_machine_without_docker_is_skipped(machine: Path) -> None:
    done = ran(machine)
    assert (done.returncode, done.stdout) == (0, "images: skipped: there is no docker command\n")


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command here")
def test_an_engine_that_does_not_answer_is_skipped(machine: Path) -> None:
    (machine / "bin" / "docker").symlink_to(str(shutil.which("docker")))
    done = ran(machine, DOCKER_HOST="unix:///nowhere.sock")
    assert (done.returncode, done.stdout) == (0, "images: skipped: no Docker engine answers (docker info)\n")


def test_a_script_that_cannot_bring_an_engine_up_is_skipped(machine: Path) -> None:
    (machine / "shared" / "containers").mkdir(parents=True)
    (machine / "shared" / "containers" / "up").write_text("exit 1\n")
    done = ran(machine)
    assert done.returncode == 0
    assert done.stdout == "images: skipped: ../shared/containers/up did not bring an engine up\n"


@pytest.mark.parametrize(
    ("chosen", "done"),
    [
        ({}, ["make test", "images"]),
        ({"RANKLINE_CI_IMAGES": "0"}, ["make test"]),
        ({"RANKLINE_CI_SLOW": "1"}, ["make test", "make slow", "images"]),
        ({"BROKEN": "test"}, ["make test"]),
        ({"BROKEN": "slow", "RANKLINE_CI_SLOW": "1"}, ["make test", "make slow"]),
    ],
)
def test_continuous_integration_tests_first_and_then_builds(
    machine: Path, chosen: dict[str, str], done: list[str]
) -> None:
    """With a make that only says what it was asked for, and fails where the test wants it to."""
    home = machine / "project" / ".ci"
    shutil.copy(HOUSE / ".ci" / "run", home / "run")
    (home / "images").write_text("#!/bin/sh\necho images\n")
    (machine / "bin" / "make").write_text('#!/bin/sh\necho make "$1"\n[ "$1" != "${BROKEN:-}" ]\n')
    (machine / "bin" / "make").chmod(0o755)
    ran = subprocess.run(
        [home / "run"], capture_output=True, text=True, timeout=60, env={"PATH": str(machine / "bin"), **chosen}
    )
    assert ran.stdout.splitlines() == done
    assert (ran.returncode == 0) == ("BROKEN" not in chosen)
