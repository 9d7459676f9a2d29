"""The server process on a real port: responses, swaps under load, refusals to start, shutdown."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rankline.contracts import FrozenState
from rankline.model.bundle import Bundle
from rankline.model.policy import ServingPolicy
from rankline.registry.model_registry import ModelRegistry
from serving.engine import BundleEngine, EngineRequest, run_request
from serving.server import main
from tests.cli.in_process import rankline
from tests.serving.conftest import ROOT, Server, command, running
from tests.serving.tiny_bundle import (
    flip_byte,
    make_bundle,
    make_catalogue,
    publish,
    publish_catalogue,
    publish_damaged,
)


def refused(*arguments: str) -> tuple[int, str]:
    """Run a server that must not start; return its exit code and error output."""
    ended = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    ("scale", "given", "stars"),
    [((1, 10), [10.0, 5.5], [5.0, 3.0]), ((0, 100), [50.0, 0.0], [3.0, 0.0]), ((0.5, 5), [0.5, 5.0], [1.0, 5.0])],
)
def test_ratings_that_a_request_brings_are_on_the_scale_of_the_data(
    tmp_path: Path, scale: tuple[float, float], given: list[float], stars: list[float]
) -> None:
    def scores(policy: ServingPolicy, name: str, ratings: list[float]) -> list[float]:
        bundle = make_bundle(tmp_path / name, policy=policy)
        with running(tmp_path, "--bundle", str(bundle.folder)) as server:
            history = {"item_ids": ["i1", "i2"], "times": [1.0, 2.0], "ratings": ratings}
            reply = server.client.post("/v1/recommend", json={"history": history, "k": 20, "at": 9.0}).json()
        return [item["score"] for item in reply["items"]]

    expected = scores(ServingPolicy(), "stars", stars)
    assert scores(ServingPolicy(rating_scale=scale), "scaled", given) == pytest.approx(expected)
    assert scores(ServingPolicy(), "unscaled", [0.0, 0.0]) != pytest.approx(expected)


@pytest.mark.integration
def test_it_describes_its_model(server: Server, bundle: Bundle) -> None:
    ready = server.client.get("/readyz").json()
    assert (ready["ready"], ready["model_id"], ready["revision"]) == (True, bundle.model_id, bundle.revision)
    assert (ready["precision"], ready["provider"]) == ("fp32", "cpu")
    assert ready["features"]["state"] == "off"
    model = server.client.get("/v1/model").json()
    assert model["heads"] == ["click", "like"]
    assert model["manifest"]["parity"][0]["graph"] == "scorer"


def test_it_recommends(server: Server, bundle: Bundle) -> None:
    history = {"item_ids": ["i1", "i2"], "times": [1.0, 2.0], "ratings": [4.0, 5.0]}
    reply = server.client.post("/v1/recommend", json={"history": history, "k": 7}).json()
    assert reply["model_id"] == bundle.model_id
    assert reply["degraded"] == ["features"]
    items = reply["items"]
    assert len(items) == 7
    assert not {"i1", "i2"} & {item["item_id"] for item in items}
    assert items[0]["title"].startswith("The ")
    assert [item["score"] for item in items] == sorted((item["score"] for item in items), reverse=True)
    assert {source for item in items for source in item["sources"]} <= {"towers", "covisit", "popular"}


def test_logits_cross_the_wire_exactly(server: Server, bundle: Bundle) -> None:
    engine = BundleEngine.load(bundle, precision="fp32", provider="cpu", threads=1)
    frozen = FrozenState(at=77.5, user_features={"user_events_7d": 1 / 3})
    every = list(engine.item_ids)
    here = run_request(engine, EngineRequest("rank", frozen, candidates=every)).items
    there = server.client.post("/v1/rank", json={"frozen": frozen.model_dump(), "candidates": every}).json()
    assert [item["item_id"] for item in there["items"]] == [item.item_id for item in here]
    for one, other in zip(there["items"], here):
        assert np.float32(one["logits"]["click"]) == np.float32(other.logits["click"])
        assert one["logits"] == other.logits


def test_a_frozen_state_is_honoured(server: Server) -> None:
    """Item features in the request decide what is popular; unknown items in them are ignored."""

    def proposed_as_popular(**item_features: list[Any]) -> set[str]:
        frozen = {"at": 1e9, "seen": ["i20"], "item_features": item_features}
        reply = server.client.post("/v1/recommend", json={"frozen": frozen, "k": 100}).json()
        assert reply["degraded"] == []
        assert reply["known_user"] is None
        return {item["item_id"] for item in reply["items"] if "popular" in item["sources"]}

    wanted = ["i20", "i21", "i22", "never-heard-of"]
    assert proposed_as_popular(item_id=wanted, item_events_7d=[9, 8, 7, 99]) == {"i21", "i22"}
    assert proposed_as_popular(item_id=["i33"], item_events_30d=[5]) == {"i33"}
    assert len(proposed_as_popular()) == 12  # without item features: the bundle's own counts


def test_similar_leaves_out_the_item_itself(server: Server) -> None:
    items = server.client.post("/v1/similar", json={"item_id": "i4", "k": 5}).json()["items"]
    assert len(items) == 5
    assert "i4" not in {item["item_id"] for item in items}
    assert server.client.post("/v1/similar", json={"item_id": "nobody"}).status_code == 404


def test_metrics_say_what_serves(server: Server, bundle: Bundle) -> None:
    server.client.post("/v1/similar", json={"item_id": "i1"})
    text = server.client.get("/metrics").text
    assert re.search(rf'rankline_model_info{{model_id="{bundle.model_id}",.*}} 1.0', text)
    assert re.search(r'rankline_requests_total{route="/v1/similar",status="200"} \d', text)
    assert 'rankline_swaps_total{outcome="refused"} 0.0' in text
    assert "rankline_features_ready 0.0" in text


def more_answers(answers: list[list[tuple[int, str]]]) -> None:
    """Wait until every client has had two more answers: the second was asked for after this call."""
    counts, end = [len(own) for own in answers], time.monotonic() + 30
    while any(len(own) < count + 2 for own, count in zip(answers, counts)):
        assert time.monotonic() < end, "the server does not answer"
        time.sleep(0.01)


@contextmanager
def under_load(server: Server, field: str) -> Iterator[list[list[tuple[int, str]]]]:
    """Four clients that ask all the time.

    For each the answers that it got so far: (HTTP status, or -1 of an incomplete answer; one field of the answer).
    """
    answers: list[list[tuple[int, str]]] = [[] for _ in range(4)]
    stop = threading.Event()

    def ask(own: list[tuple[int, str]]) -> None:
        with httpx.Client(base_url=server.url, timeout=20) as client:
            while not stop.is_set():
                response = client.post("/v1/recommend", json={"history": {"item_ids": ["i1"]}, "k": 3})
                reply = response.json()
                whole = response.status_code == 200 and len(reply["items"]) == 3
                own.append((response.status_code if whole else -1, reply.get(field, "")))

    threads = [threading.Thread(target=ask, args=(own,)) for own in answers]
    for thread in threads:
        thread.start()
    try:
        more_answers(answers)
        yield answers
        more_answers(answers)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.integration
def test_swaps_under_load_drop_nothing(bundle: Bundle, other_bundle: Bundle, tmp_path: Path) -> None:
    """From no champion to a first and a second, then a damaged third: every request is answered."""
    registry = tmp_path / "repository"
    with running(tmp_path, "--repository", str(registry), "--poll-s", "0.1") as server:
        assert server.client.get("/livez").status_code == 200
        assert server.client.get("/readyz").status_code == 503
        publish(registry, bundle)
        server.until("/readyz", lambda response: response.status_code == 200)

        with under_load(server, "model_id") as answers:
            publish(registry, other_bundle)
            server.until("/readyz", lambda response: response.json()["model_id"] == other_bundle.model_id)
            bad = make_bundle(tmp_path / "bad", seed=9)
            publish_damaged(registry, bad, "scorer.onnx")
            ready = server.until("/readyz", lambda response: response.json()["refused"]).json()

        assert ready["model_id"] == other_bundle.model_id
        assert ready["refused"]["model_id"] == bad.model_id
        assert "scorer.onnx" in ready["refused"]["reason"]
        assert {status for own in answers for status, _ in own} == {200}
        for own in answers:
            models = [model for _, model in own]
            change = models.index(other_bundle.model_id)
            assert change > 0, "the load began on the first model"
            assert set(models[:change]) == {bundle.model_id}
            assert set(models[change:]) == {other_bundle.model_id}
        text = server.client.get("/metrics").text
        assert 'rankline_swaps_total{outcome="swapped"} 2.0' in text
        assert 'rankline_swaps_total{outcome="refused"} 1.0' in text


@pytest.mark.integration
def test_catalogues_and_takedowns_under_load_drop_nothing(bundle: Bundle, tmp_path: Path) -> None:
    """From the bundle's catalogue to two later ones and back, with an item hidden on the way."""
    registry = tmp_path / "repository"
    publish(registry, bundle)
    with running(tmp_path, "--repository", str(registry), "--poll-s", "0.1") as server:

        def serves(revision: str) -> Callable[[httpx.Response], bool]:
            return lambda response: response.json()["revision"] == revision

        with under_load(server, "revision") as answers:
            first = publish_catalogue(registry, bundle, make_catalogue(bundle, tmp_path / "first"))
            server.until("/readyz", serves(first))
            ModelRegistry(registry).hide(["i2"], who="test", why="recalled")
            server.until("/readyz", lambda response: response.json()["hidden"] == 1)
            second = publish_catalogue(registry, bundle, make_catalogue(bundle, tmp_path / "second", seed=8))
            server.until("/readyz", serves(second))
            ModelRegistry(registry).publish(bundle.model_id, bundle.revision, who="test", why="back")
            server.until("/readyz", serves(bundle.revision))
        assert {status for own in answers for status, _ in own} == {200}
        for own in answers:
            revisions = [revision for _, revision in own]
            assert revisions[0] == revisions[-1] == bundle.revision
            assert first in revisions
        model = server.client.get("/v1/model").json()
        assert (model["revision"], model["items"], model["hidden"]) == (bundle.revision, 40, ["i2"])


