"""A lock in a folder or bucket, which a holder that is killed loses after a while.

    <name>/000000000003.json   who holds it; the highest number counts

Each number is created exclusively, so that one of several processes gets it, and its holder rewrites it every few
seconds. Whoever waits creates the next number once the last one says that it is released, or has not changed for as
long as a lease lasts by the waiting process's own clock: the clocks of two machines are never compared.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rankline.errors import RegistryError, StorageError
from rankline.io.blob_store import BlobStore
from rankline.periodic import repeated

LEASE_S = 30.0
_RELEASED = b"{}"


class Lease(BlobStore):
    """The lock at one URL."""

    def __init__(self, url: str, *, lease_s: float = LEASE_S) -> None:
        super().__init__(url)
        self._lease_s, self._number = lease_s, 0

    @contextlib.contextmanager
    def held(self, *, timeout_s: float, owner: Mapping[str, str]) -> Iterator[None]:
        """Hold the lock while the block runs; a second process waits, and its error names the ``owner``.

        Raises:
            TimeoutError: another process held it for longer than ``timeout_s``; the message says which.
        """
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {**owner, "pid": os.getpid(), "host": socket.gethostname(), "since": since, "id": uuid.uuid4().hex}
        self._acquire(holder, timeout_s)
        beats = itertools.count(1)
        try:
            with repeated(lambda: self._renew(holder, next(beats)), interval_s=self._lease_s / 5, name="lease"):
                yield
        finally:
            with contextlib.suppress(StorageError, OSError):  # it runs out by itself
                if self._latest()[0] == self._number:
                    self._replace(_name(self._number), _RELEASED)

    def require_held(self) -> None:
        """Make sure that the lock has not run out, before something is written that it guards.

        Raises:
            RegistryError: this process stood still for so long that another one took the lock.
        """
        if self._latest()[0] != self._number:
            raise RegistryError(
                "the lock ran out while this process stood still, and another process took it",
                expected=f"a sign of life every {self._lease_s:g} s",
                found=describe_holder(self.holder()),
                where=self.root,
                hint="run again when it has finished; nothing has changed",
            )

    def holder(self) -> dict[str, Any]:
        """Who holds the lock; empty if it is released."""
        content = self._latest()[1]
        holder: dict[str, Any] = json.loads(content)
        return holder

    def _acquire(self, holder: Mapping[str, Any], timeout_s: float) -> None:
        seen, seen_at = self._latest(), time.monotonic()
        deadline = seen_at + timeout_s
        while True:
            free = seen[1] == _RELEASED or time.monotonic() - seen_at > self._lease_s
            if free and self._create(_name(seen[0] + 1), json.dumps(holder).encode()):
                self._number = seen[0] + 1
                if self._latest()[0] == self._number:  # else: it was slow, and earlier numbers are gone already
                    self._remove_earlier()
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(describe_holder(json.loads(seen[1])))
            time.sleep(min(1.0, self._lease_s / 10))
            latest = self._latest()
            if latest != seen:
                seen, seen_at = latest, time.monotonic()

    def _renew(self, holder: Mapping[str, Any], beat: int) -> None:
        with contextlib.suppress(StorageError, OSError):  # the next one may get through
            self._replace(_name(self._number), json.dumps({**holder, "beat": beat}).encode())

    def _latest(self) -> tuple[int, bytes]:
        """The highest number and its content."""
        while numbers := self._numbers():
            with contextlib.suppress(FileNotFoundError):  # a later holder removed it
                return numbers[-1], self._read(_name(numbers[-1]))
        return 0, _RELEASED

    def _numbers(self) -> list[int]:
        try:
            names = [str(name).rpartition("/")[2] for name in self.fs.ls(self.root, detail=False)]
        except FileNotFoundError:
            return []
        return sorted(int(name.removesuffix(".json")) for name in names if name.removesuffix(".json").isdigit())

    def _remove_earlier(self) -> None:
        for number in self._numbers():
            if number < self._number:
                with contextlib.suppress(StorageError, OSError):
                    self.fs.rm_file(self._path(_name(number)))


def describe_holder(holder: Mapping[str, Any]) -> str:
    """The holder of a lock, as an error names it."""
    if not holder:
        return "a process that has not written who it is"
    run = f", run {holder['run']}" if holder.get("run") else ""
    process = f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}"
    return f"{holder.get('who') or 'unnamed'}{run}: {process}"


def _name(number: int) -> str:
    return f"{number:012}.json"
