"""The lock in a folder or a bucket: one holder at a time, and one that is killed or stands still loses it."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rankline.io.lease import Lease

pytestmark = pytest.mark.integration

LEASE_S = 1.0


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "lock") if request.param == "folder" else str(request.getfixturevalue("url"))


def lease(place: str) -> Lease:
    return Lease(place, lease_s=LEASE_S)


HOLDER = textwrap.dedent(
    """
    import sys
    from rankline.errors import RegistryError
    from rankline.io.lease import Lease

    lease = Lease(sys.argv[1], lease_s=float(sys.argv[2]))
    with lease.held(timeout_s=10, owner={"who": "the other", "run": "r1"}):
        print("held", flush=True)
        sys.stdin.readline()
        try:
            lease.require_held()
            print("still held", flush=True)
        except RegistryError as error:
            print(error.found, flush=True)
    """
)


@contextlib.contextmanager
def other_holder(place: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until it gets a line."""
    command = [sys.executable, "-c", HOLDER, place, str(LEASE_S)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_process_waits_and_says_for_whom(place: str) -> None:
    with other_holder(place) as process:
        with pytest.raises(TimeoutError, match=rf"the other, run r1: process {process.pid} on"):  # noqa: SIM117
            with lease(place).held(timeout_s=2 * LEASE_S, owner={}):  # the holder renews it
                pytest.fail("two processes hold one lock")
        assert lease(place).holder()["who"] == "the other"
        assert process.communicate("\n", timeout=20)[0] == "still held\n"
    with lease(place).held(timeout_s=0, owner={}):  # it was released, so nobody waits
        pass
    assert lease(place).holder() == {}


def test_a_killed_holder_does_not_block(place: str) -> None:
    with other_holder(place) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with lease(place).held(timeout_s=30 * LEASE_S, owner={"who": "the next"}):
            assert lease(place).holder()["who"] == "the next"


def test_a_holder_that_stood_still_writes_nothing_more(place: str) -> None:
    with other_holder(place) as process:
        os.kill(process.pid, signal.SIGSTOP)
        mine = lease(place)
        with mine.held(timeout_s=30 * LEASE_S, owner={"who": "the next"}):
            os.kill(process.pid, signal.SIGCONT)
            printed = process.communicate("\n", timeout=20)[0]
            assert printed.startswith(f"the next: process {os.getpid()}")
            mine.require_held()  # what the other one released was its own


def test_of_many_writers_none_overwrites_another(place: str, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count(_: int) -> None:
        with lease(place).held(timeout_s=60, owner={}):
            value = int(counter.read_text())
            time.sleep(0.01)
            counter.write_text(str(value + 1))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(12)))
    assert counter.read_text() == "12"


def test_a_number_that_another_process_took_and_removed_is_not_ours(url: str) -> None:
    class Slow(Lease):
        def _read(self, name: str) -> bytes:
            self.fs.rm_file(self._path(name))  # the holder of a later number removes it before it is read
            return super()._read(name)

    assert lease(url)._create("000000000001.json", b"theirs")
    assert not Slow(url)._create("000000000001.json", b"ours")
    assert lease(url)._create("000000000001.json", b"the next")
