"""The fast join: Feast's values to the last row, whatever is late, tied, outlived or missing."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from components.featurize.asof import TIMESTAMP_COLUMN, View, is_ordered, join_views
from components.featurize.config import FeaturizeConfig
from components.featurize.feature_refs import ITEM_FEATURE_REFS, USER_FEATURE_REFS
from components.featurize.join import JoinSettings, PointInTimeJoin, historical_features
from components.featurize.step import featurize
from feature_repo.definitions import VIEWS
from feature_repo.store import apply, open_store, working_directory
from feature_repo.views import REQUEST_FIELDS
from rankline import contracts
from rankline.errors import IntegrityError, UsageError
from rankline.features import transforms
from rankline.io.sql import memory_database
from rankline.runtime.progress import Progress
from tests.components.clean_world import random_events, write_clean

DAY = timedelta(days=1)
ORIGIN = datetime(2022, 1, 1, tzinfo=UTC)
HISTORY_SIDE = [f"user_history:{name}" for name in ("history_items", "history_times", "seen_items")]
USERS, ITEMS = [f"u{n}" for n in range(6)], [f"i{n}" for n in range(6)]


def when(days: Sequence[float]) -> pa.Array:
    return pa.array([ORIGIN + DAY * float(day) for day in days]).cast(contracts.UTC_TIMESTAMP)


class World:
    """Random sources for every view: few keys and few moments, so that everything collides."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random = np.random.default_rng(seed)
        folder.mkdir(parents=True)
        self.folder = folder
        lists = {"affinity_categories": str, "affinity_shares": float, "history_items": str, "history_times": float}
        names = {
            "user_activity": transforms.USER,
            "user_category_affinity": ("affinity_categories", "affinity_shares"),
            "item_popularity": [name.split(":")[1] for name in ITEM_FEATURE_REFS if "popularity" in name.split(":")[0]],
            "item_content": [name.split(":")[1] for name in ITEM_FEATURE_REFS if "content" in name.split(":")[0]],
            "user_history": ("history_items", "history_times", "history_ratings", "seen_items"),
        }
        lists |= {"history_ratings": float, "seen_items": str}
        for view in VIEWS:
            key, ids = ("user_id", USERS[:5]) if view.startswith("user") else ("item_id", ITEMS[:5])
            at = random.integers(0, 900, 60)
            late = np.where(random.random(60) < 0.4, random.integers(0, 500, 60), 0)
            rows = {(str(k), int(a), int(a + d)) for k, a, d in zip(random.choice(ids, 60), at, late)}
            # the same moment once more, known later, and the same two moments turned round
            rows |= {(k, a, b + 30) for k, a, b in sorted(rows)[::4]} | {(k, max(a - 20, 0), b) for k, a, b in rows}
            self.rows = ordered = [sorted(rows)[n] for n in random.permutation(len(rows))]
            columns: dict[str, Any] = {
                key: [k for k, _, _ in ordered],
                "event_timestamp": when([a for _, a, _ in ordered]),
                "known_at": when([b for _, _, b in ordered]),
            }
            for name in names[view]:
                if name not in lists:
                    values = pa.array(random.normal(size=len(ordered)), mask=random.random(len(ordered)) < 0.2)
                elif lists[name] is str:
                    values = pa.array([[str(n)] * int(random.integers(0, 4)) for n in range(len(ordered))])
                else:
                    type_ = pa.list_(pa.float64() if name == "history_times" else pa.float32())
                    values = pa.array([random.normal(size=random.integers(0, 4)) for _ in ordered], type_)
                columns[name] = values
            parquet.write_table(pa.table(columns), folder / f"{view}.parquet")

    def asked(self, key: str, count: int) -> pa.Table:
        ids = [*USERS, *USERS[:2], "stranger"] if key == "user_id" else [*ITEMS, "nothing"]
        instants = self.random.integers(-10, 1_700, count).astype(float)  # on the very moments, and beyond the TTL
        instants[::3] += self.random.random(len(instants[::3])) - 0.5
        given = {name: self.random.random(count) * 1e9 for name in REQUEST_FIELDS} if key == "user_id" else {}
        return pa.table({key: self.random.choice(ids, count), TIMESTAMP_COLUMN: when(instants), **given})


