"""What callers send wrongly is refused with the field, costs nobody else an answer, and never holds the server."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankline.model.bundle import Bundle
from serving.api.app import create_app
from serving.api.middleware import RequestLimits
from serving.batching import BatchSettings
from serving.features.lookup import FeatureLookup
from serving.metrics import Metrics
from serving.model_manager import ModelManager
from tests.serving.conftest import Server, running
from tests.serving.echo import EchoEngine
from tests.serving.tiny_store import make_store

HALF = '"\\ud800"'  # half a character
ITEMS = '{"at": 1, "item_features": {"item_id": ["i1", "i2"], "popularity": %s}}'


@pytest.fixture(scope="module")
def server(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose feature store knows user u1; it takes bodies of a quarter of a MiB."""
    folder = tmp_path_factory.mktemp("protected")
    store = make_store(folder / "online", popular={"i20": 9.0})
    options = ("--features", str(store), "--max-body-mb", "0.25")
    with running(folder, "--bundle", str(bundle.folder), *options) as server:
        server.until("/readyz", lambda answer: answer.json()["features"]["state"] == "ready")
        yield server


def post(server: Server, route: str, body: str, **headers: str) -> tuple[int, dict[str, Any]]:
    answer = server.client.post(
        f"/v1/{route}", content=body.encode(), headers={"content-type": "application/json", **headers}
    )
    assert answer.headers["X-Request-Id"]
    return answer.status_code, answer.json()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("recommend", '{"history": {"item_ids": ["i1"], "ratings": [NaN]}}', "history.ratings"),
        ("recommend", '{"history": {"item_ids": ["i1"], "ratings": [1e39]}}', "history.ratings"),
        ("recommend", '{"history": {"item_ids": ["i1"], "times": [-Infinity]}}', "history.times"),
        ("recommend", '{"at": NaN}', "at"),
        ("recommend", '{"at": -1}', "at"),
        ("recommend", '{"frozen": {"at": NaN}}', "frozen.at"),
        ("recommend", '{"frozen": {"at": -1e30}}', "frozen.at"),
        ("rank", '{"candidates": ["i1"], "frozen": {"at": 1, "affinity": {"a": Infinity}}}', "frozen.affinity"),
        ("rank", '{"candidates": ["i1"], "frozen": {"at": 1, "user_features": {"a": NaN}}}', "frozen.user_features"),
        *(
            ("rank", '{"candidates": ["i1"], "frozen": %s}' % (ITEMS % values), "popularity")
            for values in (
                "[1.0]", "[1, 2, 3]", '["many", "few"]', "[NaN, 1]", "[1e39, 1]", "[[1], [2]]", f"[1{'0' * 400}, 1]",
            )
        ),
        ("rank", '{"candidates": ["i1"], "frozen": {"at": 1, "item_features": {"popularity": [1.0]}}}', "item_id"),
        ("rank", '{"candidates": ["i1"], "frozen": {"at": 1, "item_features": {"item_id": [["i1"]]}}}', "item_id"),
        ("recommend", f'{{"user_id": {HALF}}}', "user_id"),
        ("recommend", f'{{"seen": [{HALF}]}}', "seen"),
        ("recommend", f'{{"history": {{"item_ids": [{HALF}]}}}}', "history.item_ids"),
        ("search", f'{{"query": {HALF}}}', "query"),
        ("search", f'{{"turns": [{HALF}]}}', "turns"),
        ("rank", f'{{"candidates": [{HALF}]}}', "candidates"),
        ("similar", f'{{"item_id": {HALF}}}', "item_id"),
        ("recommend", json.dumps({"user_id": "u" * 5000}), "user_id"),
        ("search", json.dumps({"turns": ["word " * 5000]}), "turns"),
        ("recommend", json.dumps({"seen": ["i"] * 100_001}).replace(" ", "")[:250_000], ""),
    ],
)  # fmt: skip
def test_a_value_that_no_model_can_read_is_refused_with_its_field(
    server: Server, route: str, body: str, field: str
) -> None:
    status, answer = post(server, route, body)
    assert (status, set(answer)) == (422, {"error", "expected", "found", "hint", "request_id"}), answer
    assert field in answer["error"] + answer["expected"]
    assert "roll back" not in json.dumps(answer)


