"""What a step prints is in its log and on the console, in whatever way it is printed and the step ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

STEP = """
import ctypes, os, signal, subprocess, sys
from pathlib import Path
from rankline.contracts import FrozenModel
from rankline.errors import SourceError
from rankline.runtime.run_context import RunContext
from rankline.runtime.run_step import StepSpec, run_step

def work(config, progress):
    print("from python")
    sys.stdout.flush()
    ctypes.CDLL(None).puts(b"from a library")
    ctypes.CDLL(None).fflush(None)
    subprocess.run(["sh", "-c", "echo from a child >&2"], check=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "fail":
        raise SourceError("there are no rows", hint="fetch them")

print("before the step")
run_step(StepSpec("ingest", work, FrozenModel(), reuse=False), RunContext(Path(sys.argv[1]), "run"))
print("after the step")
"""
PRINTED = ["from python", "from a library", "from a child"]


def execute(workspace: Path, how: str, *, together: bool = True) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The finished process of a step, and the lines of its log."""
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(workspace), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if together else subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done, (workspace / "runs" / "run" / "ingest.log").read_text().splitlines()


def test_python_libraries_and_children_print_to_both(tmp_path: Path) -> None:
    done, log = execute(tmp_path, "succeed")
    assert done.stdout.splitlines() == ["before the step", *PRINTED, "after the step"]
    assert log == PRINTED


def test_the_message_of_a_failed_step_is_in_its_log(tmp_path: Path) -> None:
    done, log = execute(tmp_path, "fail")
    message = ["there are no rows", "  try: fetch them"]
    assert done.returncode == 1
    assert log == [*PRINTED, *message]
    assert done.stdout.splitlines()[-2:] == message


def test_a_killed_step_loses_no_line(tmp_path: Path) -> None:
    done, log = execute(tmp_path, "kill")
    assert done.returncode == -signal.SIGKILL
    assert log == PRINTED


def test_stdout_and_stderr_stay_apart_on_the_console(tmp_path: Path) -> None:
    done, log = execute(tmp_path, "succeed", together=False)
    assert done.stderr == "from a child\n"
    assert "from a child" not in done.stdout
    assert sorted(log) == sorted(PRINTED)


def test_a_second_attempt_appends(tmp_path: Path) -> None:
    execute(tmp_path, "fail")
    _, log = execute(tmp_path, "succeed")
    assert log[-3:] == PRINTED
    assert len(log) == 8


@pytest.mark.parametrize("path", ["", "/nowhere"])
def test_without_tee_a_step_works_and_has_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("PATH", path)
    done = subprocess.run(
        [sys.executable, "-c", STEP.replace('["sh"', '["/bin/sh"'), str(tmp_path), "succeed"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "from python" in done.stdout