def fast(store: Any, side: Sequence[str], spill: Path, *, rows: int, check_rows: int) -> PointInTimeJoin:
    settings = JoinSettings(method="fast", check_rows=check_rows, seed=1, memory_mb=256, spill=spill)
    return PointInTimeJoin(store, side, settings, rows=rows)


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(3))
def test_the_fast_join_gives_feasts_values(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path / "sources", seed)
    apply(tmp_path / "feast", project="world", sources=world.folder)
    store = open_store(tmp_path / "feast")
    known = outlived = 0
    with working_directory(tmp_path / "feast"):
        for key, side in (("user_id", USER_FEATURE_REFS), ("item_id", ITEM_FEATURE_REFS), ("user_id", HISTORY_SIDE)):
            requests = world.asked(key, 700)
            feasts = historical_features(store, requests, side, chunk=1_000, progress=Progress()).to_pydict()
            ours = fast(store, side, tmp_path, rows=700, check_rows=0).join(requests).to_pydict()
            assert list(ours) == list(feasts) == [name.split(":")[1] for name in side]
            for name in ours:
                assert ours[name] == feasts[name], name
            first = next(iter(feasts.values()))
            known += sum(value is not None for value in first)
            outlived += sum(
                value is None and instant.as_py() > ORIGIN + DAY * 1_400
                for value, instant in zip(first, requests[TIMESTAMP_COLUMN])
            )
    assert known > 300  # else there was nothing to agree about
    assert outlived > 20


def truth(rows: list[dict[str, Any]], asked: list[dict[str, Any]], view: View) -> list[Any]:
    """Word by word: the latest of those known by then, the later known of equals, unless it is outlived."""
    out = []
    for request in asked:
        present = [
            row
            for row in rows
            if all(row[k] is not None and row[k] == request[named] for k, named in view.keys.items())
            and row["at"] is not None
            and row["known"] is not None
            and max(row["at"], row["known"]) <= request[TIMESTAMP_COLUMN]
        ]
        last = max(present, key=lambda row: (row["at"], row["known"]), default=None)
        alive = last is not None and (view.ttl is None or request[TIMESTAMP_COLUMN] <= last["at"] + view.ttl)
        out.append(last["value"] if last and alive else None)
    return out


