"""The `rankline` command as a process of its own, for tests in which the process matters.

`tests.cli.in_process` has the same functions without a process.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RANKLINE = str(Path(sys.executable).with_name("rankline"))


def rankline(
    *arguments: object, timeout_s: float = 600, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; it must not print a stack trace."""
    done = subprocess.run(
        [RANKLINE, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done


def refused(*arguments: object, code: int = 1, **more: str) -> str:
    """The error message of the command, which has to end with the exit code ``code``."""
    done = rankline(*arguments, **more)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.strip(), done.stdout
    return done.stderr
