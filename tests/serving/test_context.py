"""What a request says of the request, and what the store knows of its user, by a real server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankline.features.profile import ProfileEncoder, ProfileFields
from rankline.model.bundle import Bundle, open_bundle
from serving.features.online_store import FeastLibrary, FeastServer
from tests.serving.conftest import Server, running
from tests.serving.tiny_bundle import make_bundle, publish
from tests.serving.tiny_store import feature_server, make_store

FIELDS = ProfileFields(
    user={"gender": "choice", "about": "text"}, context={"device": "choice", "holiday": "number"}, time_zone=True
)
ENCODER = ProfileEncoder.fit(
    FIELDS,
    [
        {"profile_gender": "f", "context_device": "phone", "context_holiday": 0.0},
        {"profile_gender": "m", "context_device": "desktop", "context_holiday": 1.0},
    ],
)
PLACES = ENCODER.input_names(ENCODER.size)  # place n adds the vector of item n


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that reads these fields."""
    return make_bundle(tmp_path_factory.mktemp("declared"), profile=ENCODER)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The online store of the fields' service, in a folder of its name beside that of a service without fields."""
    folder = tmp_path_factory.mktemp("online")
    profile = {"gender": "m", "about": None, "time_zone": "Asia/Tokyo"}
    make_store(folder / FIELDS.service, popular={"i1": 1.0}, fields=FIELDS, profile=profile)
    make_store(folder / "ranking_v1", popular={"i1": 1.0})
    return folder


@pytest.fixture(scope="module")
def server(declared: Bundle, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose --features names the other service's store."""
    arguments = ("--bundle", str(declared.folder), "--features", str(store / "ranking_v1"))
    with running(tmp_path_factory.mktemp("server"), *arguments) as server:
        server.until("/readyz", lambda answer: answer.json()["features"]["state"] == "ready")
        yield server


def ask(server: Server, **body: Any) -> dict[str, Any]:
    answer = server.client.post("/v1/recommend", json={"k": 40, "exclude_seen": False, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def scores(server: Server, **body: Any) -> dict[str, float]:
    """Item -> its score among all items."""
    items = [f"i{n}" for n in range(40)]
    answer = server.client.post("/v1/rank", json={"candidates": items, **body})
    assert answer.status_code == 200, answer.text
    return {item["item_id"]: item["score"] for item in answer.json()["items"]}


def lifted(server: Server, body: dict[str, Any], without: dict[str, Any]) -> str:
    """The item that gains most from what ``body`` has and ``without`` has not."""
    given, before = scores(server, **body), scores(server, **without)
    return max(given, key=lambda item: given[item] - before[item])


@pytest.mark.integration
def test_the_store_beside_the_named_one_is_read(server: Server) -> None:
    assert server.client.get("/readyz").json()["features"]["service"] == FIELDS.service


def test_the_model_says_what_a_request_may_say(server: Server) -> None:
    context = server.client.get("/v1/model").json()["context"]
    assert context == {"device": "choice", "holiday": "number", "time_zone": "zone"}


@pytest.mark.parametrize(("device", "place"), [("phone", "phone"), ("desktop", "desktop"), ("watch", "")])
def test_the_context_of_a_request_counts(server: Server, device: str, place: str) -> None:
    name = f"context.device={place}" if place else "context.device is another"
    assert lifted(server, {"context": {"device": device}}, {}) == f"i{PLACES.index(name)}"


def test_the_profile_of_a_user_is_read_from_the_store(server: Server) -> None:
    """A user without a history in the request: what remains is the profile."""
    empty: dict[str, Any] = {"history": {"item_ids": []}}
    assert lifted(server, {"user_id": "u1", **empty}, empty) == f"i{PLACES.index('profile.gender=m')}"


def test_anything_may_be_left_out(server: Server) -> None:
    nothing = scores(server, at=1e9)
    assert scores(server, at=1e9, context={}) == scores(server, at=1e9, context={"device": None}) == nothing
    assert ask(server)["items"]
    assert scores(server, at=1e9, context={"holiday": True}) != nothing


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gender", "gender is an attribute of users"), ("about", "online store"), ("colour", "context_features")],
)
def test_an_attribute_of_users_is_none_of_the_moment(server: Server, name: str, hint: str) -> None:
    answer = server.client.post("/v1/recommend", json={"context": {name: "f"}})
    assert hint in answer.json()["hint"]


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({"colour": "red"}, "device (a text), holiday (a number), time_zone"),
        ({"gender": "f"}, "device (a text)"),
        ({"Device": "phone"}, "device (a text)"),
        ({"holiday": "yes"}, "a number"),
        ({"holiday": [1]}, "a number"),
        ({"holiday": 10**400}, "a number"),
        ({"device": ["phone"]}, "a text"),
        ({"device": 1.5}, "a text"),
        ({"time_zone": "Berlin"}, "a time zone"),
        ({"time_zone": 1}, "a time zone"),
    ],
)
def test_what_the_model_does_not_read_is_refused(server: Server, context: dict[str, Any], expected: str) -> None:
    answer = server.client.post("/v1/recommend", json={"context": context})
    assert answer.status_code == 422
    assert expected in answer.json()["expected"]


