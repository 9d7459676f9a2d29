"""Heads per label on a synthetic log of ads in which every chance was planted: from features to served values."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.distill import head_calibration, label_heads
from components.distill.config import DistillConfig
from components.distill.head_calibration import best_threshold, fit_curve, fit_platt, log_loss
from components.distill.impressions import Impressions
from components.distill.step import distill
from components.evaluate.config import EvaluateConfig
from components.evaluate.step import evaluate
from components.export.config import ExportConfig
from components.export.step import export
from components.finetune.config import FinetuneConfig
from components.finetune.step import finetune
from rankline.contracts import Manifest
from rankline.errors import TooSmall, UsageError
from rankline.evaluation.decision import PromotionPolicy, decide
from rankline.evaluation.report import Report, read_report
from rankline.evaluation.snapshot_requests import read_snapshot_requests
from rankline.gates.evidence import read_evidence
from rankline.labels import Label
from rankline.model.bundle import Bundle, open_bundle, write_bundle_manifest
from rankline.model.head_values import HeadPolicy, head_values
from rankline.model.policy import POLICY_FILE, ServingPolicy
from rankline.model.scoring import Catalogue
from rankline.runtime.progress import Progress
from rankline.train.examples import Examples, read_examples
from serving.engine import BundleEngine, EngineRequest
from tests.components.ads_world import EXAMINED, LABELS, Ads, write_ads

ORDER = "0.2*click + purchase*price"
TEACHER = FinetuneConfig(max_tokens=16, vector_size=16, max_history=20, layers=1, epochs=4, soft_candidates=16)
STUDENT = DistillConfig(
    max_history=20, layers=1, epochs=6, candidates_per_source=20, scorer_epochs=4, calibration_folds=2,
    label_epochs=6, order=ORDER,
)  # fmt: skip
EVALUATION = EvaluateConfig(ks=(5, 10), top_k=20, latency_samples=5, bootstrap_samples=100, example_users=1)
GATES = PromotionPolicy(
    primary="ndcg@10", min_requests=10, must_beat=[], max_p95_ms=None,
    floors={"click.auc": 0.55, "purchase.pr_auc": 0.02}, ceilings={"click.ece": 0.05, "worth.mse": 1e5},
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """What the steps make of the log of ads."""

    ads: Ads
    folder: Path
    result: dict[str, Any]

    @property
    def bundle(self) -> Bundle:
        return open_bundle(self.folder / "bundle")

    def evaluate(self, bundle: Path, report: Path) -> Report:
        parts = (self.folder / name for name in ("features", "teacher", "student"))
        evaluate(bundle, *parts, report, config=EVALUATION)
        return read_report(report)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("ads")
    ads = write_ads(folder / "features", users=60)
    (folder / "teacher").mkdir()
    finetune(folder / "features", folder / "teacher", config=TEACHER, progress=Progress())
    inputs = (folder / "features", folder / "teacher", folder / "student")
    result = distill(*inputs, config=STUDENT, progress=Progress())
    config = ExportConfig(recipe="ads", parity_samples=32, int8=False, fp16=False)
    export(folder / "features", folder / "student", folder / "bundle", config=config, progress=Progress())
    return World(ads, folder, result)


@pytest.fixture(scope="module")
def report(world: World) -> Report:
    return world.evaluate(world.folder / "bundle", world.folder / "report")


# What is served ---------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_bundle_has_a_head_per_label_and_the_order(world: World) -> None:
    bundle = world.bundle
    assert bundle.manifest.heads == ["rank", *LABELS]
    assert bundle.policy.order == ORDER
    assert bundle.policy.heads["purchase"].after == "click"
    assert len(bundle.policy.heads["click"].positions) == len(EXAMINED)
    assert bundle.policy.heads["purchase"].positions == []


def test_an_answer_has_calibrated_values_and_the_declared_order(world: World) -> None:
    engine = BundleEngine.load(world.bundle, precision="fp32", provider="cpu", threads=1)
    state = canary_state(world)
    request = EngineRequest("rank", state, candidates=world.ads.ids)
    prepared = engine.prepare(request)
    items = engine.finish(prepared, engine.run([prepared])[0]).items
    price = dict(zip(world.ads.ids, world.ads.prices))
    for item in items:
        assert set(item.heads) == set(LABELS)
        assert set(item.logits) == {"rank", *LABELS}
        assert 0 < item.heads["purchase"] < item.heads["click"] < 1
        expected = 0.2 * item.heads["click"] + item.heads["purchase"] * price[item.item_id]
        assert item.score == pytest.approx(expected)
    assert [item.score for item in items] == sorted((item.score for item in items), reverse=True)


def canary_state(world: World) -> Any:
    from rankline.contracts import FrozenState

    return FrozenState(**json.loads((world.folder / "bundle" / "examples.jsonl").read_text().splitlines()[0])["frozen"])


def test_a_chance_does_not_depend_on_what_else_is_ranked(world: World) -> None:
    engine = BundleEngine.load(world.bundle, precision="fp32", provider="cpu", threads=1)
    heads = []
    for candidates in (world.ads.ids[:1], world.ads.ids):
        prepared = engine.prepare(EngineRequest("rank", canary_state(world), candidates=candidates))
        ranked = {item.item_id: item.heads for item in engine.finish(prepared, engine.run([prepared])[0]).items}
        heads.append(ranked[world.ads.ids[0]])
    assert heads[0] == pytest.approx(heads[1], rel=1e-5)


# What is reported -------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_the_report_has_the_metrics_of_every_head(report: Report) -> None:
    assert list(report.heads) == list(LABELS)
    click, worth = report.heads["click"].metrics, report.heads["worth"].metrics
    assert {
        "auc",
        "pr_auc",
        "log_loss",
        "ece",
        "worst_decile",
        "precision",
        "recall",
        "f1",
        "threshold",
    } <= click.keys()
    assert click["auc"] > 0.58
    assert click["share"] == pytest.approx(click["mean_chance"], abs=0.05)
    assert {"mse", "mae"} <= worth.keys()
    assert sum(each.count for each in report.heads["click"].deciles) == report.heads["click"].impressions == 60 * 4 * 5
    assert "log_loss_without_position" in report.heads["click"].validation
    assert report.parity.served_max_abs_difference < 1e-4
    assert "like_auc" not in report.calibration


def verdict(world: World, folder: Path, policy: PromotionPolicy) -> list[str]:
    """The gates that an evaluation fails."""
    manifest: Manifest = world.bundle.manifest
    decision = decide(read_report(folder), read_evidence(folder), manifest, policy, champion_id="")
    return [check.name for check in decision.failures]


def test_every_metric_of_a_head_can_be_named_by_a_gate(world: World, report: Report) -> None:
    folder = world.folder / "report"
    assert verdict(world, folder, GATES) == []
    strict = GATES.model_copy(update={"floors": {"click.auc": 0.99}, "ceilings": {"worth.mae": 0.1}})
    assert verdict(world, folder, strict) == ["floor click.auc", "ceiling worth.mae"]


@pytest.mark.integration
def test_broken_calibration_fails_its_gate(world: World, report: Report, tmp_path: Path) -> None:
    """The bundle promises clicks twice as likely as they are; the order of the items stays the same."""
    import shutil

    broken = Path(shutil.copytree(world.folder / "bundle", tmp_path / "bundle"))
    policy = ServingPolicy.model_validate_json((broken / POLICY_FILE).read_text())
    click = policy.heads["click"].model_copy(update={"bias": policy.heads["click"].bias + 1.0})
    broken_policy = policy.model_copy(update={"heads": {**policy.heads, "click": click}})
    (broken / POLICY_FILE).write_text(broken_policy.model_dump_json(indent=2))
    write_bundle_manifest(broken, open_bundle(broken, verify=False).manifest)
    measured = world.evaluate(broken, tmp_path / "report")
    assert measured.heads["click"].metrics["auc"] == pytest.approx(report.heads["click"].metrics["auc"])
    assert verdict(world, tmp_path / "report", GATES) == ["ceiling click.ece"]


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "named"),
    [("click + likes", "unknown: likes"), ("click*title", "not a number: title"), ("click +", "not an arithmetic")],
)
def test_a_wrong_order_is_refused_before_training(world: World, tmp_path: Path, order: str, named: str) -> None:
    config = STUDENT.model_copy(update={"order": order})
    with pytest.raises(UsageError, match=named):
        distill(world.folder / "features", tmp_path / "no teacher", tmp_path / "x", config=config, progress=Progress())


def impressions(labels: dict[str, Label], values: dict[str, Any], positions: Any = 0) -> Impressions:
    """Impressions of one item each, with these values of the labels."""
    count = len(next(iter(values.values())))
    rng = np.random.default_rng(0)
    return Impressions(
        labels=labels,
        left_RD=rng.normal(size=(count, 4)).astype(np.float32),
        request_N=np.arange(count),
        items_N=np.zeros(count, np.int64),
        features_NF=rng.normal(size=(count, 3)).astype(np.float32),
        positions_N=np.broadcast_to(positions, count).astype(np.int64),
        values_NK=np.stack([np.asarray(values[name], np.float64) for name in labels], 1),
        left_out=[2],
    )


@pytest.mark.parametrize(
    ("label", "values", "counted"),
    [
        (Label(), [1.0] * 9 + [0.0] * 50, "9 that do, 50 that do not"),
        (Label(), [1.0] * 50 + [np.nan] * 50, "50 that do, 0 that do not"),
        (Label(type="graded"), [3.0] * 9 + [np.nan] * 50, "9"),
    ],
)
def test_a_label_of_which_too_little_is_known_is_refused(label: Label, values: list[float], counted: str) -> None:
    with pytest.raises(TooSmall, match=f"learn the label it(.|\n)*{counted}"):
        impressions({"it": label}, {"it": values}).refuse_too_few()


# Negatives of requests and weights of targets -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(world: World) -> Examples:
    return read_examples(world.folder / "features", max_history=20)


def test_weights_are_one_in_the_mean_and_gains_as_given(data: Examples) -> None:
    train = data.splits["train"]
    assert np.concatenate(train.target_weights).mean() == pytest.approx(1.0)
    assert set(np.concatenate(train.target_gains)) == {1.0, 3.0}
    rows = np.arange(len(train))
    targets = np.array([of[-1] for of in train.targets])
    assert train.weights(rows, targets).tolist() == [of[-1] for of in train.target_weights]


def test_what_was_shown_stands_beside_its_target(world: World, data: Examples) -> None:
    train = data.splits["train"]
    rows = np.arange(len(train))
    items_BC, real_BC = train.target_and_shown(rows, np.array([of[0] for of in train.targets]))
    for row, items, real in zip(rows, items_BC, real_BC):
        assert items[real].tolist() == [train.targets[row][0], *train.shown[row]]
        assert len(train.shown[row]) + len(train.targets[row]) == 5
        assert not np.isin(train.shown[row], train.targets[row]).any()


@pytest.mark.parametrize("sampled_items", [0, 8])
def test_negatives_of_requests_are_learnt(world: World, tmp_path: Path, sampled_items: int) -> None:
    """Both trainers rank what was chosen above what was shown with it better than without the negatives."""
    losses = {}
    for weight in (0.0, 4.0):
        settings = {"shown_weight": weight, "sampled_items": sampled_items}
        folder = tmp_path / str(weight)
        (folder / "teacher").mkdir(parents=True)
        features = world.folder / "features"
        finetune(features, folder / "teacher", config=TEACHER.model_copy(update=settings), progress=Progress())
        losses[weight] = json.loads((folder / "teacher" / "curve.json").read_text())[-1]["loss"]
        weights = (folder / "teacher" / "weights.safetensors").read_bytes()
        losses[weight, "weights"] = weights
    assert losses[0.0, "weights"] != losses[4.0, "weights"]
    assert losses[4.0] > losses[0.0] + 1.0  # a softmax over five items, four times


def test_the_scorer_has_what_was_shown_among_its_candidates(world: World) -> None:
    requests = list(read_snapshot_requests(world.folder / "features", "valid"))
    assert all(request.shown for request in requests)
    assert all(len(request.target_weights) == len(request.targets) for request in requests)


# How it is fitted -------------------------------------------------------------------------------------------------


def test_platt_scaling_finds_what_made_the_data_also_after_another_label() -> None:
    rng = np.random.default_rng(0)
    logits, before = rng.normal(size=40_000), rng.uniform(0.3, 1.0, 40_000)
    happened = rng.random(40_000) < before / (1 + np.exp(-(1.4 * logits - 0.6)))
    np.testing.assert_allclose(fit_platt(logits, happened * 1.0, before_N=before), [1.4, -0.6], atol=0.06)


def test_a_logit_that_says_the_opposite_says_nothing() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=4000)
    happened = rng.random(4000) < 1 / (1 + np.exp(logits))
    weight, bias = fit_platt(logits, happened * 1.0, before_N=np.ones(4000))
    assert weight == 0
    assert 1 / (1 + np.exp(-bias)) == pytest.approx(happened.mean(), abs=1e-3)


def test_a_curve_bends_a_line_that_does_not_fit() -> None:
    """Half of the users never click: the chance of the likeliest is far from a logistic one."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=40_000)
    planted = np.where(logits > 0.5, 0.5, 0.05)
    happened = (rng.random(len(logits)) < planted) * 1.0
    ones = np.ones(len(logits))
    weight, bias = fit_platt(logits, happened, before_N=ones)
    curve = fit_curve(weight * logits + bias, 0 * logits, happened, before_N=ones)
    straight = HeadPolicy(type="binary", weight=weight, bias=bias)
    bent = straight.model_copy(update={"curve": curve})
    errors = [
        np.mean([abs(planted[part].mean() - head.own_values(logits)[part].mean()) for part in deciles(logits)])
        for head in (straight, bent)
    ]
    assert errors[1] < errors[0] / 3
    assert [point.calibrated for point in curve] == sorted(point.calibrated for point in curve)


