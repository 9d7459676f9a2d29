"""The `rankline` command as people run it: a process of its own, watched for what it must never print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

RANKLINE = str(Path(sys.executable).with_name("rankline"))


def rankline(
    *arguments: object, timeout_s: float = 600, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; whatever it says, it shows nobody a stack trace."""
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
    """The message with which the command refuses; its exit code has to be ``code``."""
    done = rankline(*arguments, **more)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.strip(), done.stdout
    return done.stderr
