"""featurize: nothing of the future, nothing known only later, nothing lost."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from components.featurize import negatives, split
from components.featurize.config import FeaturizeConfig
from components.featurize.step import featurize
from rankline.contracts import UTC_TIMESTAMP as MICROSECONDS
from rankline.contracts import FrozenState, History
from rankline.errors import IntegrityError, TooSmall, ValidationFailed
from rankline.features import transforms as names
from rankline.model.scoring import context_features
from tests.components.clean_world import BEGIN, CATEGORIES, DAY, Event, random_events, write_clean

SMALL = FeaturizeConfig(min_requests=1, max_history=5, train_requests_per_user=3, negatives=6)
LIST_OF_FEATURES = ["affinity_categories", "affinity_shares"]


def when(day: float) -> datetime:
    return datetime.fromtimestamp(BEGIN + day * DAY, UTC)


CUT = SMALL.model_copy(update={"split": "time_cut", "cut": when(35), "valid_until": when(45)})


def rows(folder: Path, table: str) -> list[dict]:
    table_rows = parquet.read_table(folder / f"{table}.parquet").to_pylist()
    assert table_rows, f"{table} is empty: nothing would be compared"
    return table_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Featurize some events; the features folder."""

    def run(events: list[Event], config: FeaturizeConfig = SMALL) -> Path:
        folder = tmp_path_factory.mktemp("featurize")
        featurize(write_clean(folder / "clean", events), folder / "features", config=config)
        return folder / "features"

    return run


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return random_events()


@pytest.fixture(scope="module")
def last_out(run: Callable[..., Path], events: list[Event]) -> Path:
    return run(events)


@pytest.fixture(scope="module")
def timed(run: Callable[..., Path], events: list[Event]) -> Path:
    return run(events, CUT)


def known(event: Event) -> float:
    return event.at if event.known is None else event.known


def counts_at(events: list[Event], day: float, prefix: str) -> dict[str, float]:
    """The definition, word by word: what counts at the boundary `day` (unix seconds)."""
    present = [e for e in events if e.at < day and known(e) <= day]
    out = {f"{prefix}_events_{w}d": float(sum(e.at >= day - w * DAY for e in present)) for w in (1, 7, 30)}
    out[f"{prefix}_events_total"] = float(len(present))
    out[f"{prefix}_rating_mean"] = float(np.mean([e.rating for e in present])) if present else 0.0
    return out


@pytest.mark.integration
def test_user_features_are_what_their_definition_says(last_out: Path, events: list[Event]) -> None:
    for request in rows(last_out, "requests"):
        day = request["at"] // DAY * DAY
        expected = counts_at([e for e in events if e.user == request["user_id"]], day, "user")
        assert {name: request[name] for name in names.USER} == pytest.approx(expected), request["request_id"]


def test_item_features_are_what_their_definition_says(last_out: Path, events: list[Event]) -> None:
    actual = rows(last_out, "item_features")
    days = {request["snapshot"] for request in rows(last_out, "requests")}
    categories = {row["item_id"]: row["category"] for row in rows(last_out, "items")}
    assert len(actual) == len(days) * 30  # every item's content is known from the first event's day
    for row in actual:
        expected = counts_at([e for e in events if e.item == row["item_id"]], row["snapshot"], "item")
        week, month = expected["item_events_7d"], expected["item_events_30d"]
        number = int(row["item_id"][1:])
        expected |= {
            "item_trend": (week + 10 * 7 / 30) / (month + 10) - 7 / 30,
            "item_price": 0.0 if number % 3 == 0 else number,
            "item_text_length": 5 * (number + 1),
            "item_category_count": len(categories[row["item_id"]]),
        }
        assert {name: row[name] for name in names.ITEM} == pytest.approx(expected, abs=1e-9)


def test_affinity_is_the_share_of_the_users_events(last_out: Path, events: list[Event]) -> None:
    categories = {row["item_id"]: set(row["category"]) for row in rows(last_out, "items")}
    some = 0
    for request in rows(last_out, "requests"):
        day = request["at"] // DAY * DAY
        present = [e for e in events if e.user == request["user_id"] and e.at < day and known(e) <= day]
        shares = {c: sum(c in categories[e.item] for e in present) / max(len(present), 1) for c in CATEGORIES}
        actual = dict(zip(request["affinity_categories"], request["affinity_shares"]))
        assert actual == pytest.approx({c: s for c, s in shares.items() if s}, abs=1e-6)
        some += len(actual) > 1
    assert some > 10