@pytest.mark.integration
def test_a_hidden_item_leaves_every_answer_within_seconds_and_stays_away(bundle: Bundle, tmp_path: Path) -> None:
    """With default settings, hidden from the command line; then the server is restarted."""
    registry = tmp_path / "repository"
    publish(registry, bundle)
    every = [f"i{row}" for row in range(40)]

    def reply(server: Server) -> dict[str, dict[str, Any]]:
        asked = {
            "recommend": {"k": 40},
            "search": {"k": 40, "query": "space"},
            "similar": {"k": 39, "item_id": "i1"},
            "rank": {"candidates": every},
        }
        return {route: server.client.post(f"/v1/{route}", json=body).json() for route, body in asked.items()}

    def gave(answers: dict[str, dict[str, Any]], item: str) -> set[str]:
        return {route for route, answer in answers.items() if item in {each["item_id"] for each in answer["items"]}}

    with running(tmp_path, "--repository", str(registry)) as server:
        item = reply(server)["recommend"]["items"][0]["item_id"]
        assert {"recommend", "rank"} <= gave(reply(server), item)
        assert "hidden from every answer" in rankline("items", "hide", item, "--repository", registry).stdout
        began = time.monotonic()
        while gave(reply(server), item):
            assert time.monotonic() - began < 10, "2 s, and what a busy machine adds"
            time.sleep(0.05)
        assert reply(server)["rank"]["hidden"] == [item]
        assert "rankline_hidden_items 1.0" in server.client.get("/metrics").text
    with running(tmp_path, "--repository", str(registry)) as server:
        assert gave(reply(server), item) == set(), "durable"
        assert reply(server)["rank"]["hidden"] == [item]


