"""The short way around FastAPI gives what the long way gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import BaseModel

from rankline.model.bundle import Bundle
from serving.api.app import create_app
from serving.api.fast_path import ROUTES
from serving.api.middleware import RequestLimits
from serving.api.schemas import ItemsResponse, RankResponse, RecommendResponse
from serving.engine import BundleEngine
from serving.features.lookup import FeatureLookup
from serving.metrics import Metrics
from serving.model_manager import ModelManager

HISTORY = {"item_ids": ["i1", "i2", "never"], "times": [1.0, 2.0, 3.0], "ratings": [4.0, 5.0, 0.0]}
REQUESTS: list[tuple[str, dict[str, Any], type[BaseModel]]] = [
    ("recommend", {"k": 5, "at": 7.0}, RecommendResponse),
    ("recommend", {"user_id": "u1", "history": HISTORY, "at": 7.0}, RecommendResponse),
    ("recommend", {"frozen": {"at": 7.0, "history": HISTORY}, "exclude_seen": False}, RecommendResponse),
    ("search", {"query": "the space ship", "k": 3, "at": 7.0}, RecommendResponse),
    ("search", {"turns": ["love", "a house"], "user_id": "ü", "at": 7.0}, RecommendResponse),
    ("rank", {"candidates": ["i3", "i4", "never"], "query": "night", "at": 7.0}, RankResponse),
    ("similar", {"item_id": "i4", "k": 4}, ItemsResponse),
]


@pytest.fixture(scope="module")
def client(bundle: Bundle) -> Iterator[TestClient]:
    metrics = Metrics()
    manager = ModelManager(metrics, precision="fp32", provider="cpu", threads=1)
    manager.use(BundleEngine.load(bundle, precision="fp32", provider="cpu", threads=1))
    features = FeatureLookup(None, metrics, item_ids=lambda: manager.item_ids)
    with TestClient(create_app(manager, features, metrics, RequestLimits(max_body_bytes=4000))) as client:
        yield client


def both(client: TestClient, route: str, body: bytes) -> list[tuple[int, dict[str, Any]]]:
    """The responses of the short and of the long way, which a parameter of the content type makes a request take."""
    answers = []
    for kind in ("application/json", "application/json; charset=utf-8"):
        headers = {"Content-Type": kind, "X-Request-Id": "mine"}
        response = client.post(f"/v1/{route}", content=body, headers=headers)
        assert response.headers["X-Request-Id"] == "mine"
        answers.append((response.status_code, response.json()))
    return answers


@pytest.mark.parametrize(("route", "body", "model"), REQUESTS)
def test_both_ways_give_the_same_answer_and_it_is_the_declared_one(
    client: TestClient, route: str, body: dict[str, Any], model: type[BaseModel]
) -> None:
    short, long = both(client, route, json.dumps(body).encode())
    assert short == long
    status, answer = short
    assert status == 200
    assert answer["items"]
    assert set(answer) == set(model.model_fields) - ({"hidden"} if route == "similar" else set())
    assert model.model_validate(answer).model_dump() == answer


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("recommend", b'{"k": 0}'),
        ("recommend", b'{"unknown": 1}'),
        ("recommend", b'{"user_id": "\\ud800"}'),
        ("recommend", b'{"at": NaN}'),
        ("recommend", b"{"),
        ("recommend", b""),
        ("recommend", b"[]"),
        ("recommend", b'{"user_id": "caf\xe9"}'),
        ("recommend", b'{"context": {"device": "phone"}}'),
        ("search", b"{}"),
        ("rank", b'{"candidates": ["never"]}'),
        ("similar", b'{"item_id": "never"}'),
        ("recommend", b'{"seen": ["' + b"x" * 4001 + b'"]}'),
    ],
)
def test_both_ways_refuse_with_the_same_words(client: TestClient, route: str, body: bytes) -> None:
    short, long = both(client, route, body)
    assert short == long
    assert short[0] in (400, 404, 413, 422)
    assert short[1]["error"]


def test_every_route_of_the_short_way_is_one_of_the_long_way(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path, route in ROUTES.items():
        schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["$ref"].endswith(f"/{route.body.__name__}")
    text = client.get("/metrics").text
    assert 'rankline_requests_total{route="/v1/recommend",status="200"}' in text
