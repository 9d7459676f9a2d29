"""Feature stores: historical and online features agree, and rows known later are not online."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import feature_repo
from components.featurize import snapshots
from components.featurize.feature_refs import ITEM_FEATURE_REFS, USER_FEATURE_REFS
from components.featurize.join import historical_features
from feature_repo.definitions import definitions
from feature_repo.materialize import materialize
from feature_repo.sources import PUSH_SOURCE
from feature_repo.store import apply, open_store, working_directory
from feature_repo.views import REQUEST_FIELDS
from rankline.contracts import UTC_TIMESTAMP as MICROSECONDS
from rankline.contracts import FrozenState
from rankline.contracts import History as FrozenHistory
from rankline.errors import SourceError
from rankline.features import transforms as names
from rankline.model.scoring import context_features
from rankline.runtime.progress import Progress
from tests.components.clean_world import BEGIN, DAY, random_events, write_clean

HISTORY_REFS = [f"user_history:{name}" for name in ("history_items", "history_times", "history_ratings", "seen_items")]
USERS = [*(f"u{n}" for n in range(24)), "stranger"]
ITEMS = [*(f"i{n}" for n in range(30)), "nothing"]


def when(day: float) -> datetime:
    return datetime.fromtimestamp(BEGIN + day * DAY, UTC)


UNTIL = when(40.3)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources that featurize computes, with a row of each kind that became known after UNTIL."""
    folder = tmp_path_factory.mktemp("sources")
    clean = write_clean(folder / "clean", random_events())
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        snapshots.load_tables(db, clean)
        snapshots.write(db, folder / "sources", max_history=5, affinity_categories=3)
    for view, key, entity in (("user_activity", "user_id", "u0"), ("item_popularity", "item_id", "i0")):
        path = folder / "sources" / f"{view}.parquet"
        table = parquet.read_table(path)
        row = dict.fromkeys(table.column_names, 999.0) | {
            key: entity,
            "event_timestamp": when(40.2),
            "known_at": when(41),
        }
        parquet.write_table(pa.concat_tables([table, pa.Table.from_pylist([row], table.schema)]), path)
    return folder / "sources"


