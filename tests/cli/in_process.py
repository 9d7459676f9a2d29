"""The `rankline` command in the process of the test: cli.main.main with captured output, which saves the imports."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from cli.main import main


def rankline(
    *arguments: object, cwd: Path | None = None, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, as `tests.cli.command.rankline` does in a process."""
    words = ["rankline", *map(str, arguments)]
    stdout, stderr = io.StringIO(), io.StringIO()
    code = 0
    with (
        _restored_process(),
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, {"COLUMNS": "200", **environment}),
        mock.patch.object(sys, "argv", words),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()))),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())


def refused(*arguments: object, code: int = 1, **more: object) -> str:
    """The error message of the command, which has to end with the exit code ``code``."""
    done = rankline(*arguments, **more)  # type: ignore[arg-type]
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.strip(), done.stdout
    return done.stderr


@contextlib.contextmanager
def _restored_process() -> Iterator[None]:
    """Undo what a command leaves in its process: signal handlers, warning filters, modules of recipes."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    path, modules = list(sys.path), set(sys.modules)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.path[:] = path
        sys.path_importer_cache.pop("", None)
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and not any(Path(file).is_relative_to(folder) for folder in (_ROOT, sys.prefix, sys.base_prefix)):
                del sys.modules[name]


_ROOT = Path(__file__).resolve().parents[2]
