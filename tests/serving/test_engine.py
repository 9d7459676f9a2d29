"""The engine on a real bundle, compared with the functions that distillation shares."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from rankline.contracts import FrozenState, History
from rankline.errors import DeviceError, IntegrityError, RanklineError, ServerError, UsageError
from rankline.model import scoring
from rankline.model.bundle import Bundle, open_bundle, read_catalogue, write_bundle_manifest
from rankline.model.catalogue_files import write_catalogue_manifest
from rankline.model.policy import POLICY_FILE, Calibration, ServingPolicy
from serving.engine import BundleEngine, EngineRequest, EngineResponse, UnknownItem, run_request
from serving.sessions import Graph, require_provider
from tests.serving.tiny_bundle import MAX_HISTORY, make_bundle, make_catalogue

HISTORY = History(item_ids=["i3", "i7", "gone", "i11"], times=[10.0, 20, 30, 40], ratings=[5.0, 0, 3, 2.4])
STATE = FrozenState(
    at=1000.0,
    history=HISTORY,
    seen=["i3", "i7", "i11"],
    user_features={"user_events_7d": 4.0},
    affinity={"Comedy": 0.75},
    item_features={
        "item_id": ["i5", "i6", "gone"],
        "item_events_7d": [9, 4, 99],
        "item_price": [1.0, None, 2],
    },
)


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> BundleEngine:
    return BundleEngine.load(bundle, precision="fp32", provider="cpu", threads=1)


def by_hand(bundle: Bundle, state: FrozenState, *, given: list[str] | None = None) -> dict[str, np.ndarray]:
    """item id -> logits, straight from the graphs and rankline.model.scoring."""
    catalogue, _ = read_catalogue(bundle, "fp32")

    def run(name: str, **feeds: np.ndarray) -> np.ndarray:
        return ort.InferenceSession(str(bundle.folder / name)).run(None, feeds)[0]

    rows = catalogue.rows(state.history.item_ids)
    left_D = run(
        "user.onnx",
        items_BLD=catalogue.vectors_ID[rows][None],
        ratings_BL=np.array([[5, 0, 2]], np.int64),
        lengths_B=np.array([3], np.int64),
    )[0]
    scores = scoring.source_scores(state, left_D, catalogue, bundle.candidate_settings)
    drawn = scoring.draw_candidates(
        scores, catalogue.rows(state.seen), per_source=bundle.candidate_settings.candidates_per_source
    )
    rows_N = drawn if given is None else catalogue.rows(given)
    features_NF = scoring.candidate_features(
        state, scoring.context_features(state), rows_N, scores, catalogue, bundle.manifest.features
    )
    logits = run(
        "scorer.onnx",
        left_BD=left_D[None],
        items_BCD=catalogue.vectors_ID[rows_N][None],
        features_BCF=features_NF[None],
    )[0]
    return {catalogue.item_ids[row]: value for row, value in zip(rows_N, logits)}


def test_recommend_is_what_the_shared_functions_give(bundle: Bundle, engine: BundleEngine) -> None:
    expected = by_hand(bundle, STATE)
    response = run_request(engine, EngineRequest("recommend", STATE, k=1000)).items
    assert {item.item_id for item in response} == set(expected)
    for item in response:
        np.testing.assert_array_equal(np.float32(list(item.logits.values())), expected[item.item_id])
    assert [item.score for item in response] == sorted((item.score for item in response), reverse=True)
    assert all(item.sources for item in response)


def test_rank_keeps_to_the_candidates(bundle: Bundle, engine: BundleEngine) -> None:
    given = ["i30", "i3", "i5", "nobody", "i30"]
    expected = by_hand(bundle, STATE, given=["i30", "i3", "i5"])
    response = run_request(engine, EngineRequest("rank", STATE, candidates=given))
    assert response.unknown == ["nobody"]
    assert [i.item_id for i in response.items] == sorted(expected, key=lambda item: -expected[item][0])
    for item in response.items:
        np.testing.assert_array_equal(np.float32(list(item.logits.values())), expected[item.item_id])
        assert item.heads["like"] == pytest.approx(1 / (1 + np.exp(-item.logits["like"])))


def test_a_batch_gives_what_its_requests_give_alone(engine: BundleEngine) -> None:
    """Padding of histories, queries and candidates changes no response."""
    some = [
        EngineRequest("recommend", STATE, k=5),
        EngineRequest("similar", FrozenState(at=0), k=4, item_id="i2"),
        EngineRequest("recommend", FrozenState(at=5.0), k=5),
        EngineRequest("rank", STATE, candidates=["i1"], query="love"),
        EngineRequest("rank", FrozenState(at=5.0, history=History(item_ids=["i9"])), candidates=["i1", "i2", "i4"]),
        EngineRequest("rank", STATE, candidates=["i8", "i1"], query="space ship story house"),
    ]
    batch = [engine.prepare(request) for request in some]
    for request, prepared, result in zip(some, batch, engine.run(batch)):
        together, alone = engine.finish(prepared, result).items, run_request(engine, request).items
        assert [item.item_id for item in together] == [item.item_id for item in alone]
        for one, other in zip(together, alone):
            assert one.score == pytest.approx(other.score, abs=1e-6)


def test_popularity_leads_where_nothing_is_known(bundle: Bundle, engine: BundleEngine) -> None:
    catalogue, _ = read_catalogue(bundle, "fp32")
    best = run_request(engine, EngineRequest("recommend", FrozenState(at=0.0), k=1)).items[0]
    assert catalogue.popularity_I[catalogue.index[best.item_id]] == catalogue.popularity_I.max()


def test_only_the_last_of_a_long_history_is_read(engine: BundleEngine) -> None:
    ids = [f"i{n}" for n in range(MAX_HISTORY + 7)]
    times = [float(n) for n in range(len(ids))]
    long = FrozenState(at=99.0, history=History(item_ids=ids, times=times, ratings=[1.0] * len(ids)))
    short = FrozenState(
        at=99.0,
        history=History(item_ids=ids[-MAX_HISTORY:], times=times[-MAX_HISTORY:], ratings=[1.0] * MAX_HISTORY),
    )
    assert run_request(engine, EngineRequest("recommend", long, k=9)) == run_request(
        engine, EngineRequest("recommend", short, k=9)
    )


def test_nothing_is_recommended_where_everything_was_seen(engine: BundleEngine) -> None:
    assert (
        run_request(engine, EngineRequest("recommend", FrozenState(at=0.0, seen=list(engine.item_ids)), k=3)).items
        == []
    )


def test_similar_is_the_mean_of_two_ranks(bundle: Bundle, engine: BundleEngine) -> None:
    catalogue, _ = read_catalogue(bundle, "fp32")
    cosine_I = catalogue.vectors_ID @ catalogue.vectors_ID[4]
    beside_I = np.asarray(catalogue.covisit[4].todense()).ravel()
    count = len(cosine_I)

    def value(scores: np.ndarray, row: int) -> float:
        return 1 - list(np.argsort(-scores, kind="stable")).index(row) / (count - 1)

    response = run_request(engine, EngineRequest("similar", FrozenState(at=0.0), k=count, item_id="i4")).items
    assert len(response) == count - 1
    assert "i4" not in {item.item_id for item in response}
    for item in response:
        row = catalogue.index[item.item_id]
        expected = (value(cosine_I, row) + (value(beside_I, row) if beside_I[row] > 0 else 0)) / 2
        assert item.score == pytest.approx(expected, abs=1e-6)
    assert [item.score for item in response] == sorted((item.score for item in response), reverse=True)


def test_a_query_moves_the_order(engine: BundleEngine) -> None:
    every = list(engine.item_ids)
    orders = {
        query: [
            i.item_id for i in run_request(engine, EngineRequest("rank", STATE, candidates=every, query=query)).items
        ]
        for query in (None, "love", "space ship")
    }
    assert len({tuple(order) for order in orders.values()}) == 3


def ids(response: EngineResponse) -> list[str]:
    return [item.item_id for item in response.items]


def test_hidden_items_are_in_no_answer_until_they_are_shown(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", queries=True, withdrawn=(5,))
    engine = BundleEngine.load(bundle, precision="fp32", provider="cpu", threads=1)
    every = list(engine.item_ids)
    requests = [
        EngineRequest("recommend", FrozenState(at=0.0), k=len(every)),
        EngineRequest("search", FrozenState(at=0.0), k=len(every), query="space"),
        EngineRequest("similar", FrozenState(at=0.0), k=len(every), item_id="i4"),
        EngineRequest("rank", FrozenState(at=0.0), candidates=every),
    ]
    before = [ids(run_request(engine, request)) for request in requests]
    gone = [next(item for item in response if item != "i4") for response in before]
    engine.hide([*gone, "i4", "may come later"])
    for request, earlier in zip(requests, before):
        response = run_request(engine, request)
        assert response.items
        assert not set(ids(response)) & {*gone, "i4"}
        # the others stay; a source may propose further items in place of the hidden ones
        stored = [item for item in earlier if item not in {*gone, "i4"}]
        assert set(stored) <= set(ids(response))
        assert response.hidden == ([item for item in every if item in {*gone, "i4"}] if request.verb == "rank" else [])
    engine.hide([])
    assert [ids(run_request(engine, request)) for request in requests] == before
    assert "i5" not in before[0], "what is not to be had stays away"


def test_a_hidden_item_still_counts_in_a_history(engine: BundleEngine) -> None:
    try:
        with_it, without = (
            FrozenState(at=1.0, history=History(item_ids=item_ids), seen=[]) for item_ids in (["i1", "i2"], ["i1"])
        )
        earlier = run_request(engine, EngineRequest("rank", with_it, candidates=["i7", "i8"]))
        engine.hide(["i2"])
        now = run_request(engine, EngineRequest("rank", with_it, candidates=["i7", "i8"]))
        assert now == earlier
        assert (
            run_request(engine, EngineRequest("rank", without, candidates=["i7", "i8"])).items[0].score
            != earlier.items[0].score
        )
        assert run_request(engine, EngineRequest("similar", FrozenState(at=0.0), k=3, item_id="i2")).items, (
            "it may be asked about"
        )
    finally:
        engine.hide([])


def test_hidden_candidates_are_neither_ranked_nor_unknown(engine: BundleEngine) -> None:
    try:
        engine.hide(["i1", "not here yet"])
        response = run_request(engine, EngineRequest("rank", STATE, candidates=["i1", "not here yet", "i1"]))
        assert (response.items, response.unknown, response.hidden) == ([], [], ["i1", "not here yet"])
        response = run_request(engine, EngineRequest("rank", STATE, candidates=["i1", "i2", "never heard of"]))
        assert (ids(response), response.unknown, response.hidden) == (["i2"], ["never heard of"], ["i1"])
        with pytest.raises(UnknownItem, match="never heard of"):
            engine.prepare(EngineRequest("rank", STATE, candidates=["never heard of"]))
    finally:
        engine.hide([])


@pytest.mark.parametrize(
    ("part", "expected"),
    [("items.parquet", "vectors"), ("vectors.fp32.npy", "vectors"), ("sources/popularity.npy", "popularity"),
     ("sources/covisit.npz", "covisit"), ("twice", "distinct items"), ("wider", "vectors")],
)  # fmt: skip
def test_a_catalogue_whose_parts_do_not_fit_is_refused(
    bundle: Bundle, tmp_path: Path, part: str, expected: str
) -> None:
    """With correct digests: the catalogue was built wrong, not damaged."""
    catalogue = make_catalogue(bundle, tmp_path / "catalogue")
    shorter = make_catalogue(bundle, tmp_path / "shorter", items=30)
    if part == "twice":
        table = parquet.read_table(catalogue / "items.parquet")
        twice = pa.concat_tables([table.slice(0, 1), table.slice(0, table.num_rows - 1)])
        parquet.write_table(twice, catalogue / "items.parquet")
    elif part == "wider":
        np.save(catalogue / "vectors.fp32.npy", np.zeros((44, 9), np.float32))
    else:
        shutil.copyfile(shorter / part, catalogue / part)
    write_catalogue_manifest(catalogue)
    with pytest.raises(IntegrityError, match=rf"do not fit each other[\s\S]*{expected}"):
        BundleEngine.load(open_bundle(bundle.folder, catalogue=catalogue), precision="fp32", provider="cpu", threads=1)


def test_a_later_catalogue_is_served_with_the_same_graphs(bundle: Bundle, tmp_path: Path) -> None:
    later = open_bundle(bundle.folder, catalogue=make_catalogue(bundle, tmp_path / "catalogue"))
    assert (later.model_id, later.revision == bundle.revision) == (bundle.model_id, False)
    engine = BundleEngine.load(later, precision="fp32", provider="cpu", threads=1)
    assert engine.info.revision == later.revision
    assert len(engine.item_ids) == 44
    assert ids(run_request(engine, EngineRequest("rank", STATE, candidates=["i43"]))) == ["i43"]


def test_another_catalogue_of_the_same_model_shares_its_graphs(
    bundle: Bundle, other_bundle: Bundle, engine: BundleEngine, tmp_path: Path
) -> None:
    later = open_bundle(bundle.folder, catalogue=make_catalogue(bundle, tmp_path / "catalogue"))
    alone = BundleEngine.load(later, precision="fp32", provider="cpu", threads=1)
    beside = BundleEngine.load(later, precision="fp32", provider="cpu", threads=1, share_graphs_with=engine)
    assert beside.graphs is engine.graphs is not alone.graphs
    request = EngineRequest("rank", STATE, candidates=list(alone.item_ids), query="love")
    assert run_request(beside, request) == run_request(alone, request) != run_request(engine, request)
    other = BundleEngine.load(other_bundle, precision="fp32", provider="cpu", threads=1, share_graphs_with=engine)
    assert other.graphs is not engine.graphs
    half = BundleEngine.load(bundle, precision="fp16", provider="cpu", threads=1, share_graphs_with=engine)
    assert half.graphs is not engine.graphs


def test_unknown_items_are_named(engine: BundleEngine) -> None:
    with pytest.raises(UnknownItem, match="nobody"):
        engine.prepare(EngineRequest("similar", FrozenState(at=0.0), item_id="nobody"))
    with pytest.raises(UnknownItem, match="x, y"):
        engine.prepare(EngineRequest("rank", FrozenState(at=0.0), candidates=["x", "y"]))


def test_fp16_vectors_are_read_as_float32(bundle: Bundle, engine: BundleEngine) -> None:
    half = BundleEngine.load(bundle, precision="fp16", provider="cpu", threads=1)
    one, other = (
        run_request(e, EngineRequest("rank", STATE, candidates=["i1"])).items[0].score for e in (engine, half)
    )
    assert one == pytest.approx(other, abs=1e-2)
    assert one != other


def test_a_bundle_without_towers_refuses_a_query_and_still_ranks(tmp_path: Path) -> None:
    built = make_bundle(tmp_path / "plain")
    files = built.manifest.precisions["fp32"].model_copy(update={"text": None, "user": None})
    plain = write_bundle_manifest(built.folder, built.manifest.model_copy(update={"precisions": {"fp32": files}}))
    engine = BundleEngine.load(plain, precision="fp32", provider="cpu", threads=1)
    with pytest.raises(UsageError, match="cannot read a query"):
        engine.prepare(EngineRequest("rank", STATE, candidates=["i1"], query="love"))
    assert len(run_request(engine, EngineRequest("recommend", STATE, k=3)).items) == 3


def test_a_missing_precision_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=r"no int8 files[\s\S]*fp16, fp32"):
        BundleEngine.load(bundle, precision="int8", provider="cpu", threads=1)


def test_features_of_another_version_are_refused(bundle: Bundle) -> None:
    strange = bundle.manifest.features.model_copy(update={"user": ["user_mood"]})
    changed = dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"features": strange}))
    with pytest.raises(RanklineError, match="user_mood"):
        BundleEngine.load(changed, precision="fp32", provider="cpu", threads=1)


def test_scores_that_are_no_numbers_never_serve(tmp_path: Path) -> None:
    built = make_bundle(tmp_path / "nan")
    vectors = np.load(built.folder / "catalogue" / "vectors.fp32.npy")
    np.save(built.folder / "catalogue" / "vectors.fp32.npy", vectors * np.nan)
    with pytest.raises(ServerError, match="not numbers"):
        BundleEngine.load(
            write_bundle_manifest(built.folder, built.manifest), precision="fp32", provider="cpu", threads=1
        )


def test_graphs_that_do_not_load_or_do_not_fit_are_refused(tmp_path: Path) -> None:
    built = make_bundle(tmp_path / "broken")
    (built.folder / "scorer.onnx").write_bytes(b"no graph")
    with pytest.raises(IntegrityError, match=r"scorer\.onnx cannot be loaded"):
        BundleEngine.load(
            write_bundle_manifest(built.folder, built.manifest), precision="fp32", provider="cpu", threads=1
        )
    (built.folder / "scorer.onnx").write_bytes((built.folder / "text.onnx").read_bytes())
    with pytest.raises(IntegrityError, match="does not load and answer"):
        BundleEngine.load(
            write_bundle_manifest(built.folder, built.manifest), precision="fp32", provider="cpu", threads=1
        )


def test_cuda_that_is_not_there_is_refused() -> None:
    require_provider("cpu")
    with pytest.raises(DeviceError, match="CUDAExecutionProvider"):
        require_provider("cuda")


def test_bound_inputs_give_the_same_output(bundle: Bundle) -> None:
    graph = Graph(bundle.folder / "text.onnx", provider="cpu", threads=1)
    feeds = {"input_ids": np.array([[2, 3]]), "attention_mask": np.array([[1, 1]])}
    np.testing.assert_array_equal(graph(feeds), graph.run_bound(feeds))


# -- queries -------------------------------------------------------------------------------------------


SURE = ServingPolicy(
    calibration=Calibration(share_weight=0.0, feature_weights={"bm25_log": 4.0}, bias=-1.0), abstain_below=0.5
)
NOBODY = FrozenState(at=1000.0)


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> BundleEngine:
    bundle = make_bundle(tmp_path_factory.mktemp("worded") / "b", queries=True, policy=SURE, withdrawn=(1,))
    return BundleEngine.load(bundle, precision="fp32", provider="cpu", threads=1)


def test_a_search_follows_the_query_and_names_the_sources(worded: BundleEngine) -> None:
    response = run_request(worded, EngineRequest("search", NOBODY, k=4, query="dream")).items
    assert response
    assert all("dream" in item.title for item in response)
    assert all("bm25" in item.sources for item in response)


def test_a_history_beside_a_query_counts_too(worded: BundleEngine) -> None:
    alone = worded.run([worded.prepare(EngineRequest("search", NOBODY, query="dream"))])[0]
    with_history = FrozenState(at=1000.0, history=HISTORY)
    both = worded.run([worded.prepare(EngineRequest("search", with_history, query="dream"))])[0]
    assert not np.array_equal(alone.rows_N, both.rows_N) or not np.allclose(alone.logits_NH, both.logits_NH)
    assert "covisit" in both.proposed
    assert len(both.proposed["covisit"])
    assert not len(alone.proposed["covisit"])


def test_the_query_vector_is_the_sum_over_query_and_history(worded: BundleEngine) -> None:
    requests = [
        EngineRequest("search", NOBODY, query="dream"),
        EngineRequest("recommend", FrozenState(at=1000.0, history=HISTORY)),
        EngineRequest("search", FrozenState(at=1000.0, history=HISTORY), query="dream"),
    ]
    query_D, history_D, both_D = worded._query_vectors([worded.prepare(request) for request in requests])
    assert np.abs(query_D).max() > 0
    np.testing.assert_allclose(both_D, query_D + history_D, atol=1e-6)


def test_a_probable_answer_has_a_probability(worded: BundleEngine) -> None:
    response = run_request(worded, EngineRequest("search", NOBODY, k=3, query="dream"))
    assert not response.abstained
    assert response.items
    assert all(item.probability is not None and item.probability > 0.5 for item in response.items)


def test_it_abstains_where_nothing_is_likely(worded: BundleEngine) -> None:
    response = run_request(worded, EngineRequest("search", NOBODY, k=3, query="unheard"))
    assert response.abstained
    assert response.items[0].probability == pytest.approx(1 / (1 + np.exp(1.0)), abs=1e-6)


def test_a_model_that_is_not_calibrated_returns_no_probabilities(engine: BundleEngine) -> None:
    response = run_request(engine, EngineRequest("recommend", STATE, k=3))
    assert [item.probability for item in response.items] == [None] * 3
    assert not response.abstained


@pytest.mark.parametrize(
    "engine_request",
    [
        EngineRequest("recommend", NOBODY),
        EngineRequest("search", NOBODY, query="love"),
        EngineRequest("similar", NOBODY, item_id="i9"),
    ],
)
def test_an_item_that_is_not_available_is_never_proposed(worded: BundleEngine, engine_request: EngineRequest) -> None:
    items = {item.item_id for item in run_request(worded, engine_request).items}
    assert "i1" not in items
    assert items


def test_an_unavailable_item_is_ranked_only_in_a_snapshot_request(worded: BundleEngine) -> None:
    request = EngineRequest("rank", NOBODY, query="love", candidates=["i1", "zz", "i2"])
    response = run_request(worded, request)
    assert (ids(response), response.withdrawn, response.hidden, response.unknown) == (["i2"], ["i1"], [], ["zz"])
    again = run_request(worded, dataclasses.replace(request, frozen=True))
    assert ({*ids(again)}, again.withdrawn) == ({"i1", "i2"}, [])
    alone = run_request(worded, dataclasses.replace(request, candidates=["i1"]))
    assert (alone.items, alone.withdrawn) == ([], ["i1"])


def test_a_bundle_whose_policy_cannot_be_read_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    (bundle.folder / POLICY_FILE).write_text('{"abstain_below": 7}')
    with pytest.raises(IntegrityError, match="policy"):
        BundleEngine.load(bundle, precision="fp32", provider="cpu", threads=1)


# The order of answers ---------------------------------------------------------------------------------------------


def with_prices(bundle: Bundle, prices: list[float | None]) -> Bundle:
    """The bundle with a column of prices in its catalogue."""
    path = bundle.catalogue / "items.parquet"
    items = parquet.read_table(path)
    parquet.write_table(items.append_column("price", pa.array(prices, pa.float64())), path)
    write_catalogue_manifest(bundle.catalogue)
    return write_bundle_manifest(bundle.folder, bundle.manifest)


def ordered_engine(bundle: Bundle) -> BundleEngine:
    return BundleEngine.load(bundle, precision="fp32", provider="cpu", threads=1)


def test_an_answer_is_sorted_by_the_declared_order_and_an_unknown_number_counts_as_0(tmp_path: Path) -> None:
    policy = ServingPolicy(order="2*click - price/10")
    prices: list[float | None] = [None if row % 3 == 0 else float(row) for row in range(40)]
    engine = ordered_engine(with_prices(make_bundle(tmp_path / "b", policy=policy), prices))
    items = run_request(engine, EngineRequest("recommend", STATE, k=1000)).items
    assert {prices[int(item.item_id[1:])] is None for item in items} == {True, False}
    for item in items:
        price = prices[int(item.item_id[1:])] or 0.0
        assert item.score == pytest.approx(2 * item.heads["click"] - price / 10)
    assert [item.score for item in items] == sorted((item.score for item in items), reverse=True)


def test_a_catalogue_without_the_number_of_the_order_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", policy=ServingPolicy(order="rank*price"))
    with pytest.raises(IntegrityError, match=r"has no number(.|\n)*no price"):
        ordered_engine(bundle)


def test_an_order_that_gives_no_number_is_refused(tmp_path: Path) -> None:
    policy = ServingPolicy(order="rank*price*1e307")
    with pytest.raises(ServerError, match="gives no number"):
        ordered_engine(with_prices(make_bundle(tmp_path / "b", policy=policy), [1e3] * 40))
