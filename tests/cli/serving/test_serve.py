"""`rankline serve` and `rankline ask`: the promoted model answers, and what cannot be served is refused."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cli.serving.serve import parse_context
from tests.cli import command
from tests.cli.command import RANKLINE
from tests.cli.in_process import rankline, refused
from tests.conftest import SmokeRun
from tests.pipelines.runs.watched import flip


@pytest.fixture(scope="module")
def url(smoke: SmokeRun) -> Iterator[str]:
    """A server on the champion of the smoke run."""
    process = subprocess.Popen(
        [RANKLINE, "serve", "-w", str(smoke.workspace), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"serving {smoke.summary['model_id']} on http://"), process.communicate()
        yield line.split(" on ")[1].strip()
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.integration
def test_the_promoted_model_answers(smoke: SmokeRun, url: str) -> None:
    done = rankline("ask", "u1", "--url", url, "--k", 3, http_proxy="http://127.0.0.1:9")  # a proxy is not used
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(".")[0].strip() for line in lines[1:4]] == ["1", "2", "3"]
    assert f"answered by model {smoke.summary['model_id']}" in done.stdout
    scores = [float(line.split(".", 1)[1].split()[0]) for line in lines[1:4]]
    assert scores == sorted(scores, reverse=True)


def test_json_is_the_answer(smoke: SmokeRun, url: str) -> None:
    answer = json.loads(rankline("ask", "u1", "--url", url, "-k", 2, "--json").stdout)
    assert len(answer["items"]) == 2
    assert answer["model_id"] == smoke.summary["model_id"]


def test_an_error_of_the_server_is_shown(url: str) -> None:
    message = refused("ask", "u1", "--url", url, "--k", 100_000)
    assert f"where: {url}" in message
    assert "found: " in message


def test_a_context_reaches_the_server(url: str) -> None:
    error = refused("ask", "u1", "--context", "device=phone", "--url", url)
    assert "device" in error  # this model declares no such field
    assert refused("ask", "u1", "--context", "time_zone=UTC", "--context", "hour=x", "--url", url)


@pytest.mark.parametrize(
    ("options", "context"),
    [
        (["device=phone", "hour=21"], {"device": "phone", "hour": 21}),
        (["price=2.5", "holiday=true", "zip=007"], {"price": 2.5, "holiday": True, "zip": "007"}),
        (["url=a=b", "tags=[1]", "empty="], {"url": "a=b", "tags": "[1]", "empty": ""}),
    ],
)
def test_a_context_is_read_as_names_and_values(options: list[str], context: dict[str, Any]) -> None:
    assert parse_context(options) == context


@pytest.mark.parametrize("option", ["device", "=phone", ""])
def test_a_context_without_a_name_is_refused(option: str) -> None:
    assert "NAME=VALUE" in rankline("ask", "u1", "--context", option).stderr


def test_no_server_answers(taken: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    message = refused("ask", "u1", "--url", f"http://127.0.0.1:{port}")
    assert message.startswith("the server does not answer")
    assert "try: start one with `rankline serve`" in message


@pytest.mark.parametrize("url", ["nonsense", "http://[1", "ftp://127.0.0.1"])
def test_an_invalid_address(url: str) -> None:
    assert "the server does not answer" in refused("ask", "u1", "--url", url)


def test_another_server_answers() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b"<html>not found</html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        message = refused("ask", "u1", "--url", f"http://127.0.0.1:{other.server_port}")
        other.shutdown()
    assert "expected: a Rankline server" in message


def test_a_port_in_use(smoke: SmokeRun, taken: int) -> None:
    message = command.refused("serve", "-w", smoke.workspace, "--port", taken)
    assert message.startswith(f"the server cannot listen on 127.0.0.1:{taken}")
    assert "found: Address already in use" in message
    assert "--port" in message


def test_cuda_asked_for_and_absent(smoke: SmokeRun) -> None:
    message = command.refused(
        "serve", "-w", smoke.workspace, "--port", 0, "--provider", "cuda", CUDA_VISIBLE_DEVICES=""
    )
    assert message.startswith("CUDA was requested and ONNX Runtime fell back to the CPU")
    assert "try: " in message


def test_an_unknown_precision(smoke: SmokeRun) -> None:
    assert "'fp32', 'int8', 'fp16'" in command.refused("serve", "-w", smoke.workspace, "--precision", "fp8", code=2)


def test_a_bundle_with_a_flipped_byte(smoke: SmokeRun, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(smoke.artifact("export", "bundle"), bundle)
    flip(bundle / "scorer.onnx")
    message = command.refused("serve", "--bundle", bundle, "--port", 0)
    assert message.startswith("scorer.onnx does not match its digest")
    assert "try: " in message


@pytest.mark.integration
def test_a_champion_with_a_flipped_byte_in_the_repository(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    shutil.copytree(smoke.workspace / "repository", workspace / "repository")
    flip(workspace / "repository" / "bundles" / smoke.summary["model_id"] / "scorer.onnx")
    message = command.refused("serve", "-w", workspace, "--port", 0)
    assert "scorer.onnx does not match its digest" in message


@pytest.mark.integration
def test_a_folder_that_is_not_a_bundle(tmp_path: Path) -> None:
    assert "this is not a model bundle" in command.refused("serve", "--bundle", tmp_path, "--port", 0, code=2)
