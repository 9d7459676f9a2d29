"""The server on a free port of this machine."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.servers.kubeflow.api import Api
from tests.servers.kubeflow.handler import Handler


@dataclass(frozen=True)
class Kubeflow:
    """A running server."""

    api: Api
    port: int
    scheme: str = "http"
    ca: str = ""

    @property
    def host(self) -> str:
        """Its address, as a gateway has it."""
        return f"{self.scheme}://127.0.0.1:{self.port}/pipeline"

    def kubeconfig(self, folder: Path) -> Path:
        """A file with which Kubernetes' own clients find it."""
        path = folder / "kubeconfig"
        context = {"cluster": "here", "user": "me"}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "me", "user": {}}], "contexts": [{"name": "here", "context": context}],
        }  # fmt: skip
        path.write_text(json.dumps(config))
        return path


@contextlib.contextmanager
def kubeflow_server(folder: Path, *, tls: bool = False, **settings: Any) -> Iterator[Kubeflow]:
    """The server on a free port, in a thread of this process."""
    api = Api(**settings)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"api": api}))
    ca = ""
    if tls:
        ca = str(_certificate(folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ca)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield Kubeflow(api, server.server_address[1], "https" if tls else "http", ca)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _certificate(folder: Path) -> Path:
    """A certificate that signs itself, key and all in one file."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubeflow")])
    now = datetime.now(UTC)
    created = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = folder / "kubeflow.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        created.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return path