@pytest.mark.integration
def test_a_model_without_declared_fields_refuses_any(bundle: Bundle, tmp_path: Path) -> None:
    with running(tmp_path, "--bundle", str(bundle.folder)) as server:
        answer = server.client.post("/v1/recommend", json={"context": {"device": "phone"}})
        assert (answer.status_code, answer.json()["found"]) == (422, "device")
        assert ask(server, at=1e9, context={})["items"] == ask(server, at=1e9)["items"]


def test_hours_follow_the_users_clock(server: Server) -> None:
    """At 15:00 UTC it is midnight in Tokyo, where the store says that u1 lives, and the request may say otherwise."""
    at = 1_704_466_800.0  # a Friday
    history: dict[str, Any] = {"history": {"item_ids": []}, "at": at}
    stored = scores(server, user_id="u1", **history)
    assert scores(server, user_id="u1", context={"time_zone": "Asia/Tokyo"}, **history) == stored
    assert scores(server, user_id="u1", context={"time_zone": "UTC"}, **history) != stored


def test_a_frozen_request_brings_its_own(server: Server) -> None:
    at = time.time()
    frozen = {"at": at, "profile": {"gender": "f"}, "context": {"device": "phone"}}
    bare = {"frozen": {"at": at, "profile": {"gender": "f"}}}
    assert lifted(server, {"frozen": frozen}, bare) == f"i{PLACES.index('context.device=phone')}"
    answer = server.client.post("/v1/recommend", json={"frozen": frozen, "context": {"device": "phone"}})
    assert answer.status_code == 422


def test_texts_of_users_are_read_by_the_text_tower(server: Server) -> None:
    at = time.time()
    about = scores(server, frozen={"at": at, "profile": {"about": "space ship"}})
    assert about != scores(server, frozen={"at": at})
    assert about != scores(server, frozen={"at": at, "profile": {"about": "love story"}})


def test_feasts_own_feature_server_gives_the_same_profile(store: Path) -> None:
    """It returns a service as a whole, so it is asked with placeholders for the context."""
    library = FeastLibrary(store / "ranking_v1").for_fields(FIELDS)
    library.open()
    with feature_server(store / FIELDS.service) as url:
        server = FeastServer(url).for_fields(FIELDS)
        server.open()
        for source in (library, server):
            user = source.user_state("u1", 2e9)
            assert (dict(user.profile), user.time_zone, user.known) == ({"gender": "m"}, "Asia/Tokyo", True)
        assert server.item_features(["i1", "i2"])["item_id"] == library.item_features(["i1", "i2"])["item_id"] == ["i1"]


@pytest.mark.integration
def test_a_new_champion_brings_its_own_store(declared: Bundle, bundle: Bundle, store: Path, tmp_path: Path) -> None:
    """The server follows the champion from a service without fields to one with them."""
    publish(tmp_path / "repository", open_bundle(bundle.folder))
    arguments = ("--repository", str(tmp_path / "repository"), "--features", str(store / "ranking_v1"))
    with running(tmp_path, *arguments, "--poll-s", "0.1") as server:
        ready = lambda answer: answer.json()["features"]["state"] == "ready"  # noqa: E731
        assert server.until("/readyz", ready).json()["features"]["service"] == "ranking_v1"
        publish(tmp_path / "repository", declared)
        server.until("/readyz", lambda answer: answer.json()["features"]["service"] == FIELDS.service)
        assert server.client.post("/v1/recommend", json={"context": {"device": "phone"}}).status_code == 200


@pytest.mark.integration
@pytest.mark.parametrize("at", [1e12, -1.0, 253_402_300_799])
def test_a_time_that_no_clock_shows_is_refused(server: Server, at: float) -> None:
    reply = server.client.post("/v1/recommend", json={"context": {"time_zone": "Europe/Berlin"}, "at": at})
    assert reply.status_code == 422
    assert "at" in reply.text
