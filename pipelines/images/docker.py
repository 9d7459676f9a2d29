"""The docker command: finding it, running it with its progress, and reading its output."""

from __future__ import annotations

import os
import re
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankline.errors import RanklineError

BUILDX_SINCE = 23  # since this version of the docker command, BuildKit is a plugin (buildx)
# BuildKit names a step and later prints its progress unless it is cached; without BuildKit each step is named once
STEP_LINE = re.compile(r"^(?:#(?P<number>\d+) \[(?P<stage>[^\]]+)\]|Step (?P<step>\d+/\d+) :) (?P<what>[A-Z]+ .*)")
PROGRESS_LINE = re.compile(r"^#(?P<number>\d+) (?:\d+\.\d+ |DONE)")
CACHE_MOUNT = re.compile(r"--mount=type=cache,\S+ (?:\\\n\s*)?")
HINTS = (
    (
        "o space left on device",  # No, or no
        "`docker system df` shows what takes up space, `docker builder prune` removes old layers",
    ),
    ("No matching distribution", "an index that carries the locked versions (`PIP_INDEX_URL` in the base image)"),
    ("needs Python 3.11", "--base with an image whose python3 is 3.11, 3.12 or 3.13"),
    ("libraries that ONNX Runtime's CUDA provider needs", "the `cuda` extra in pyproject.toml, and constraints.lock"),
    ("failed to resolve source metadata", "the spelling of --base, and whether its registry can be reached"),
    ("pull access denied", "the spelling of --base, and whether its registry can be reached"),
    ("failed to do request", "the network, and a mirror of the registry; --base names another image"),
    ("Cannot connect to the Docker daemon", "start the engine: `docker info` has to succeed"),
)


@dataclass(frozen=True)
class DockerCommand:
    """The docker command, and whether it builds with BuildKit."""

    command: str
    buildkit: bool


def find_docker() -> DockerCommand:
    """The docker command of this machine, preferably one with BuildKit.

    Raises:
        RanklineError: there is none, or its engine does not answer.
    """
    paths = [Path(folder) / "docker" for folder in os.get_exec_path()]
    commands = [str(path) for path in paths if os.access(path, os.X_OK)]
    if not commands:
        raise RanklineError(
            "there is no docker command",
            expected="Docker Engine 20.10 or newer",
            found="no `docker` on the PATH",
            hint="install Docker Engine (Debian and Ubuntu: the package docker.io), then `docker info`",
        )
    info = subprocess.run([commands[0], "info", "--format", "{{.ServerVersion}}"], capture_output=True, text=True)
    if info.returncode or not info.stdout.strip():
        raise RanklineError(
            "no Docker engine answers",
            expected="`docker info` to succeed",
            found=(info.stderr.strip().splitlines() or ["nothing"])[-1],
            hint="start the engine (`systemctl start docker`), join the `docker` group, or set DOCKER_HOST",
        )
    with_buildkit = next((command for command in commands if _has_buildkit(command)), None)
    return DockerCommand(with_buildkit or commands[0], buildkit=with_buildkit is not None)


def _has_buildkit(command: str) -> bool:
    version = subprocess.run([command, "--version"], capture_output=True, text=True).stdout
    major = re.search(r"version (\d+)\.", version)
    if major and int(major[1]) < BUILDX_SINCE:
        return True
    return subprocess.run([command, "buildx", "version"], capture_output=True).returncode == 0


def run_docker(command: Sequence[str], log: Path, title: str, *, say: Callable[[str], None], buildkit: bool) -> None:
    """Run a docker command and report its steps; everything that it prints goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=12)
    pending_steps: dict[str, str] = {}
    environment = {**os.environ, "DOCKER_BUILDKIT": "1" if buildkit else "0"}
    with (
        log.open("w") as stream,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                stream.write(line)
                if line.strip():
                    last.append(line.rstrip())
                if step := STEP_LINE.match(line):
                    what = " ".join(CACHE_MOUNT.sub("", step["what"]).split())
                    sentence = f"  {title} [{step['stage'] or step['step']}] {what}"[:110]
                    if step["number"]:
                        pending_steps[step["number"]] = sentence
                    else:
                        say(sentence)
                elif (progress := PROGRESS_LINE.match(line)) and progress["number"] in pending_steps:
                    say(pending_steps.pop(progress["number"]))
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        text = log.read_text(errors="replace")
        raise RanklineError(
            f"{title}: docker refused",
            expected="exit code 0",
            found=f"exit code {process.returncode}; the last lines:\n" + "\n".join(f"    {line}" for line in last),
            where=str(log),
            hint=next((hint for sign, hint in HINTS if sign in text), "read the log"),
        )


def docker_output(tool: DockerCommand, *arguments: str) -> str:
    done = subprocess.run([tool.command, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RanklineError(
            f"`docker {arguments[0]}` failed",
            found=(done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1],
            where=arguments[-1] if len(arguments[-1]) < 100 else arguments[0],
            hint="`docker info` shows whether the engine is well",
        )
    return done.stdout
