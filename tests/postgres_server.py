"""A throw-away Postgres server for tests: a cluster in a temporary folder, on a free port, ended with the test.

    pytest_plugins = ["tests.postgres_server"]  # or: from tests.postgres_server import postgres

Needs the programs of Debian's package `postgresql`; a test that asks for the fixture is skipped without them.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "pa55-not-to-be-seen"


class Server:
    """A running cluster with one user (`rankline`, with a password) and one database of the same name."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self.folder = programs, folder
        self.data = folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return f"postgresql://rankline@127.0.0.1:{self.port}/rankline"

    @property
    def secret_url(self) -> str:
        """Where it is, password and all."""
        return self.url.replace("@", f":{PASSWORD}@")

    def run(self, program: str, *arguments: str) -> None:
        """Run one of its programs as a user that is not root, which Postgres refuses."""
        command = [str(self._programs / program), *arguments]
        user = "postgres" if os.getuid() == 0 else None
        done = subprocess.run(command, user=user, group=user, cwd=self.folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}{done.stderr}")

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -h 127.0.0.1 -c fsync=off"
        self.run("pg_ctl", "start", "-w", "-D", str(self.data), "-l", str(self.folder / "log"), "-o", options)

    def make(self) -> None:
        """Make the cluster, start it, and add the database."""
        import psycopg

        told = self.folder / "password"
        told.write_text(PASSWORD)
        if os.getuid() == 0:
            shutil.chown(told, "postgres")
        self.run("initdb", "-D", str(self.data), "-U", "rankline", "-A", "scram-sha-256", "--pwfile", str(told), "-N")
        self.start()
        at = self.secret_url.removesuffix("/rankline") + "/postgres"
        with psycopg.connect(at, autocommit=True) as connection:
            connection.execute("CREATE DATABASE rankline")

    def kill(self) -> None:
        """End it as a power cut would: no connection is told."""
        main = int((self.data / "postmaster.pid").read_text().split()[0])
        os.kill(main, signal.SIGQUIT)

    def wait_until_down(self) -> None:
        """Wait until nothing of it runs any more."""
        for _ in range(200):
            if not (self.data / "postmaster.pid").exists():
                return
            time.sleep(0.05)
        raise RuntimeError("the server did not end")

    def stop(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.run("pg_ctl", "stop", "-w", "-D", str(self.data), "-m", "immediate")


def programs() -> Path | None:
    """The folder of Postgres' own programs, which Debian keeps off the path."""
    found = shutil.which("pg_ctl")
    if found:
        return Path(found).resolve().parent
    return next((path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), reverse=True)), None)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """A server of this module's tests."""
    found = programs()
    if found is None:
        pytest.skip("there is no Postgres server here (apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="the Python driver is missing (pip install 'psycopg[binary]')")
    if os.getuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("Postgres does not run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="rankline-postgres-"))
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = Server(found, folder)
    try:
        server.make()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
