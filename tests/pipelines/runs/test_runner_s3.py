"""The whole line with its repository, finished work and checkpoints in a bucket, over a network that fails at times."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from rankline.registry.model_registry import ModelRegistry
from tests.cli.command import rankline
from tests.servers.proxy import DROP, PASS, flaky

pytestmark = pytest.mark.slow


def test_two_machines_share_a_bucket(bucket, url, tmp_path, monkeypatch):
    locations = [f"--set=storage.{name}={url}/{name}" for name in ("repository", "artifacts", "checkpoints")]
    with flaky(bucket.port, lambda n: DROP if n % 10 == 5 else PASS) as network:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.environment(port=network.port)["AWS_ENDPOINT_URL"])
        first = rankline("run", "--recipe", "smoke", "-w", tmp_path / "a", "--json", *locations, timeout_s=900)
        assert first.returncode == 0, first.stderr
        assert DROP in network.seen
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.environment()["AWS_ENDPOINT_URL"])
    assert not (tmp_path / "a" / "repository").exists()
    second = rankline("run", "--recipe", "smoke", "-w", tmp_path / "b", "--json", *locations, timeout_s=900)
    assert second.returncode == 0, second.stderr
    result = json.loads(second.stdout)
    reused = {step["step"] for step in result["steps"] if step["status"] == "reused"}
    assert {"ingest", "validate", "featurize", "finetune", "distill", "export"} <= reused
    champion = ModelRegistry(f"{url}/repository").champion()
    shown = rankline("champion", "-w", tmp_path / "b", "--repository", f"{url}/repository")
    assert shown.returncode == 0
    assert champion in shown.stdout
    # a change that makes another model: it is evaluated beside the champion, which is fetched out of the bucket
    third = rankline(
        "run", "--recipe", "smoke", "-w", tmp_path / "b", "--json", *locations, "--set=distill.seed=7", timeout_s=900
    )
    summary = json.loads(third.stdout)
    evaluated = next(step for step in summary["steps"] if step["step"] == "evaluate")
    assert evaluated["status"] == "done"
    assert (tmp_path / "b" / "fetched" / champion / "manifest.json").is_file()
    _serves(f"{url}/repository", ModelRegistry(f"{url}/repository").champion(), tmp_path / "b")


def _serves(repository: str, champion: str, workspace: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "cli.main",
            "serve",
            "--repository",
            repository,
            "-w",
            str(workspace),
            "--port",
            str(port),
        ]
    )
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                    assert champion in answer.read().decode()
                    return
            except (urllib.error.URLError, OSError):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.3)
    finally:
        process.terminate()
        process.wait(30)
