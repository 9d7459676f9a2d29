"""Fixtures over the servers: import the ones a test file wants."""

from __future__ import annotations

import contextlib
import os
import sys
import urllib.request
import uuid

import pytest

from tests.servers.postgres import PASSWORD, Postgres, postgres_server
from tests.servers.process import Server, free_port
from tests.servers.redis import PASSWORD as REDIS_PASSWORD
from tests.servers.redis import Redis, redis_server
from tests.servers.s3 import Bucket, s3_server


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A running S3 server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as bucket:
        yield bucket


@pytest.fixture
def bucket(s3: Bucket, monkeypatch):
    """The server, and an environment in which everybody finds it."""
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # a client remembers the endpoint it was made for
    yield s3
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def url(bucket: Bucket):
    """A place in the bucket that nobody else uses."""
    return f"{bucket.url}/{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def postgres_for_all(tmp_path_factory):
    """A running Postgres."""
    with postgres_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def postgres(postgres_for_all: Postgres, monkeypatch):
    """Postgres, and an environment that knows its password."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return postgres_for_all


@pytest.fixture(scope="module")
def redis_for_all(tmp_path_factory):
    """A running Redis."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(redis_for_all: Redis, monkeypatch):
    """Redis, and an environment that knows its password."""
    monkeypatch.setenv("REDIS_PASSWORD", REDIS_PASSWORD)
    return redis_for_all


@pytest.fixture
def mlflow_server(postgres: Postgres, tmp_path):
    """A running MLflow server that keeps its runs in Postgres; the port it listens on."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", postgres.sqlalchemy_url, "--artifacts-destination",
               str(tmp_path / "served")]  # fmt: skip
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "PYTHONWARNINGS": "ignore"}

    def ready() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return True
        return False

    server = Server(command, log=tmp_path / "mlflow.log", ready=ready, timeout_s=120, env=environment, cwd=tmp_path)
    with server.running():
        yield port