@pytest.mark.integration
def test_a_damaged_catalogue_is_refused_while_the_old_one_serves(bundle: Bundle, tmp_path: Path) -> None:
    registry = tmp_path / "repository"
    publish(registry, bundle)
    with running(tmp_path, "--repository", str(registry), "--poll-s", "3") as server:
        bad = publish_catalogue(registry, bundle, make_catalogue(bundle, tmp_path / "bad"))
        flip_byte(registry / "catalogues" / bundle.model_id / bad / "vectors.fp32.npy")
        ready = server.until("/readyz", lambda response: response.json()["refused"]).json()
        assert (ready["ready"], ready["revision"]) == (True, bundle.revision)
        assert (ready["refused"]["model_id"], ready["refused"]["revision"]) == (bundle.model_id, bad)
        assert "vectors.fp32.npy" in ready["refused"]["reason"]
        assert server.client.post("/v1/recommend", json={}).json()["revision"] == bundle.revision
        assert 'rankline_swaps_total{outcome="refused"} 1.0' in server.client.get("/metrics").text


@pytest.mark.integration
def test_sigterm_finishes_what_is_under_way(bundle: Bundle, tmp_path: Path) -> None:
    """A request with a half-sent body is still answered after the signal; then the server exits with 0."""
    with running(tmp_path, "--bundle", str(bundle.folder)) as server:
        body = b'{"k": 2}'
        lines = ("POST /v1/recommend HTTP/1.1", "Host: x", "Content-Type: application/json")
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode()
        address = (httpx.URL(server.url).host, httpx.URL(server.url).port)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(head + body[:4])
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            assert server.process.poll() is None
            connection.sendall(body[4:])
            reply = b""
            while chunk := connection.recv(65536):
                reply += chunk
        assert reply.startswith(b"HTTP/1.1 200")
        assert bundle.model_id.encode() in reply
        assert server.process.wait(timeout=10) == 0
        out, errors = server.process.communicate()
        assert out == f"serving {bundle.model_id} on {server.url}\n"
        assert "Traceback" not in errors


