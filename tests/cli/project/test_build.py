"""`rankline build`: what it refuses before it uses an engine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.in_process import rankline, refused


def test_without_a_base_image_it_says_how_to_choose_one() -> None:
    message = refused("build", "serve", code=2, RANKLINE_BASE="")
    assert message.startswith("the base image is not named")
    assert "try: `docker pull python:3.11-slim` prints its digest" in message


def test_a_release_needs_a_pinned_base_image() -> None:
    message = refused("build", "all", "--base", "python:3.11-slim", "--release", code=2)
    assert message.startswith("a release stands on a pinned base image")
    assert "found: python:3.11-slim" in message


def test_an_unknown_image_is_a_usage_error() -> None:
    assert "'gpu' is not one of" in refused("build", "gpu", code=2)


def test_without_docker_it_says_what_to_install(tmp_path: Path) -> None:
    message = refused("build", "serve", "--base", "python:3.11-slim", PATH=str(tmp_path))
    assert message.startswith("there is no docker command")
    assert "docker.io" in message


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command here")
def test_an_engine_that_does_not_answer() -> None:
    message = refused("build", "serve", "--base", "x", DOCKER_HOST="unix:///nowhere.sock")
    assert message.startswith("no Docker engine answers")
    assert "nowhere.sock" in message


def test_a_run_in_containers_needs_an_engine(tmp_path: Path) -> None:
    message = refused(
        "run", "--recipe", "smoke", "-w", tmp_path, "--runner", "docker", DOCKER_HOST="unix:///nowhere.sock"
    )
    assert message.startswith("no Docker engine answers")
    assert "`--runner local` needs none" in message
    assert not (tmp_path / "runs").exists()


def test_the_help_has_the_requirements_and_an_example() -> None:
    help_text = rankline("build", "--help").stdout
    assert "rankline build serve --base python:3.11-slim" in help_text
    assert "GB of disk" in help_text
