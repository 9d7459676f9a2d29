"""Declared fields of users and of requests in featurize: the same offline and online, and nothing where none is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from components.featurize import split
from components.featurize.config import FeaturizeConfig
from components.featurize.step import featurize
from components.ingest.step import ingest
from components.promote.online import materialize_online
from feature_repo.store import open_store
from rankline.errors import UsageError
from rankline.evaluation.snapshot_requests import read_snapshot_requests
from rankline.features import transforms
from rankline.features.profile import ProfileFields
from rankline.model.scoring import context_features
from serving.features.online_store import FeastLibrary, FeatureSource
from tests.components import asked_world
from tests.components.context_world import World, featurize_config, ingest_config, write_shop

DECLARED: dict[str, Any] = {"user_features": ("gender", "age", "about"), "context_features": ("device", "holiday")}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ingest's tables of a small shop."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder / "shop", World("gender", users=60))
    ingest(folder / "raw", config=ingest_config(folder / "shop"))
    return folder / "raw"


@pytest.fixture(scope="module")
def features(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its features, with fields of users and of requests."""
    folder = tmp_path_factory.mktemp("declared") / "features"
    featurize(raw, folder, config=featurize_config(**DECLARED, min_requests=1))
    return folder


def rows(folder: Path, table: str) -> list[dict[str, Any]]:
    table_rows: list[dict[str, Any]] = parquet.read_table(folder / f"{table}.parquet").to_pylist()
    assert table_rows
    return table_rows


@pytest.mark.integration
def test_requests_carry_what_is_known_of_their_user_and_their_event(raw: Path, features: Path) -> None:
    users = {row["user_id"]: row for row in rows(raw, "users")}
    events = {(row["user_id"], row["event_timestamp"].timestamp()): row for row in rows(raw, "events")}
    for request in rows(features, "requests"):
        user, event = users[request["user_id"]], events[request["user_id"], request["at"]]
        assert {name: request[f"profile_{name}"] for name in DECLARED["user_features"]} == {
            name: user[name] for name in DECLARED["user_features"]
        }
        assert (request["context_device"], request["context_holiday"]) == (event["device"], event["holiday"])
        assert request["time_zone"] == user["time_zone"]


def test_users_without_a_history_are_in_every_split(features: Path) -> None:
    empty = [row for row in rows(features, "requests") if not row["history_items"]]
    assert {row["split"] for row in empty} == {"train", "valid", "test"}
    first = {row["user_id"] for row in empty if row["split"] == "train"}
    assert first == {row["user_id"] for row in rows(features, "requests") if row["split"] == "train"}


def test_hours_are_those_of_the_users_clock(features: Path) -> None:
    hours = set()
    for row in rows(features, "requests"):
        offset = {"Asia/Tokyo": 9, "America/New_York": -5}[row["time_zone"]]
        at = datetime.fromtimestamp(row["at"] + 3600 * offset, UTC)
        fraction = (at.hour * 3600 + at.minute * 60 + at.second) / 86_400
        assert row["ctx_hour_sin"] == pytest.approx(np.sin(2 * np.pi * fraction), abs=1e-6)
        assert row["ctx_weekend"] == float(at.weekday() >= 5)
        hours.add(offset)
    assert len(hours) == 2


