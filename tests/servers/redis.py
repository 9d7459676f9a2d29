"""A real Redis from Debian's packages; tests are skipped where it is absent."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.process import Server, free_port, listens

PASSWORD = "sesame"


@dataclass(frozen=True)
class Redis:
    """A running server that asks for a password."""

    server: Server
    port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[Redis]:
    """Redis that keeps everything in memory."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no Redis here: `apt-get install redis-server` brings one")
    pytest.importorskip("redis", reason="no client for Redis here: `pip install 'feast[redis]'`")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", PASSWORD]
    server = Server(command, log=folder / "server.log", ready=lambda: listens(port), cwd=folder)
    with server.running():
        yield Redis(server, port)
