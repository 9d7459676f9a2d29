"""Routes on the echo engine: response fields, errors and metrics, without a model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from serving import openapi
from serving.api.app import create_app
from serving.features.lookup import FeatureLookup
from serving.metrics import Metrics
from serving.model_manager import ModelManager
from tests.serving.echo import EchoEngine


@pytest.fixture
def manager() -> ModelManager:
    return ModelManager(Metrics(), precision="fp32", provider="cpu", threads=1)


@pytest.fixture
def client(manager: ModelManager) -> Iterator[TestClient]:
    metrics = Metrics()
    features = FeatureLookup(None, metrics, item_ids=lambda: manager.item_ids)
    with TestClient(create_app(manager, features, metrics), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def echo(manager: ModelManager) -> EchoEngine:
    engine = EchoEngine()
    manager.use(engine)
    return engine


def test_no_champion_yet_is_live_but_not_ready(client: TestClient) -> None:
    assert client.get("/livez").status_code == 200
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    asked = client.post("/v1/recommend", json={})
    assert asked.status_code == 503
    assert "champion" in asked.json()["expected"]


@pytest.mark.usefixtures("echo")
def test_answers_carry_ids(client: TestClient) -> None:
    answer = client.post("/v1/recommend", json={"k": 3, "seen": ["echo-0"]}, headers={"X-Request-Id": "mine"})
    reply = answer.json()
    assert [item["item_id"] for item in reply["items"]] == ["echo-1", "echo-2", "echo-3"]
    assert (reply["model_id"], reply["revision"], reply["request_id"]) == ("echo", "echo", "mine")
    assert answer.headers["X-Request-Id"] == "mine"
    for path, body in (("rank", {"candidates": ["b", "a"]}), ("similar", {"item_id": "echo-1"})):
        reply = client.post(f"/v1/{path}", json=body).json()
        assert reply["model_id"] == "echo"
        assert len(reply["request_id"]) == 32
    assert client.get("/v1/model").json()["items"] == 20


@pytest.mark.usefixtures("echo")
def test_hidden_candidates_are_reported(client: TestClient, manager: ModelManager) -> None:
    manager.hide(["echo-0", "b"])
    assert client.post("/v1/recommend", json={"k": 2}).json()["items"][0]["item_id"] == "echo-1"
    ranked = client.post("/v1/rank", json={"candidates": ["b", "a"]}).json()
    assert ([item["item_id"] for item in ranked["items"]], ranked["hidden"]) == (["a"], ["b"])
    manager.use(EchoEngine())
    assert client.post("/v1/rank", json={"candidates": ["b", "a"]}).json()["hidden"] == ["b"], "the next engine, too"
    assert client.get("/v1/model").json()["hidden"] == ["echo-0", "b"]
    assert client.get("/readyz").json()["hidden"] == 2


@pytest.mark.usefixtures("echo")
def test_seen_items_default_to_the_history(client: TestClient) -> None:
    def first(**asked: object) -> str:
        return str(client.post("/v1/recommend", json=asked).json()["items"][0]["item_id"])

    history = {"item_ids": ["echo-0", "echo-1"]}
    assert first(history=history) == "echo-2"
    assert first(history=history, seen=[]) == "echo-0"
    assert first(history=history, exclude_seen=False) == "echo-0"
    assert first(frozen={"at": 1.0, "history": history}) == "echo-0"
    assert first(frozen={"at": 1.0, "seen": ["echo-0"]}) == "echo-1"


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    ("path", "body", "status", "fragment"),
    [
        ("recommend", {"k": 0}, 422, "k"),
        ("recommend", {"users": "u"}, 422, "users"),
        ("recommend", {"frozen": {"at": 1.0}, "at": 2.0}, 422, "frozen state already contains at"),
        ("recommend", {"history": {"item_ids": ["a"], "times": [1, 2]}}, 422, "must have the same length"),
        ("recommend", {"frozen": {"at": 1, "history": {"ratings": [1]}}}, 422, "must have the same length"),
        ("rank", {"candidates": []}, 422, "candidates"),
        ("similar", {"item_id": "nobody"}, 404, "nobody"),
        ("nothing", {}, 404, "/v1/nothing"),
    ],
)
def test_errors_have_every_field(
    client: TestClient, path: str, body: dict[str, object], status: int, fragment: str
) -> None:
    answer = client.post(f"/v1/{path}", json=body)
    assert answer.status_code == status
    fields = answer.json()
    assert set(fields) == {"error", "expected", "found", "hint", "request_id"}
    assert fragment in " ".join(fields.values())
    assert fields["request_id"]


def test_an_unexpected_error_is_reported_and_counted(
    client: TestClient, echo: EchoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echo, "run", lambda batch: 1 / 0)
    answer = client.post("/v1/recommend", json={})
    assert answer.status_code == 500
    assert "ZeroDivisionError" in answer.json()["error"]
    assert 'rankline_requests_total{route="/v1/recommend",status="500"} 1.0' in client.get("/metrics").text


@pytest.mark.usefixtures("echo")
def test_requests_are_counted_by_route_and_status(client: TestClient) -> None:
    for body in ({}, {}, {"k": 0}):
        client.post("/v1/recommend", json=body)
    client.get("/somewhere/else")
    text = client.get("/metrics").text
    for line in (
        'rankline_requests_total{route="/v1/recommend",status="200"} 2.0',
        'rankline_requests_total{route="/v1/recommend",status="422"} 1.0',
        'rankline_requests_total{route="other",status="404"} 1.0',
        'rankline_request_seconds_count{route="/v1/recommend"} 3.0',
        'rankline_degraded_total{part="features"} 2.0',
    ):
        assert line in text


def test_the_interface_in_the_tree_is_the_one_served() -> None:
    assert openapi.FILE.read_text() == openapi.document(), "renew it with `python -m serving.openapi`"
