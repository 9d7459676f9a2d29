"""Receivers on a port: a web server with a list of answers, and a mail server of a few commands."""

from __future__ import annotations

import contextlib
import datetime
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple


class Received(NamedTuple):
    """A request that a receiver got."""

    headers: dict[str, str]  # with names in lower case
    body: bytes


@contextlib.contextmanager
def web_server(answers: Sequence[int], *, delay_s: float = 0.0) -> Iterator[tuple[str, list[Received]]]:
    """A server that answers with these codes, the last one for ever; its URL, and what it receives."""
    received: list[Received] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code = answers[min(len(received), len(answers) - 1)]
            received.append(Received({name.lower(): value for name, value in self.headers.items()}, body))
            time.sleep(delay_s)
            with contextlib.suppress(OSError):  # the sender did not wait
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook/s3cret", received
    finally:
        server.shutdown()
        server.server_close()


class Mail(NamedTuple):
    """A mail that a mail server took: from whom, to whom, who had logged in, and its lines."""

    sender: str
    recipients: list[str]
    login: str
    encrypted: bool
    text: str


@contextlib.contextmanager
def mail_server(
    *, answer: Callable[[str], str] = lambda command: "", certificate: tuple[Path, Path] | None = None
) -> Iterator[tuple[int, list[Mail]]]:
    """A mail server; ``answer`` may reply to a command in its place. Its port, and the mails it took."""
    mails: list[Mail] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.encrypted, login, sender, recipients = False, "", "", []
            self.reply("220 ready")
            while line := self.rfile.readline().decode().strip():
                command, _, rest = line.partition(" ")
                command = command.upper()
                if override := answer(line):
                    self.reply(override)
                elif command == "EHLO":
                    offers = ["STARTTLS"] if certificate and not self.encrypted else ["AUTH PLAIN"]
                    self.reply("\r\n".join(["250-here", *(f"250-{each}" for each in offers), "250 SIZE"]))
                elif command == "STARTTLS":
                    self.reply("220 go")
                    self.encrypt()
                elif command == "AUTH":
                    login = rest
                    self.reply("235 welcome")
                elif command == "MAIL":
                    sender = rest
                    self.reply("250 fine")
                elif command == "RCPT":
                    recipients.append(rest)
                    self.reply("250 fine")
                elif command == "DATA":
                    self.reply("354 go on")
                    lines = list(iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), "."))
                    mails.append(Mail(sender, recipients, login, self.encrypted, "\n".join(lines)))
                    self.reply("250 taken")
                else:
                    self.reply("221 bye" if command == "QUIT" else "250 fine")

        def reply(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def encrypt(self) -> None:
            assert certificate is not None
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            with contextlib.suppress(ssl.SSLError):  # the client does not trust it
                self.request = context.wrap_socket(self.request, server_side=True)
                self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", buffering=0)
                self.encrypted = True

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], mails
    finally:
        server.shutdown()
        server.server_close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """The files of a certificate for 127.0.0.1 and of its key."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def refused_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
