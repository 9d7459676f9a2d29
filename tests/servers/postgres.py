"""A real Postgres from Debian's packages, thrown away afterwards; tests are skipped where it is absent."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.process import Server, free_port, listens

USER, PASSWORD, DATABASE = "rankline", "pa55-not-to-be-seen", "rankline"


@dataclass(frozen=True)
class Postgres:
    """A running server with one user and one database; the password goes by PGPASSWORD."""

    server: Server
    port: int

    @property
    def address(self) -> str:
        return f"{USER}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def url(self) -> str:
        """As Postgres' own clients want it; without the password."""
        return f"postgresql://{self.address}"

    @property
    def secret_url(self) -> str:
        """The same, password and all."""
        return self.url.replace("@", f":{PASSWORD}@")

    @property
    def sqlalchemy_url(self) -> str:
        """As SQLAlchemy wants it; without the password."""
        return f"postgresql+psycopg://{self.address}"

    def kill(self) -> None:
        """End it as a power cut would: no connection is told."""
        self.server.stop(signal.SIGQUIT)

    def start(self) -> None:
        """Start it again on what it has."""
        self.server.start()


def programs() -> Path:
    """Where Debian keeps the server's programs; skips the test where there are none, or nobody may run them."""
    matches = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not matches:
        pytest.skip("no Postgres here: `apt-get install postgresql` brings one")
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("Postgres does not run as root, and there is no user postgres")
    return matches[-1].parent


@contextlib.contextmanager
def postgres_server(folder: Path) -> Iterator[Postgres]:
    """Postgres over a new data folder; its data survives `stop` and `start`."""
    bin, port = programs(), free_port()
    pytest.importorskip("psycopg", reason="no driver for Postgres here: `pip install 'psycopg[binary]'`")
    folder.mkdir(parents=True, exist_ok=True)
    secret = folder / "password"
    secret.write_text(PASSWORD)
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        account = pwd.getpwnam("postgres")
        owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        for path in (folder, secret):
            os.chown(path, account.pw_uid, account.pw_gid)
        for parent in folder.parents:  # which it has to be able to pass through
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    subprocess.run(
        [bin / "initdb", "-D", folder / "data", "-U", USER, "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8",
         "--no-sync"],
        check=True, capture_output=True, cwd=folder, **owner,
    )  # fmt: skip
    server = Server(
        [str(bin / "postgres"), "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder),
         "-c", "fsync=off"],
        log=folder / "server.log", ready=lambda: _answers(bin, port), cwd=folder, **owner,
    )  # fmt: skip
    with server.running():
        subprocess.run(
            [shutil.which("createdb") or bin / "createdb", "-h", "127.0.0.1", "-p", str(port), "-U", USER, DATABASE],
            check=True, capture_output=True, env={**os.environ, "PGPASSWORD": PASSWORD},
        )  # fmt: skip
        yield Postgres(server, port)


def _answers(bin: Path, port: int) -> bool:
    asked = [bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
    return listens(port) and subprocess.run(asked, check=False).returncode == 0