@pytest.fixture(scope="module")
def online_folder(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real SQLite store that a promotion writes."""
    folder = tmp_path_factory.mktemp("online") / json.loads((features / "summary.json").read_text())["service"]
    assert materialize_online(features, folder)["moved"]
    return folder


@pytest.fixture(scope="module")
def online(features: Path, online_folder: Path) -> FeatureSource:
    """The store as the server reads it after a switch to this service."""
    summary = json.loads((features / "summary.json").read_text())
    source = FeastLibrary(online_folder.with_name(transforms.SERVICE)).for_fields(ProfileFields(**summary["profile"]))
    source.open()
    return source


def test_online_equals_offline(features: Path, online_folder: Path, online: FeatureSource) -> None:
    compared, store = 0, open_store(online_folder)
    for request in read_snapshot_requests(features, "test"):
        user = online.user_state(request.user_id or "", request.state.at)
        for name, value in request.state.profile.items():
            assert user.profile[name] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value)
            compared += 1
        assert set(user.profile) == set(request.state.profile)
        assert user.time_zone == request.state.time_zone
        # the request: Feast's on-demand views give what the server computes of the request
        state = request.state
        given = {"request_time": state.at, "last_event_time": (state.history.times or [0.0])[-1]}
        given |= {"history_length": float(len(state.history.item_ids)), "time_zone": state.time_zone}
        given |= {f"given_{name}": value for name, value in state.context.items()}
        answer = store.get_online_features(
            [*(f"request_context:{name}" for name in transforms.CONTEXT), "request_fields:context_device"],
            [{"user_id": request.user_id, "given_holiday": 0.0, **given}],
        ).to_dict()
        assert answer["context_device"] == [state.context["device"]]
        served = context_features(state)
        assert [answer[name][0] for name in served] == pytest.approx(list(served.values()), abs=1e-6)
    assert compared > 10


def test_a_user_that_nobody_knows_has_no_profile(online: FeatureSource) -> None:
    stranger = online.user_state("nobody", 2e9)
    assert (stranger.known, dict(stranger.profile), stranger.time_zone) == (False, {}, "")


def test_feast_itself_joins_the_same(raw: Path, features: Path, tmp_path: Path) -> None:
    featurize(raw, tmp_path / "slow", config=featurize_config(**DECLARED, min_requests=1, join="feast"))
    for fast, slow in zip(rows(features, "requests"), rows(tmp_path / "slow", "requests"), strict=True):
        assert list(fast) == list(slow)
        for name, value in fast.items():
            assert slow[name] == (pytest.approx(value) if isinstance(value, float) else value), name


def test_without_declared_features_there_is_no_trace_of_them(raw: Path, tmp_path: Path) -> None:
    """The attributes of users are in the source, as those of MovieLens, and nobody named them as features."""
    plain = tmp_path / "raw"
    plain.mkdir()
    for name in ("events", "users", "items"):
        parquet.write_table(parquet.read_table(raw / f"{name}.parquet"), plain / f"{name}.parquet")
    summary = json.loads((raw / "summary.json").read_text())
    (plain / "summary.json").write_text(json.dumps({k: v for k, v in summary.items() if k != "time_zones"}))
    featurize(plain, tmp_path / "features", config=featurize_config(min_requests=1))
    written = json.loads((tmp_path / "features" / "summary.json").read_text())
    assert (written["service"], "profile" in written) == (transforms.SERVICE, False)
    columns = parquet.read_schema(tmp_path / "features" / "requests.parquet").names
    assert not [name for name in columns if name.startswith(("profile_", "context_", "given_", "time_zone"))]
    sources = {path.name for path in (tmp_path / "features" / "feast" / "sources").iterdir()}
    assert not sources & {"user_profile.parquet", "declared.json"}


@pytest.mark.parametrize(
    ("setting", "names", "actual"),
    [
        ("user_features", ("colour",), "no such column"),
        ("context_features", ("gender",), "no such column"),
        ("context_features", ("known_at",), "timestamp"),
    ],
)
def test_what_cannot_be_a_feature_is_refused(
    raw: Path, tmp_path: Path, setting: str, names: tuple[str, ...], actual: str
) -> None:
    with pytest.raises(UsageError) as refused:
        featurize(raw, tmp_path / "features", config=featurize_config(**{setting: names}))
    assert actual in refused.value.found
    assert setting in refused.value.message


def test_unknown_values_stay_unknown(raw: Path, tmp_path: Path) -> None:
    """A user without a row or a value, an event without a device."""
    partial = tmp_path / "raw"
    partial.mkdir()
    for name in ("events", "users", "items"):
        table = parquet.read_table(raw / f"{name}.parquet")
        for column in ("gender", "age", "device", "holiday", "time_zone"):
            if column in table.column_names:
                place = table.column_names.index(column)
                values = [value if row % 2 else None for row, value in enumerate(table[column].to_pylist())]
                table = table.set_column(place, column, pa.array(values, table.schema.field(column).type))
        parquet.write_table(table, partial / f"{name}.parquet")
    (partial / "summary.json").write_text((raw / "summary.json").read_text())
    featurize(partial, tmp_path / "features", config=featurize_config(**DECLARED, min_requests=1))
    states = [request.state for request in read_snapshot_requests(tmp_path / "features", "train")]
    for name in ("gender", "age"):
        assert {name in state.profile for state in states} == {True, False}
    for name in ("device", "holiday"):
        assert {name in state.context for state in states} == {True, False}
    assert {state.time_zone == "" for state in states} == {True, False}


def test_new_users_are_held_out_where_the_last_event_of_others_is() -> None:
    """Twenty users of one event, five of two, and one of four."""
    users = np.concatenate([np.arange(20), np.repeat(np.arange(20, 25), 2), [25] * 4])
    times = np.arange(len(users)) * 1_000_000
    log = split.Log.of(users=users, items=np.arange(len(users)), time_us=times, known_us=times)
    divided = split.leave_last_out(log, min_history=0, per_user=1)
    requests = divided.requests
    held_out = {}
    for code in (split.VALID, split.TEST):
        chosen = requests.split == code
        held_out[code] = set(log.users[requests.position[chosen]]) - {25}
        empty = requests.seen.lengths[chosen & (log.users[requests.position] != 25)]
        assert (len(held_out[code]), empty.tolist()) == (2 if code == split.TEST else 3, [0] * len(held_out[code]))
    assert not set(log.users[divided.train]) & (held_out[split.VALID] | held_out[split.TEST])
    # each of the others shows in training what it chose without a history, and one later choice
    train = requests.position[requests.split == split.TRAIN]
    starts = train[requests.seen.lengths[requests.split == split.TRAIN] == 0]
    assert set(log.users[starts]) == set(range(26)) - held_out[split.VALID] - held_out[split.TEST]
    assert split.leave_last_out(log, min_history=1, per_user=1).requests.split.tolist().count(split.TEST) == 1


def test_queries_without_a_user_have_the_context_of_their_first_event(tmp_path: Path) -> None:
    device = pa.field("device", pa.string())
    answered = [{**event, "device": ("phone", None)[n % 2]} for n, event in enumerate(asked_world.events())]
    clean = asked_world.write_asked(tmp_path / "clean", answered=answered, columns=(device,))
    featurize(clean, tmp_path / "features", config=FeaturizeConfig(context_features=("device",), min_requests=1))
    devices = {row["query_id"]: row["context_device"] for row in rows(tmp_path / "features", "requests")}
    assert devices == {event["query_id"]: event["device"] or "" for event in answered}