@pytest.mark.parametrize("user", ["\\ud800", "\\u0000", "x" * 4096, "%s'; --", ""])
def test_one_id_takes_nobody_elses_features_away(server: Server, user: str) -> None:
    for _ in range(3):
        assert post(server, "recommend", f'{{"user_id": "{user}"}}')[0] in (200, 422)
        status, answer = post(server, "recommend", '{"user_id": "u1"}')
        assert (status, answer["known_user"], answer["degraded"]) == (200, True, [])


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_probes_may_ask_for_the_head(server: Server, path: str) -> None:
    answer = server.client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_of_another_type_is_refused_with_the_header_to_send(server: Server, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    answer = server.client.post("/v1/recommend", content=b'{"user_id": "u1"}', headers=headers)
    assert answer.status_code == 422
    assert "Content-Type: application/json" in answer.json()["hint"]


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
def test_a_body_with_an_encoding_is_refused_by_its_name(server: Server, encoding: str) -> None:
    body = gzip.compress(b'{"user_id": "u1"}')
    answer = server.client.post("/v1/recommend", content=body, headers={"content-encoding": encoding})
    assert (answer.status_code, encoding in answer.json()["found"]) == (415, True)


@pytest.mark.parametrize("body", [b'{"user_id": "caf\xe9"}', b'{"user_id": ', b"[" * 100_000, b"\x00"])
def test_a_body_that_is_no_json_is_refused(server: Server, body: bytes) -> None:
    answer = server.client.post("/v1/recommend", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code in (400, 422), bool(answer.json()["error"])) == (True, True)


@pytest.mark.parametrize("path", ["/v1/recommend/", "/v1/recommnd", "/v2/recommend"])
def test_a_path_that_is_none_is_not_found(server: Server, path: str) -> None:
    answer = server.client.post(path, json={})
    assert (answer.status_code, path in answer.json()["found"]) == (404, True)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused_before_it_is_read(server: Server, chunked: bool) -> None:
    body = json.dumps({"seen": ["item"] * 100_000}).encode()
    content: Any = (body[start : start + 65_536] for start in range(0, len(body), 65_536)) if chunked else body
    answer = server.client.post("/v1/recommend", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, "--max-body-mb" in answer.json()["hint"]) == (413, True)
    assert post(server, "recommend", '{"user_id": "u1"}')[0] == 200


class Waiting(EchoEngine):
    """An engine that answers when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Semaphore(0), threading.Event()

    def run(self, batch: Any) -> Any:
        self.begun.release()
        self.go.wait(30)
        return super().run(batch)


def test_probes_answer_while_every_worker_ranks_and_more_requests_are_refused() -> None:
    metrics, engine = Metrics(), Waiting()
    manager = ModelManager(metrics, precision="fp32", provider="cpu", threads=1)
    manager.use(engine)
    features = FeatureLookup(None, metrics, item_ids=lambda: manager.item_ids)
    app = create_app(manager, features, metrics, RequestLimits(max_pending=60))
    with TestClient(app) as client, ThreadPoolExecutor(70) as pool:
        pending = [pool.submit(client.post, "/v1/recommend", json={}) for _ in range(60)]
        for _ in range(BatchSettings().workers):  # all of the threads that rank
            assert engine.begun.acquire(timeout=30)
        try:
            for path in ("/livez", "/readyz", "/metrics", "/v1/model"):
                assert client.get(path).status_code == 200
            refused = client.post("/v1/recommend", json={})
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        finally:
            engine.go.set()
        assert {each.result(timeout=30).status_code for each in pending} == {200}
        assert client.post("/v1/recommend", json={}).status_code == 200


@pytest.mark.integration
def test_an_error_that_nobody_foresaw_keeps_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, engine = Metrics(), EchoEngine()
    manager = ModelManager(metrics, precision="fp32", provider="cpu", threads=1)
    manager.use(engine)
    features = FeatureLookup(None, metrics, item_ids=lambda: manager.item_ids)
    monkeypatch.setattr(engine, "run", lambda batch: 1 / 0)
    with TestClient(create_app(manager, features, metrics)) as client:
        answer = client.post("/v1/recommend", json={}, headers={"X-Request-Id": "mine"})
        assert (answer.status_code, answer.headers["X-Request-Id"]) == (500, "mine")
        assert client.get("/livez").status_code == 200
