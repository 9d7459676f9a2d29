"""A network that fails now and then: a TCP proxy before a real server, which drops connections or answers 503."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

DROP, DROP_ANSWER, BUSY, PASS = "drop", "drop the answer", "503", "pass"
_BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Flaky:
    """Asks ``plan`` with the number of each new connection (from 0) what is to become of it."""

    def __init__(self, port: int, plan: Callable[[int], str]) -> None:
        self._to, self.plan = port, plan
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.seen: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                what = self.plan(len(self.seen))
                self.seen.append(what)
                threading.Thread(target=self._serve, args=(client, what), daemon=True).start()

    def _serve(self, client: socket.socket, what: str) -> None:
        with client, contextlib.suppress(OSError):
            if what == DROP:
                return
            client.settimeout(30)
            request = _request(client)
            if not request:
                return
            if what == BUSY:
                client.sendall(_BUSY)
                return
            with socket.create_connection(("127.0.0.1", self._to), timeout=30) as server:
                server.sendall(request)
                answer = _answer(server)
                if what != DROP_ANSWER:
                    client.sendall(answer)

    def close(self) -> None:
        self._listener.close()


def _request(stream: socket.socket) -> bytes:
    """One request, told to be the last of its connection, so that each gets a fate of its own."""
    head, body = _head(stream)
    if not head:
        return b""
    if b"100-continue" in head.lower():
        stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        head = b"\r\n".join(line for line in head.split(b"\r\n") if b"100-continue" not in line.lower())
    length = _length(head)
    while len(body) < length:
        body += stream.recv(65536)
    return head + b"\r\nConnection: close\r\n\r\n" + body


def _answer(stream: socket.socket) -> bytes:
    parts = []
    while part := stream.recv(65536):
        parts.append(part)
    return b"".join(parts)


def _head(stream: socket.socket) -> tuple[bytes, bytes]:
    reported = b""
    while b"\r\n\r\n" not in reported:
        part = stream.recv(65536)
        if not part:
            return b"", b""
        reported += part
    head, _, body = reported.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join(lines), body


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


@contextlib.contextmanager
def flaky(port: int, plan: Callable[[int], str]) -> Iterator[Flaky]:
    """A proxy before a server's port."""
    proxy = Flaky(port, plan)
    try:
        yield proxy
    finally:
        proxy.close()