@pytest.fixture(scope="module")
def folder(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An online store materialized up to UNTIL."""
    folder = tmp_path_factory.mktemp("online") / "ranking_v1"
    apply(folder, project="champion", sources=sources)
    watermark = materialize(folder, until=UNTIL)
    assert json.loads((folder / "watermark.json").read_text()) == watermark
    assert watermark["until"] == UNTIL.isoformat()
    assert watermark["entities"]["item_content"] == 30
    return folder


def then(folder: Path, entities: dict[str, Any], refs: list[str], *, at: datetime = UNTIL) -> dict[str, list]:
    """Historical features at a time."""
    rows = len(next(iter(entities.values())))
    table = pa.table({**entities, "event_timestamp": pa.array([at] * rows).cast(MICROSECONDS)})
    with working_directory(folder):
        return historical_features(open_store(folder), table, refs, chunk=100, progress=Progress()).to_pydict()


def now(folder: Path, entities: dict[str, Any], refs: Any) -> dict[str, list]:
    """Online features."""
    rows = [dict(zip(entities, values)) for values in zip(*entities.values())]
    return open_store(folder).get_online_features(features=refs, entity_rows=rows).to_dict()


def test_the_online_rows_are_those_of_that_time(folder: Path) -> None:
    inputs = {name: np.linspace(0, 1e9, len(USERS)).tolist() for name in REQUEST_FIELDS}
    for entities, refs in (
        ({"user_id": USERS, **inputs}, list(USER_FEATURE_REFS)),
        ({"item_id": ITEMS}, list(ITEM_FEATURE_REFS)),
        ({"user_id": USERS}, HISTORY_REFS),
    ):
        past, online = then(folder, entities, refs), now(folder, entities, refs)
        assert {name: online[name] for name in past} == past
        first = [column[-2] for column in past.values()]
        assert all(value is not None for value in first)  # of u23 and i29
        assert [past[name][-1] for name in past if not name.startswith("ctx_")] == [None] * sum(
            not name.startswith("ctx_") for name in past
        )  # an unknown entity has no features


def test_a_history_is_what_was_known_after_a_days_last_event(sources: Path) -> None:
    events, late = random_events(), 0
    for row in parquet.read_table(sources / "user_history.parquet").to_pylist():
        at = row["event_timestamp"].timestamp()
        happened = [e for e in events if e.user == row["user_id"] and e.at <= at]
        there = [e for e in happened if (e.known or e.at) <= at]
        late += len(there) < len(happened)
        assert row["seen_items"] == [e.item for e in there]
        assert row["history_items"] == [e.item for e in there][-5:]
        assert row["history_times"] == [e.at for e in there][-5:]
        assert row["history_ratings"] == [e.rating for e in there][-5:]
        assert at in {e.known or e.at for e in there}
    assert late > 5


def test_the_services_hold_what_the_scorer_reads(folder: Path) -> None:
    store = open_store(folder)
    entities = {"user_id": ["u1"], "item_id": ["i1"], **{name: [1.0] for name in REQUEST_FIELDS}}
    ranking = now(folder, entities, store.get_feature_service(names.SERVICE))
    assert {*names.USER, *names.ITEM, *names.CONTEXT, "affinity_categories", "affinity_shares"} == {*ranking} - {
        "user_id",
        "item_id",
    }
    history = now(folder, {"user_id": ["u1"]}, store.get_feature_service(names.HISTORY_SERVICE))
    assert {*history} == {"user_id", "history_items", "history_times", "history_ratings", "seen_items"}
    assert 0 < len(history["history_items"][0]) <= 5
    assert len(history["seen_items"][0]) >= len(history["history_items"][0])


def test_rows_known_later_are_not_online(folder: Path, sources: Path, tmp_path: Path) -> None:
    refs = ["user_activity:user_events_total"]
    assert now(folder, {"user_id": ["u0"]}, refs)["user_events_total"][0] < 100
    # Feast's own materialization writes it
    careless = tmp_path / "careless"
    apply(careless, project="careless", sources=sources)
    with working_directory(careless):
        open_store(careless).materialize(when(-1), UNTIL, feature_views=["user_activity"])
    assert now(careless, {"user_id": ["u0"]}, refs)["user_events_total"] == [999.0]


def test_later_rows_are_online_and_expired_ones_are_not(folder: Path, tmp_path: Path) -> None:
    later = Path(shutil.copytree(folder, tmp_path / "later"))
    materialize(later, until=when(41.5))
    refs = ["item_popularity:item_events_total"]
    at = {"at": when(41.5)}
    assert now(later, {"item_id": ITEMS}, refs) == {
        "item_id": ITEMS,
        **then(later, {"item_id": ITEMS}, refs, **at),
    }

    old = tmp_path / "old"
    source = Path(open_store(folder).get_feature_view("user_activity").batch_source.path).parent
    apply(old, project="old", sources=source)
    watermark = materialize(old, until=when(60 + 31 + 366))
    assert watermark["entities"] == {**dict.fromkeys(watermark["entities"], 0), "item_content": 30}


def test_a_pushed_event_is_there_at_once(folder: Path, tmp_path: Path) -> None:
    from feast.data_source import PushMode

    copy = Path(shutil.copytree(folder, tmp_path / "pushed"))
    before = now(copy, {"user_id": ["u1"]}, HISTORY_REFS)
    at = UNTIL + timedelta(minutes=1)
    pushed = {
        "user_id": "u1",
        "history_items": [*before["history_items"][0][1:], "i29"],
        "history_times": [*before["history_times"][0][1:], at.timestamp()],
        "history_ratings": [*before["history_ratings"][0][1:], 4.0],
        "seen_items": [*before["seen_items"][0], "i29"],
    }
    frame = pd.DataFrame([{**pushed, "event_timestamp": at, "known_at": at}])
    open_store(copy).push(PUSH_SOURCE, frame, to=PushMode.ONLINE)
    assert now(copy, {"user_id": ["u1"]}, HISTORY_REFS) == {name: [value] for name, value in pushed.items()}


def test_the_context_is_the_one_of_a_frozen_request(folder: Path) -> None:
    at, last = UNTIL.timestamp(), UNTIL.timestamp() - 7_000
    for history in (
        FrozenHistory(),
        FrozenHistory(item_ids=["a", "b"], times=[last - 9, last], ratings=[1, 2]),
    ):
        inputs = (at, history.times[-1] if history.times else 0.0, float(len(history.item_ids)))
        actual = now(
            folder,
            {name: [v] for name, v in zip(REQUEST_FIELDS, inputs)},
            [f"request_context:{n}" for n in names.CONTEXT],
        )
        assert {name: actual[name][0] for name in names.CONTEXT} == context_features(
            FrozenState(at=at, history=history)
        )


@pytest.mark.integration
def test_feasts_command_line_applies_every_definition(tmp_path: Path) -> None:
    copy = shutil.copytree(Path(feature_repo.__file__).parent, tmp_path / "feature_repo")
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from rankline.runtime.lazy_imports import import_feast; import_feast();"
            "from feast.cli.cli import cli; cli(['apply'])",
        ],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(Path(feature_repo.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    kinds = {
        "Entity": "entity",
        "FeatureView": "feature view",
        "OnDemandFeatureView": "on demand feature view",
        "FeatureService": "feature service",
    }
    assert len(definitions(tmp_path)) > len(kinds)
    for definition in definitions(tmp_path):
        assert f"Created {kinds[type(definition).__name__]} {definition.name}" in run.stdout


def test_a_half_written_registry_is_written_again(sources: Path, tmp_path: Path) -> None:
    apply(tmp_path, project="tests", sources=sources)
    registry = tmp_path / "registry.db"
    whole = registry.read_bytes()
    registry.write_bytes(whole[: len(whole) // 2])
    apply(tmp_path, project="tests", sources=sources)
    assert registry.read_bytes() == whole
    assert not list(tmp_path.glob(".*"))


def test_a_reader_of_a_registry_sees_a_complete_one(sources: Path, tmp_path: Path) -> None:
    apply(tmp_path, project="before", sources=sources)
    before = (tmp_path / "registry.db").read_bytes()
    with (tmp_path / "registry.db").open("rb") as held:
        apply(tmp_path, project="after", sources=sources)
        assert held.read() == before
    assert open_store(tmp_path).project == "after"


def test_a_missing_store_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no feature_store\.yaml"):
        open_store(tmp_path)
    with pytest.raises(ValueError, match="time zone"):
        materialize(tmp_path, until=datetime(2024, 1, 1))