def test_a_port_in_use_is_refused(bundle: Bundle) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, reply = refused("--bundle", str(bundle.folder), "--port", port)
    assert code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in reply
    assert "give another --port" in reply


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    damaged = make_bundle(tmp_path / "bundle")
    flip_byte(damaged.folder / "user.onnx")
    code, reply = refused("--bundle", str(damaged.folder), "--port", "0")
    assert code == 1
    assert "user.onnx does not match its digest" in reply


def test_cuda_that_is_not_there_is_refused(bundle: Bundle) -> None:
    code, reply = refused("--bundle", str(bundle.folder), "--port", "0", "--provider", "cuda")
    assert code == 1
    assert reply.startswith("CUDA was requested")
    assert "--provider cpu" in reply


@pytest.mark.integration
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (lambda folder: ["--bundle", str(folder)], "not a model bundle"),
        (lambda folder: [], "one of --repository and --bundle"),
        (lambda folder: ["--bundle", str(folder), "--repository", str(folder)], "both"),
    ],
)
def test_nothing_to_serve_is_refused(tmp_path: Path, arguments: Callable[[Path], list[str]], expected: str) -> None:
    code, reply = refused(*arguments(tmp_path), "--port", "0")
    assert code == 2
    assert expected in reply


@pytest.mark.parametrize(
    ("option", "value"),
    [("--poll-s", "nan"), ("--poll-s", "-1"), ("--poll-s", "inf"), ("--threads", "-1"), ("--threads", "0"),
     ("--max-pending", "0"), ("--max-body-mb", "nan"), ("--drain-s", "-3")],
)  # fmt: skip
def test_an_option_without_a_meaning_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--bundle", "nowhere", option, value])
    assert stopped.value.code == 2
    assert "number" in capsys.readouterr().err


@pytest.mark.integration
def test_no_training_library_is_loaded(bundle: Bundle) -> None:
    """The serving image does not have them."""
    script = f"""
import sys
from pathlib import Path
import serving.api.app, serving.features.online_store, serving.model_manager, serving.server
from rankline.model.bundle import open_bundle
from serving.engine import BundleEngine
BundleEngine.load(open_bundle(Path({str(bundle.folder)!r})), precision="fp32", provider="cpu", threads=1)
print(sorted({{"torch", "kfp", "transformers", "mlflow", "onnx", "feast"}} & set(sys.modules)))
"""
    ready = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ready.stdout.strip() == "[]", ready.stderr
