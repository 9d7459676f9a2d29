"""Where a field of the user or of the request decides, the served model knows what those choose who have no history."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from components.distill.step import distill
from components.evaluate import replay
from components.export import graphs
from components.export.step import export
from components.export.student import Student
from components.featurize.step import featurize
from components.finetune.step import finetune
from components.ingest.step import ingest
from pipelines.recipe import change_of
from rankline.model.bundle import open_bundle
from rankline.model.catalogue import cpu_session
from rankline.runtime.progress import Progress
from rankline.runtime.server_process import serving
from tests.components.context_world import DISTILL, EXPORT, FINETUNE, World, featurize_config, ingest_config, write_shop

LISTED = 10


@dataclass(frozen=True)
class Trained:
    """A model of one shop, and its features."""

    features: Path
    student: Path
    bundle: Path


def train(folder: Path, world: World, declared: Mapping[str, Any]) -> Trained:
    """Every step from the source to the bundle."""
    write_shop(folder / "shop", world)
    ingest(folder / "raw", config=ingest_config(folder / "shop"))
    featurize(folder / "raw", folder / "features", config=featurize_config(**declared))
    (folder / "teacher").mkdir()
    seeded = {"seed": world.seed}
    finetune(folder / "features", folder / "teacher", config=change_of(FINETUNE, **seeded), progress=Progress())
    trained = Trained(folder / "features", folder / "student", folder / "bundle")
    distill(
        trained.features, folder / "teacher", trained.student, config=change_of(DISTILL, **seeded), progress=Progress()
    )
    export(trained.features, trained.student, trained.bundle, config=EXPORT, progress=Progress())
    return trained


def served_ndcg(trained: Trained, folder: Path) -> dict[str, float]:
    """nDCG@10 of test requests without a history by a real server: with the declared fields, without, by popularity."""
    chosen = replay.sample_requests(trained.features, split="test", max_requests=0, seed=0)
    asked = [
        request
        for request, _ in replay.read_requests(trained.features, split="test", chosen=chosen)
        if not request.request.state.history.item_ids
    ]
    assert len(asked) > 50
    left_out: dict[str, Any] = {"profile": {}, "context": {}}
    bare = [replace(r, request=replace(r.request, state=r.request.state.model_copy(update=left_out))) for r in asked]
    popular = _popular(trained.features)
    model_id = open_bundle(trained.bundle).model_id
    with serving(
        trained.bundle, folder=folder, precision="fp32", start_timeout_s=60, request_timeout_s=30, connections=2
    ) as server:
        lists = {
            name: [replay.recommend(server, request, model_id=model_id, k=LISTED) for request in requests]
            for name, requests in (("declared", asked), ("bare", bare))
        }
    lists["popularity"] = [popular] * len(asked)
    return {name: float(np.mean([_ndcg(ranked, r) for ranked, r in zip(each, asked)])) for name, each in lists.items()}


def _ndcg(ranked: list[str], request: replay.ReplayRequest) -> float:
    targets = set(request.request.targets)
    gains = [1 / np.log2(place + 2) for place, item in enumerate(ranked[:LISTED]) if item in targets]
    return float(sum(gains) / sum(1 / np.log2(place + 2) for place in range(min(LISTED, len(targets)))))


def _popular(features: Path) -> list[str]:
    import pyarrow.parquet as parquet

    histories = parquet.read_table(features / "sequences.parquet")["item_ids"].to_pylist()
    items, counts = np.unique([item for items in histories for item in items], return_counts=True)
    return [str(items[row]) for row in np.argsort(-counts, kind="stable")[:LISTED]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A shop where gender decides; fields of every kind are declared."""
    declared = {"user_features": ("gender", "age", "about"), "context_features": ("device", "holiday")}
    return train(tmp_path_factory.mktemp("gender"), World("gender"), declared)


@pytest.mark.integration
def test_users_without_a_history_get_what_their_field_decides(trained: Trained, tmp_path: Path) -> None:
    ndcg = served_ndcg(trained, tmp_path)
    assert ndcg["declared"] > ndcg["popularity"] + 0.1
    assert ndcg["bare"] > ndcg["popularity"] - 0.05


def test_a_bundle_holds_the_encoding_and_its_graph(trained: Trained, tmp_path: Path) -> None:
    bundle = open_bundle(trained.bundle)
    assert {"profile.json", "profile.onnx"} <= bundle.manifest.files.keys()
    fields = bundle.profile_encoder.fields
    assert fields.user == {"gender": "choice", "age": "number", "about": "text"}
    assert bundle.manifest.features.service == fields.service
    parity = {each.graph: each.max_abs_difference for each in bundle.manifest.parity}
    assert parity["profile"] < 1e-5
    graphs.write_fp16(trained.bundle / "profile.onnx", tmp_path / "halved.onnx")
    profile_network = Student.load(trained.student).profile
    assert profile_network is not None
    known_BN = {"known_BN": np.eye(profile_network.enter.in_features, dtype=np.float32)}
    whole, halved = (
        cpu_session(path).run(None, known_BN)[0] for path in (trained.bundle / "profile.onnx", tmp_path / "halved.onnx")
    )
    np.testing.assert_allclose(halved, whole, atol=2e-2)
    network = {name for name in load_file(trained.student / "weights.safetensors") if "profile" in name}
    assert {"towers.profile.enter.weight", "towers.profile.leave.weight"} <= network


def test_the_canaries_of_a_bundle_carry_their_fields(trained: Trained) -> None:
    canaries = [json.loads(line) for line in (trained.bundle / "examples.jsonl").read_text().splitlines()]
    assert all({"gender", "age", "about"} == canary["frozen"]["profile"].keys() for canary in canaries)
    assert all({"device", "holiday"} == canary["frozen"]["context"].keys() for canary in canaries)


@pytest.mark.slow  # a minute each
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("decides", ["gender", "age", "about", "device", "holiday"])
def test_whichever_field_decides(decides: str, seed: int, tmp_path: Path) -> None:
    setting = "context_features" if decides in ("device", "holiday") else "user_features"
    trained = train(tmp_path, World(decides, seed=seed), {setting: (decides,)})
    ndcg = served_ndcg(trained, tmp_path / "server")
    assert ndcg["declared"] > ndcg["popularity"] + 0.1, ndcg
    assert ndcg["bare"] > ndcg["popularity"] - 0.05, ndcg


@pytest.mark.slow  # a minute
def test_users_of_one_event_each_are_enough(tmp_path: Path) -> None:
    """Nobody has a history: there is nothing but the fields to learn from."""
    world = World("device", users=800, events_per_user=1)
    trained = train(tmp_path, world, {"context_features": ("device",)})
    ndcg = served_ndcg(trained, tmp_path / "server")
    assert ndcg["declared"] > ndcg["popularity"] + 0.1, ndcg
