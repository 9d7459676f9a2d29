"""Tiny bundles, and a real server process on a real port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rankline.model.bundle import Bundle
from tests.serving.tiny_bundle import make_bundle

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    """A running server process and a client for it."""

    process: subprocess.Popen[str]
    url: str
    client: httpx.Client

    def until(self, path: str, wanted: object, *, timeout_s: float = 30) -> httpx.Response:
        """Ask until ``wanted(answer)`` holds; fail if it never does."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            response = self.client.get(path)
            if wanted(response):  # type: ignore[operator]
                return response
            time.sleep(0.05)
        raise AssertionError(f"{path} still says {response.text}")


def command(*arguments: str) -> list[str]:
    """The command line of a server."""
    return [sys.executable, "-m", "serving", *arguments]


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[Server]:
    """A server process on a free port, stopped at the end."""
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    began = time.monotonic()
    process = subprocess.Popen(
        command(*arguments, "--port", "0", "--ready-file", str(ready)),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        while not ready.exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() - began < 30
            time.sleep(0.02)
        url = json.loads(ready.read_text())["url"]
        with httpx.Client(base_url=url, timeout=20) as client:
            yield Server(process, url, client)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle."""
    return make_bundle(tmp_path_factory.mktemp("bundle"), precisions=("fp32", "fp16"))


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Another model over the same items."""
    return make_bundle(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture(scope="session")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server on the tiny bundle, shared by the tests that only ask."""
    with running(tmp_path_factory.mktemp("server"), "--bundle", str(bundle.folder)) as started:
        yield started