def deciles(values: np.ndarray) -> list[np.ndarray]:
    return np.array_split(np.argsort(values), 10)


def test_few_events_bend_nothing() -> None:
    happened = np.array([1.0] * 200 + [0.0] * 900)
    assert fit_curve(np.linspace(-3, 3, 1100), np.zeros(1100), happened, before_N=np.ones(1100)) == []


def test_the_threshold_has_the_largest_f1() -> None:
    chance, happened = np.array([0.9, 0.8, 0.8, 0.3, 0.1]), np.array([1.0, 1.0, 0.0, 1.0, 0.0])
    assert best_threshold(happened, chance) == 0.3
    assert best_threshold(np.array([1.0, 1.0, 1.0, 0.0, 0.0]), chance) == 0.8
    assert log_loss(np.array([1.0, np.nan]), np.array([0.5, 0.1])) == pytest.approx(np.log(2))


@pytest.mark.integration
def test_positions_explain_clicks_in_training_and_are_no_part_of_the_value() -> None:
    """Ads on top are clicked three times as often; which ad is on top is drawn at random."""
    rng = np.random.default_rng(0)
    positions = rng.integers(1, 3, 6000)
    data = impressions({"click": Label()}, {"click": np.zeros(6000)}, positions)
    appeal = data.features_NF[:, 0]
    clicked = rng.random(6000) < np.where(positions == 1, 0.6, 0.2) / (1 + np.exp(-appeal))
    data = dataclasses.replace(data, values_NK=clicked[:, None] * 1.0)
    catalogue = one_item_catalogue()
    config = DistillConfig(label_epochs=8, label_batch_size=128, calibration_folds=2)
    fitted = head_calibration.fit_labels(data, catalogue, config, device=torch.device("cpu"))
    first, second = (each.offset for each in fitted.policies["click"].positions)
    assert first - second > 0.8
    reached = fitted.reached["click"]
    assert reached["log_loss_at_position"] < reached["log_loss_without_position"] - 0.02
    outputs = label_heads.outputs(fitted.model, data, np.arange(6000), catalogue)
    chance = head_values({"click": outputs[:, 0]}, fitted.policies)["click"]
    planted = 0.4 / (1 + np.exp(-appeal))
    for part in np.array_split(np.argsort(chance), 10):
        assert chance[part].mean() == pytest.approx(planted[part].mean(), abs=0.05)


def one_item_catalogue() -> Catalogue:
    import scipy.sparse as sparse

    return Catalogue(
        item_ids=["a"], index={"a": 0}, vectors_ID=np.ones((1, 4), np.float32),
        categories_IC=np.zeros((1, 0), np.float32), vocabulary=[], covisit=sparse.csr_matrix((1, 1), dtype=np.float32),
        popularity_I=np.ones(1, np.float32),
    )  # fmt: skip