def test_a_request_carries_what_was_known_before_it(last_out: Path, events: list[Event]) -> None:
    late = 0
    for request in rows(last_out, "requests"):
        mine = [e for e in events if e.user == request["user_id"]]
        local = next(n for n, e in enumerate(mine) if [e.item] == request["targets"])
        before = [e for e in mine[:local] if known(e) <= request["at"]]
        late += len(before) < local
        assert request["at"] == mine[local].at
        assert request["seen"] == [e.item for e in before]
        assert request["history_items"] == [e.item for e in before][-5:]
        assert request["history_times"] == [e.at for e in before][-5:]
        assert request["history_ratings"] == [e.rating for e in before][-5:]
        assert request["target_ratings"] == [mine[local].rating]
    assert late > 5


def test_context_is_the_servers(last_out: Path) -> None:
    for request in rows(last_out, "requests"):
        history = History(
            item_ids=request["history_items"],
            times=request["history_times"],
            ratings=request["history_ratings"],
        )
        assert {name: request[name] for name in names.CONTEXT} == context_features(
            FrozenState(at=request["at"], history=history)
        )


@pytest.mark.parametrize("which", ["last_out", "timed"])
def test_targets_and_negatives_were_not_seen(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    drawn = {row["request_id"]: row["item_ids"] for row in rows(folder, "negatives")}
    requests = rows(folder, "requests")
    assert len({row["request_id"] for row in requests}) == len(requests) == len(drawn)
    for row in requests:
        had = set(row["seen"])
        assert row["targets"]
        assert not had & set(row["targets"])
        assert set(row["history_items"]) <= had
        negatives = drawn[row["request_id"]]
        assert len(negatives) == len(set(negatives)) == 6
        assert not set(negatives) & (had | set(row["targets"]))


def test_leave_last_out_goes_by_time_then_row(last_out: Path, events: list[Event]) -> None:
    requests = rows(last_out, "requests")
    sequences = {row["user_id"]: row["item_ids"] for row in rows(last_out, "sequences")}
    ties = 0
    for user in {e.user for e in events}:
        mine = [e for e in events if e.user == user]  # in order of time, then row
        ties += mine[-1].at == mine[-2].at
        of_split = {
            name: [r["targets"][0] for r in requests if (r["user_id"], r["split"]) == (user, name)]
            for name in ("train", "valid", "test")
        }
        assert of_split["test"] == [mine[-1].item]
        assert of_split["valid"] == [mine[-2].item]
        assert sequences[user] == [e.item for e in mine[:-2]]
        last = list(enumerate(mine[:-2]))[1:][-3:]
        assert of_split["train"] == [e.item for n, e in last if any(known(b) <= e.at for b in mine[:n])]
    assert ties > 3


def test_time_cut_learns_nothing_from_after_the_cut(timed: Path, events: list[Event]) -> None:
    cut, valid_until = BEGIN + 35 * DAY, BEGIN + 45 * DAY
    summary = json.loads((timed / "summary.json").read_text())
    assert datetime.fromisoformat(summary["train_end"]).timestamp() == cut
    assert all(max(row["times"]) < cut for row in rows(timed, "sequences"))
    learnt = {(row["user_id"], item) for row in rows(timed, "sequences") for item in row["item_ids"]}
    expected = {(e.user, e.item) for e in events if e.at < cut and known(e) <= cut}
    assert learnt == expected
    assert any(e.at < cut < known(e) for e in events)  # else the last line says nothing of known time
    windows = {"train": (0, cut), "valid": (cut, valid_until), "test": (valid_until, np.inf)}
    for request in rows(timed, "requests"):
        since, until = windows[request["split"]]
        assert since <= request["at"] < until
        if request["split"] != "train":
            inside = [e for e in events if e.user == request["user_id"] and since <= e.at < until]
            assert request["at"] == inside[0].at
            assert request["targets"] == [e.item for e in inside]


def untouched(one: Path, other: Path, *, until: float) -> tuple[int, int]:
    """Assert that requests before a moment are the same but for targets; how many are, how many are not."""

    def before(folder: Path, table: str, instant: str) -> dict:
        hidden = {"targets", "target_ratings"}
        keys = ("request_id",) if table == "requests" else ("snapshot", "item_id")
        return {
            tuple(row[key] for key in keys): {k: v for k, v in row.items() if k not in hidden}
            for row in rows(folder, table)
            if row[instant] <= until
        }

    same = 0
    for table, instant in (("requests", "at"), ("item_features", "snapshot")):
        ours, theirs = before(one, table, instant), before(other, table, instant)
        # the plant may bring requests of its own, later, and their days
        assert ours == {key: theirs.get(key) for key in ours}
        same += len(ours)
    differ = sum(a != b for a, b in zip(rows(one, "item_features"), rows(other, "item_features")))
    return same, differ


def test_a_planted_future_event_changes_nothing_before_it(
    run: Callable[..., Path], timed: Path, events: list[Event]
) -> None:
    instant = BEGIN + 44.5 * DAY
    plant = [Event(f"u{u}", "i7", instant + 1 + u, 5.0) for u in range(12)]
    planted = run(sorted([*events, *plant], key=lambda e: e.at), CUT)
    same, differ = untouched(timed, planted, until=instant)
    assert same > 100
    assert differ > 0  # it is there, only later


@pytest.mark.integration
def test_a_planted_late_event_changes_nothing_before_it_is_known(
    run: Callable[..., Path], timed: Path, events: list[Event]
) -> None:
    happened, learnt = BEGIN + 10.5 * DAY, BEGIN + 44.5 * DAY
    plant = [Event(f"u{u}", "i7", happened + u, 5.0) for u in range(12)]
    fresh = {e for e in plant if not any(o.user == e.user and o.item == "i7" for o in events)}

    def planted(known_at: float | None) -> Path:
        late = [Event(e.user, e.item, e.at, e.rating, known_at) for e in fresh]
        return run(sorted([*events, *late], key=lambda e: e.at), CUT)

    hidden = planted(learnt)
    requests = {row["request_id"].rsplit(":", 1)[0]: row for row in rows(timed, "requests") if row["split"] == "valid"}
    compared_requests = compared_features = 0
    for row in rows(hidden, "requests"):
        if row["split"] == "valid" and row["at"] < learnt:
            compared_requests += 1
            before = requests[row["request_id"].rsplit(":", 1)[0]]
            drop = {"request_id", "targets", "target_ratings"}
            assert {k: v for k, v in row.items() if k not in drop} == {k: v for k, v in before.items() if k not in drop}
    by_day = {(r["snapshot"], r["item_id"]): r for r in rows(timed, "item_features")}
    for row in rows(hidden, "item_features"):
        if row["snapshot"] < learnt and (row["snapshot"], row["item_id"]) in by_day:
            compared_features += 1
            assert row == by_day[row["snapshot"], row["item_id"]]
    assert min(compared_requests, compared_features) > 0
    assert rows(hidden, "sequences") == rows(timed, "sequences")
    # the plant can be seen: had it been known at once, all of this would differ
    displayed = planted(None)
    assert rows(displayed, "sequences") != rows(timed, "sequences")
    assert any(
        row != by_day.get((row["snapshot"], row["item_id"]), row)
        for row in rows(displayed, "item_features")
        if row["snapshot"] < learnt
    )


@pytest.fixture
def store_folder(last_out: Path, tmp_path: Path) -> Path:
    """A copy of the run's store: it may be moved whole."""
    return Path(shutil.copytree(last_out / "feast", tmp_path / "elsewhere"))


def plant_row(folder: Path, view: str, **values: object) -> None:
    """Append a row to a source, in the types it has."""
    path = folder / "sources" / f"{view}.parquet"
    table = parquet.read_table(path)
    row = {**dict.fromkeys(table.column_names), **values}
    parquet.write_table(pa.concat_tables([table, pa.Table.from_pylist([row], table.schema)]), path)


def test_planted_feature_rows_do_not_reach_a_request(store_folder: Path, events: list[Event]) -> None:
    from components.featurize.join import historical_features
    from feature_repo.store import open_store, working_directory
    from rankline.runtime.progress import Progress

    store = open_store(store_folder)
    instant = when(59.9)
    requests = pa.table(
        {
            "user_id": ["u0", "u1"],
            "event_timestamp": pa.array([instant, instant]).cast(MICROSECONDS),
        }
    )
    features = ["user_activity:user_events_total"]

    def ask(known_time: bool = True) -> list[float]:
        with working_directory(store_folder):
            if known_time:
                return historical_features(store, requests, features, chunk=1, progress=Progress())[
                    "user_events_total"
                ].to_pylist()
            answer = store.get_historical_features(requests.to_pandas(), features=features).to_df()
            return answer.sort_values("user_id")["user_events_total"].tolist()

    before = ask()
    assert before == [float(sum(e.user == u and known(e) < BEGIN + 59 * DAY for e in events)) for u in ("u0", "u1")]
    plant_row(
        store_folder,
        "user_activity",
        user_id="u0",
        user_events_total=777.0,
        event_timestamp=when(59.95),
        known_at=when(59.95),
    )  # of the future
    plant_row(
        store_folder,
        "user_activity",
        user_id="u1",
        user_events_total=999.0,
        event_timestamp=when(59.85),
        known_at=when(80),
    )  # known later
    assert ask() == before
    assert ask(known_time=False) == [before[0], 999.0]  # the guard is what keeps it out
    requests = requests.set_column(1, "event_timestamp", pa.array([when(59.96), when(59.96)]).cast(MICROSECONDS))
    assert ask() == [777.0, before[1]]  # and it is there for whoever asks later


def test_a_store_that_loses_rows_is_refused(store_folder: Path) -> None:
    from components.featurize.join import historical_features
    from feature_repo.store import open_store, working_directory
    from rankline.runtime.progress import Progress

    settings = store_folder / "feature_store.yaml"
    settings.write_text(settings.read_text().replace("duckdb", "dask"))  # drops what is outside the TTL
    requests = pa.table(
        {
            "user_id": ["u0", "u1"],
            "event_timestamp": pa.array([when(59), when(1000)]).cast(MICROSECONDS),
        }
    )
    with working_directory(store_folder), pytest.raises(IntegrityError, match="2 rows, each once"):
        historical_features(
            open_store(store_folder),
            requests,
            ["user_activity:user_events_total"],
            chunk=10,
            progress=Progress(),
        )


def test_the_same_input_gives_the_same_bytes(run: Callable[..., Path], last_out: Path, events: list[Event]) -> None:
    again = run(events)
    files = sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert Path("requests.parquet") in files
    assert [name for name in files if (again / name).read_bytes() != (last_out / name).read_bytes()] == []


def test_too_little_data_is_refused(run: Callable[..., Path], events: list[Event]) -> None:
    with pytest.raises(TooSmall, match="at least 10 requests in each of train, valid, test") as refusal:
        run(events[:8], FeaturizeConfig())
    assert "0 train" in refusal.value.found or "valid" in refusal.value.found
    assert "featurize.min_requests" in refusal.value.hint
    with pytest.raises(TooSmall):
        run([], FeaturizeConfig(split="time_cut"))


@pytest.mark.parametrize("nan", [False, True])
def test_bare_events_are_enough(tmp_path: Path, events: list[Event], nan: bool) -> None:
    """No ratings, no categories, and some events of nobody: they count for items only."""
    clean = write_clean(tmp_path / "clean", [*events, *(Event(None, "i3", BEGIN + 5) for _ in range(50))])
    table = parquet.read_table(clean / "events.parquet")
    table = (
        table.set_column(6, "rating", pa.array([float("nan")] * len(table))) if nan else table.drop_columns("rating")
    )
    parquet.write_table(table, clean / "events.parquet")
    items = parquet.read_table(clean / "items.parquet")
    nothing = pa.nulls(len(items), items.schema.field("category").type)
    parquet.write_table(
        items.set_column(items.schema.get_field_index("category"), items.schema.field("category"), nothing),
        clean / "items.parquet",
    )
    featurize(clean, tmp_path / "features", config=SMALL)
    requests = rows(tmp_path / "features", "requests")
    assert {len(row[name]) for row in requests for name in LIST_OF_FEATURES} == {0}
    assert {row["user_rating_mean"] for row in requests} == {0.0}
    assert json.loads((tmp_path / "features" / "summary.json").read_text())["categories"] == []
    last = [r for r in rows(tmp_path / "features", "item_features") if r["item_id"] == "i3"][-1]
    assert last["item_events_total"] > 50
    assert {row["user_id"] for row in rows(tmp_path / "features", "sequences")} == {e.user for e in events}


def sampler_world(*, items: int, requests: int, seen: int) -> tuple[split.Log, split.Requests, np.ndarray]:
    """One user a request who had ``seen`` items and then one more."""
    random = np.random.default_rng(5)
    had = np.concatenate([random.permutation(items)[: seen + 1] for _ in range(requests)])
    users = np.repeat(np.arange(requests), seen + 1)
    time_us = np.arange(len(had))
    log = split.Log.of(users=users, items=had, time_us=time_us, known_us=time_us)
    position = np.flatnonzero(np.diff(users, append=requests))
    split_requests = split.Requests(
        np.zeros(requests, int),
        position,
        split.known_before(log, position),
        split.Lists(position, np.arange(requests + 1)),
    )
    return log, split_requests, np.bincount(had, minlength=items)


@pytest.mark.parametrize(("items", "seen"), [(40, 29), (40, 37), (300, 5), (50_000, 20)])
def test_negatives_are_distinct_free_and_as_many_as_there_are(
    items: int, seen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "MAX_CELLS", 1 << 14)  # the last catalogue is larger than what a block marks
    log, split_requests, weights = sampler_world(items=items, requests=25, seen=seen)
    drawn = negatives.Sampler(log, weights=weights, count=10, popular_share=0.5, seed=1).draw(split_requests)
    seen_lists = split_requests.seen
    for r in range(25):
        mine = drawn.values[drawn.offsets[r] : drawn.offsets[r + 1]].tolist()
        had = set(log.items[seen_lists.values[seen_lists.offsets[r] : seen_lists.offsets[r + 1]]].tolist())
        had.add(int(log.items[split_requests.position[r]]))
        assert len(mine) == len(set(mine)) == min(10, items - seen - 1)
        assert not had & set(mine)
        assert all(0 <= item < items for item in mine)


def test_popular_items_are_drawn_more_often_and_the_seed_decides() -> None:
    log, split_requests, _ = sampler_world(items=1_000, requests=400, seen=3)
    weights = np.zeros(1_000, int)
    weights[:10] = 1_000
    half = negatives.Sampler(log, weights=weights, count=10, popular_share=0.5, seed=1)
    drawn = half.draw(split_requests).values
    # half of the draws are among the ten that are wanted, as far as these were not seen
    assert 0.4 < (drawn < 10).mean() < 0.55
    counts = np.bincount(drawn[drawn >= 10], minlength=1_000)[10:]
    assert counts.max() < 12  # and the others lie evenly
    again = negatives.Sampler(log, weights=weights, count=10, popular_share=0.5, seed=1).draw(split_requests).values
    other = negatives.Sampler(log, weights=weights, count=10, popular_share=0.5, seed=2).draw(split_requests).values
    assert drawn.tolist() == again.tolist() != other.tolist()
    assert half.draw(split_requests.part(0, 0)).values.tolist() == []


@pytest.mark.integration
def test_requests_a_part_at_a_time_are_the_same(run: Callable[..., Path], last_out: Path, events: list[Event]) -> None:
    parted = run(events, SMALL.model_copy(update={"join_chunk": 11}))
    assert parquet.ParquetFile(parted / "requests.parquet").num_row_groups > 5
    for table in ("items", "sequences", "requests", "item_features"):
        assert rows(parted, table) == rows(last_out, table)
    assert [row["request_id"] for row in rows(parted, "negatives")] == [
        row["request_id"] for row in rows(last_out, "negatives")
    ]
    assert not [path for path in parted.iterdir() if path.name.startswith(".")]


def test_a_history_is_kept_for_the_last_days_and_once_before_them(
    run: Callable[..., Path], last_out: Path, events: list[Event]
) -> None:
    def histories(folder: Path) -> list[dict]:
        return parquet.read_table(folder / "feast" / "sources" / "user_history.parquet").to_pylist()

    whole = histories(run(events, SMALL.model_copy(update={"history_days": 9_999})))
    newest = max(row["known_at"] for row in whole).timestamp() // DAY
    since = (newest - SMALL.history_days) * DAY
    saved = []
    for user in sorted({row["user_id"] for row in whole}):
        mine = [row for row in whole if row["user_id"] == user]
        before = [row for row in mine if row["known_at"].timestamp() < since]
        saved += before[-1:] + mine[len(before) :]
    assert len(saved) < len(whole)
    assert histories(last_out) == saved


def test_an_item_comes_back_but_is_no_target_again() -> None:
    log = split.Log.of(
        users=np.zeros(6, int), items=np.array([3, 1, 3, 2, 4, 4]), time_us=np.arange(6), known_us=np.arange(6)
    )
    requests = split.leave_last_out(log, min_history=1, per_user=9)
    assert log.items[requests.requests.targets.values].tolist() == [1, 2, 4]
    assert requests.requests.split.tolist() == [split.TRAIN, split.VALID, split.TEST]
    assert log.items[requests.train].tolist() == [3, 1, 3]
    assert requests.train_end == 2


def test_users_with_two_events_are_learnt_from_and_not_asked_about() -> None:
    log = split.Log.of(users=np.array([0, 0, 1, 1, 1]), items=np.arange(5), time_us=np.arange(5), known_us=np.arange(5))
    requests = split.leave_last_out(log, min_history=1, per_user=9)
    assert requests.train.tolist() == [True, True, True, False, False]
    assert log.users[requests.requests.position].tolist() == [0, 1, 1]


def test_a_time_cut_asks_about_users_it_could_learn_from() -> None:
    """User 0 was there before the cut, user 1 only in the valid window; both come back in the test window."""
    log = split.Log.of(
        users=np.array([0, 0, 0, 1, 1]),
        items=np.array([0, 1, 2, 0, 1]),
        time_us=np.array([5, 15, 25, 12, 22]),
        known_us=np.array([5, 15, 25, 12, 22]),
    )
    requests = split.time_cut(log, cut=10, valid_until=20, test_until=30, min_history=1, per_user=9).requests
    assert [(log.users[p], s) for p, s in zip(requests.position, requests.split)] == [
        (0, split.VALID),
        (0, split.TEST),
    ]
    assert requests.seen.lengths.tolist() == [1, 2]  # by the test window the valid window is past


def test_rolling_cuts_test_every_late_event_once() -> None:
    at = np.random.default_rng(0).integers(0, 10**9, 1_000)
    cuts = split.rolling_cuts(at, folds=4, train_share=0.5)
    assert len(cuts) == 4
    for (cut, valid_until, test_until), following in zip(cuts, [*cuts[1:], None]):
        assert cut < valid_until < test_until
        assert abs(int(((at >= valid_until) & (at < test_until)).sum()) - 100) <= 1
        if following is not None:
            assert following[:2] == (valid_until, test_until)
    assert abs(int((at < cuts[0][0]).sum()) - 500) <= 1
    assert cuts[-1][2] == at.max() + 1


def test_shares_become_cuts() -> None:
    at = np.arange(1_000, 2_000)
    assert split.quantile_cuts(at, train_share=0.8, valid_share=0.1) == (1_800, 1_900, 2_000)


def test_an_item_missing_from_the_catalogue_is_refused(run: Callable[..., Path], events: list[Event]) -> None:
    with pytest.raises(ValidationFailed, match="such as item 'i999'"):
        run([*events, Event("u0", "i999", events[-1].at + 1)])


@pytest.mark.parametrize(
    "wrong",
    [
        {"cut": when(1)},
        {"split": "time_cut", "cut": when(1)},
        {"split": "time_cut", "cut": when(2), "valid_until": when(1)},
        {"split": "time_cut", "cut": datetime(2024, 3, 1), "valid_until": datetime(2024, 3, 2)},
        {"train_share": 0.9, "valid_share": 0.1},
        {"min_histroy": 2},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError):
        FeaturizeConfig(**wrong)


# -- orders of several lines ------------------------------------------------------------------------------------


def orders(*sizes: int, users: int = 3) -> split.Log:
    """Users with orders of these sizes, a day apart; all lines of an order have one time."""
    lengths = np.tile(sizes, users)
    time_us = np.repeat(np.tile(np.arange(len(sizes)), users), lengths) * split.DAY_US
    owners = np.repeat(np.arange(users), sum(sizes))
    return split.Log.of(users=owners, items=np.tile(np.arange(sum(sizes)), users), time_us=time_us, known_us=time_us)


def targets_of(log: split.Log, requests: split.Requests, user: int) -> list[tuple[int, list[int], list[int]]]:
    """(split, items seen, targets) of each of a user's requests."""
    rows = np.flatnonzero(log.users[requests.position] == user)
    parts = [requests.part(r, r + 1) for r in rows]
    return [
        (int(part.split[0]), log.items[part.seen.values].tolist(), log.items[part.targets.values].tolist())
        for part in parts
    ]


def test_a_held_out_order_is_held_out_as_a_whole() -> None:
    log = orders(2, 3, 2, 3)
    divided = split.leave_last_out(log, min_history=1, per_user=9, baskets=True)
    assert targets_of(log, divided.requests, user=1) == [
        (split.TRAIN, [0, 1], [2, 3, 4]),
        (split.VALID, [0, 1, 2, 3, 4], [5, 6]),
        (split.TEST, [0, 1, 2, 3, 4, 5, 6], [7, 8, 9]),
    ]
    assert log.items[divided.train].tolist() == [0, 1, 2, 3, 4] * 3
    assert split.asked_within_baskets(log, divided.requests) == 0


def test_a_time_cut_learns_from_whole_orders_too() -> None:
    log, day = orders(2, 3, 2, 3), split.DAY_US
    divided = split.time_cut(
        log, cut=2 * day, valid_until=3 * day, test_until=4 * day, min_history=1, per_user=9, baskets=True
    )
    assert targets_of(log, divided.requests, user=0) == [
        (split.TRAIN, [0, 1], [2, 3, 4]),
        (split.VALID, [0, 1, 2, 3, 4], [5, 6]),
        (split.TEST, [0, 1, 2, 3, 4, 5, 6], [7, 8, 9]),
    ]


@pytest.mark.parametrize(("sizes", "share"), [((1, 1, 1, 1), 0.0), ((3, 3, 1), 0.0), ((1, 1, 2), 1.0), ((9, 4), 1.0)])
def test_a_split_inside_of_orders_is_noticed(sizes: tuple[int, ...], share: float) -> None:
    log = orders(*sizes)
    requests = split.leave_last_out(log, min_history=1, per_user=9).requests
    assert split.asked_within_baskets(log, requests) == share


def test_without_a_test_request_nothing_is_asked_within_orders() -> None:
    log = orders(1)
    assert split.asked_within_baskets(log, split.leave_last_out(log, min_history=1, per_user=9).requests) == 0


@pytest.mark.integration
def test_the_step_warns_of_a_split_inside_of_orders(tmp_path: Path) -> None:
    one_time = [Event(f"u{u}", f"i{(u + 2 * n) % 30}", BEGIN + DAY * (n // 3)) for u in range(8) for n in range(12)]
    clean = write_clean(tmp_path / "clean", one_time)
    result = featurize(clean, tmp_path / "lines", config=SMALL)
    assert result["asked_within_baskets"] == 1
    assert "featurize.baskets" in result["warning"]
    result = featurize(clean, tmp_path / "orders", config=SMALL.model_copy(update={"baskets": True}))
    assert result["asked_within_baskets"] == 0
    assert "warning" not in result
    assert {len(row["targets"]) for row in rows(tmp_path / "orders", "requests")} == {3}
