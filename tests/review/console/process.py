"""A console as a process on a real port, and clients for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[3]
_COMMAND = [sys.executable, "-c", "from cli.main import main; main()", "review", "serve"]


@dataclass
class RunningConsole:
    """A running console; ``user`` and the like make clients for it."""

    url: str
    workspace: Path
    process: subprocess.Popen[str]

    def client(self, *, address: str = "127.0.0.1", **headers: str) -> httpx.Client:
        """A browser of its own, with its own cookies, whose requests come from ``address``."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        transport = httpx.HTTPTransport(local_address=address)
        return httpx.Client(base_url=self.url, headers=names, transport=transport, timeout=30)

    def script(self, token: str) -> httpx.Client:
        """A script with a token, which asks for JSON."""
        return self.client(authorization=f"Bearer {token}", accept="application/json")


@contextmanager
def running_console(workspace: Path, *arguments: object, **environment: str) -> Iterator[RunningConsole]:
    """A console on a free port, ended by its id."""
    ready = workspace.parent / f"{workspace.name}-console.json"
    ready.unlink(missing_ok=True)
    words = ["-w", str(workspace), "--port", "0", "--ready-file", str(ready), *map(str, arguments)]
    log = ready.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(
            [*_COMMAND, *words], cwd=ROOT, stdout=output, stderr=output, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        yield RunningConsole(json.loads(ready.read_text())["url"], workspace, process)
    finally:
        process.kill()  # nobody reads what it leaves, and MLflow's copy of a promotion may take a while
        process.wait(timeout=40)


def form_of(page: httpx.Response, action: str) -> dict[str, str]:
    """The hidden fields of the form on a page that is sent to ``action``."""
    body = re.search(rf'<form[^>]* action="[^"]*{re.escape(action)}".*?</form>', page.text, re.DOTALL)
    assert body, (action, page.status_code, page.text)
    return dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', body.group()))