def in_order(rows: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Of rows (keys, at, known) those that hold one after the other, key by key."""
    saved: list[tuple[int, ...]] = []
    for row in sorted(rows, key=lambda row: (*row[:-2], max(row[-2:]), row[-2])):
        same_key = saved and saved[-1][:-2] == row[:-2]
        if not same_key or (max(row[-2:]) > max(saved[-1][-2:]) and row[-2] >= saved[-1][-2]):
            saved.append(row)
    return saved


@pytest.mark.integration
@pytest.mark.parametrize("ttl", [None, timedelta(0), 3 * DAY, timedelta(hours=30)])
@pytest.mark.parametrize("keys", [("k",), ("k", "l")])
def test_the_fast_join_equals_its_definition(tmp_path: Path, ttl: timedelta | None, keys: tuple[str, ...]) -> None:
    random = np.random.default_rng(len(keys))
    db = memory_database(tmp_path, memory_mb=256)
    late = tidy = 0
    for world in range(40):
        count = int(random.integers(0, 60))
        days = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 13.0]
        drawn = {
            (*random.integers(0, 3, len(keys)).tolist(), *random.choice(len(days), 2).tolist()) for _ in range(count)
        }
        ordered = [sorted(drawn)[n] for n in random.permutation(len(drawn))]
        if world % 2:  # as snapshots are written: key by key, each row later than the one before
            ordered = in_order([row for row in ordered if 2 not in row[:-2] or world % 4 == 1])
        text = lambda code: None if code == 2 else f"it's {code}"  # noqa: E731
        source = pa.table(
            {
                **{key: pa.array([text(row[n]) for row in ordered], pa.string()) for n, key in enumerate(keys)},
                "at": when([days[row[-2]] for row in ordered]),
                "known": when([days[row[-1]] for row in ordered]),  # even before it happened
                "value": pa.array(range(len(ordered)), pa.int64()),
            },
        )
        path = tmp_path / f"{world}.parquet"
        parquet.write_table(source, path)
        view = View(str(path), {key: f"my {key}" for key in keys}, "at", "known", ttl or None, {"out": "value"})
        requests = pa.table(
            {
                **{
                    f"my {key}": pa.array([text(code) for code in random.integers(0, 4, 50)], pa.string())
                    for key in keys
                },
                TIMESTAMP_COLUMN: when(random.choice([*days, 1.25, 9.25, 20.0], 50)),
            }
        )
        actual = join_views(db, requests, [view], in_order=set())["out"].to_pylist()
        assert actual == truth(source.to_pylist(), requests.to_pylist(), view)
        if is_ordered(db, view):
            tidy += 1
            assert join_views(db, requests, [view], in_order={str(path)})["out"].to_pylist() == actual
        else:
            assert world % 4 != 3  # where every key has a name, it is seen
        plain = source.filter(pa.compute.less_equal(source["known"], source["at"]))
        late += truth(plain.to_pylist(), requests.to_pylist(), view) != actual
        assert len(join_views(db, requests.slice(0, 0), [view], in_order=set())) == 0
    assert 10 <= tidy < 30
    assert late > 5  # late rows decided something


@pytest.mark.integration
def test_a_join_in_parts_equals_the_whole(tmp_path: Path) -> None:
    world = World(tmp_path / "sources", 7)
    apply(tmp_path / "feast", project="world", sources=world.folder)
    store, requests = open_store(tmp_path / "feast"), world.asked("user_id", 300)
    with working_directory(tmp_path / "feast"):
        parts = fast(store, USER_FEATURE_REFS, tmp_path, rows=300, check_rows=50)
        answers = pa.concat_tables([parts.join(requests.slice(start, 70)) for start in range(0, 300, 70)])
        assert answers.equals(fast(store, USER_FEATURE_REFS, tmp_path, rows=300, check_rows=0).join(requests))
        assert parts.check() == 50
        settings = JoinSettings(method="feast", check_rows=50, seed=1, memory_mb=256, spill=tmp_path, chunk=70)
        through = PointInTimeJoin(store, USER_FEATURE_REFS, settings, rows=300)
        assert through.join(requests).to_pydict() == answers.to_pydict()
        assert through.check() == 0


def test_a_difference_from_feast_is_refused(tmp_path: Path) -> None:
    """Whoever tampers with a source between the two answers stands for a join that is wrong."""
    world = World(tmp_path / "sources", 7)
    apply(tmp_path / "feast", project="world", sources=world.folder)
    store, requests = open_store(tmp_path / "feast"), world.asked("user_id", 300)
    path = world.folder / "user_activity.parquet"
    with working_directory(tmp_path / "feast"):
        join = fast(store, USER_FEATURE_REFS, tmp_path, rows=300, check_rows=300)
        join.join(requests)
        table = parquet.read_table(path)
        column = table.schema.get_field_index("user_events_7d")
        changed = pa.compute.add(table["user_events_7d"], 1e-6)
        parquet.write_table(table.set_column(column, "user_events_7d", changed), path)
        with pytest.raises(IntegrityError, match="do not agree about user_events_7d") as refused:
            join.check()
    assert "which Feast answers" in refused.value.expected
    assert "user_id u" in refused.value.found
    assert "featurize.join=feast" in refused.value.hint


def test_a_source_that_is_no_file_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path / "sources", 7)
    apply(tmp_path / "feast", project="world", sources=world.folder)

    class Elsewhere:
        """The same store with one view's rows in a place that is no file."""

        def __init__(self, store: Any) -> None:
            self.repo_path, self.list_on_demand_feature_views = store.repo_path, store.list_on_demand_feature_views
            self.store = store

        def get_feature_view(self, name: str) -> Any:
            view = self.store.get_feature_view(name)
            view.batch_source = object()
            return view

    with pytest.raises(UsageError, match=r"featurize\.join=feast"):
        fast(Elsewhere(open_store(tmp_path / "feast")), ITEM_FEATURE_REFS, tmp_path, rows=1, check_rows=1)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clean(tmp_path_factory.mktemp("join") / "clean", random_events())


@pytest.mark.integration
def test_both_joins_write_the_same_features(tmp_path: Path, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = FeaturizeConfig(min_requests=1, max_history=5, train_requests_per_user=3, negatives=6, join_chunk=29)
    monkeypatch.chdir(tmp_path)  # a relative folder is as good as any
    for way in ("fast", "feast"):
        featurize(clean, Path(way), config=small.model_copy(update={"join": way}))
    for name in ("items", "sequences", "requests", "item_features", "negatives"):
        ours, theirs = (parquet.read_table(tmp_path / way / f"{name}.parquet") for way in ("fast", "feast"))
        assert ours.to_pylist() == theirs.to_pylist(), name


def test_every_run_is_checked_against_feast(tmp_path: Path, clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast join that forgets the known-time cut-off is found out by the run itself."""
    from components.featurize import asof

    right = asof.asof_query

    def forgetful(view: View, requests: Any, *, in_order: bool) -> str:
        return right(
            View(view.path, view.keys, view.timestamp_column, view.timestamp_column, view.ttl, view.columns),
            requests,
            in_order=in_order,
        )

    small = FeaturizeConfig(min_requests=1, max_history=5, train_requests_per_user=3, negatives=6)
    monkeypatch.setattr(asof, "asof_query", forgetful)
    featurize(clean, tmp_path / "harmless", config=small)  # our own snapshots are known when they hold

    snapshots_write = __import__("components.featurize.snapshots", fromlist=["write"]).write

    def late(db: Any, sources: Path, **settings: Any) -> dict[str, int]:
        rows = snapshots_write(db, sources, **settings)
        path = sources / "user_activity.parquet"
        table = parquet.read_table(path)
        later = pa.compute.add(table["known_at"].cast("int64"), 5 * 86_400_000_000).cast(contracts.UTC_TIMESTAMP)
        parquet.write_table(table.set_column(table.schema.get_field_index("known_at"), "known_at", later), path)
        return rows

    monkeypatch.setattr("components.featurize.snapshots.write", late)
    with pytest.raises(IntegrityError, match="do not agree about user_events"):
        featurize(clean, tmp_path / "wrong", config=small)
    monkeypatch.setattr(asof, "asof_query", right)
    featurize(clean, tmp_path / "right", config=small)
