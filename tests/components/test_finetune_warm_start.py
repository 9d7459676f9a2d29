"""finetune with a warm start: what it loads, what it refuses, and what it gains."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file

from components.finetune import warm_start
from components.finetune.config import FinetuneConfig
from components.finetune.sequence.model import build_teacher
from components.finetune.step import finetune
from rankline.errors import IntegrityError
from rankline.features.profile import ProfileFields
from rankline.io import artifacts, digest
from rankline.registry.model_registry import ModelRegistry
from rankline.registry.removal import delete_from_registry
from rankline.runtime import ledger, step_cache
from rankline.runtime.progress import Progress
from rankline.train import champion_weights, examples
from rankline.train.champion_weights import WarmStart
from tests.components.features_world import CATEGORY_NAMES, write_features

SETTINGS = FinetuneConfig(
    max_tokens=8, vector_size=16, max_history=10, layers=1, epochs=6, batch_size=16, negatives=16, evaluate_every=1,
    patience=99, soft_candidates=8, rankings_depth=10, dropout=0.0, learning_rate=5e-3,
)  # fmt: skip
WARM = SETTINGS.model_copy(update={"warm_start": True})
CHAMPION = "c" * 16


def train(features: Path, teacher: Path, config: FinetuneConfig = SETTINGS, start: WarmStart | None = None) -> Any:
    return finetune(features, teacher, config=config, progress=Progress(), start=start)


def curve(teacher: Path) -> list[float]:
    return [point["valid_ndcg@10"] for point in json.loads((teacher / "curve.json").read_text())]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of two windows, one a week later, a teacher of the first, and its weights in a repository."""
    folder = tmp_path_factory.mktemp("warm")
    write_features(folder / "first")
    write_features(folder / "later", days=7)
    train(folder / "first", folder / "teacher")
    champion_weights.save_weights(ModelRegistry(folder / "repository"), CHAMPION, folder / "teacher")
    return folder


@pytest.fixture(scope="module")
def start(world: Path) -> WarmStart:
    models = ModelRegistry(world / "repository")
    return champion_weights.select_warm_start(models, CHAMPION, "other data").fetched(models, world)


def open_weights(world: Path, start: WarmStart, features: Path, **overrides: Any) -> warm_start.WarmWeights:
    data = examples.read_examples(features, max_history=SETTINGS.max_history)
    return warm_start.open_weights(start, data, SETTINGS.model_copy(update=overrides))


# The gain -----------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_a_given_quality_is_reached_in_fewer_epochs_than_from_scratch(
    world: Path, start: WarmStart, tmp_path: Path
) -> None:
    from_scratch = train(world / "later", tmp_path / "scratch", WARM, WarmStart(why="there is no champion yet"))
    warm = train(world / "later", tmp_path / "warm", WARM, start)
    aim = max(curve(tmp_path / "scratch"))
    epochs = [next(n for n, reached in enumerate(curve(tmp_path / name)) if reached >= 0.8 * aim)
              for name in ("scratch", "warm")]  # fmt: skip
    assert epochs[1] < epochs[0]
    assert warm["valid_ndcg@10"] >= from_scratch["valid_ndcg@10"] - 0.02
    losses = [json.loads((tmp_path / name / "curve.json").read_text())[0]["loss"] for name in ("scratch", "warm")]
    assert losses[1] < losses[0]
    assert (warm["began_from"], warm["items_found_again"]) == (CHAMPION, "40 of 40")
    assert (from_scratch["began_from"], from_scratch["began_why"]) == ("scratch", "there is no champion yet")
    assert warm["valid_ndcg@10_at_start"] > 0.5 * aim


def test_it_ends_no_worse_than_it_began(world: Path, start: WarmStart, tmp_path: Path) -> None:
    config = WARM.model_copy(update={"learning_rate": 1.0, "warm_epochs": 2})  # training can only do harm
    result = train(world / "later", tmp_path / "teacher", config, start)
    assert (result["best_epoch"], result["epochs"]) == (-1, 2)
    assert result["valid_ndcg@10"] == result["valid_ndcg@10_at_start"]
    before, after = (load_file(path / "weights.safetensors") for path in (world / "teacher", tmp_path / "teacher"))
    assert torch.equal(before["tower.blocks.0.qkv.weight"], after["tower.blocks.0.qkv.weight"])


def test_a_teacher_that_the_champion_has_not_is_trained_in_full(world: Path, start: WarmStart, tmp_path: Path) -> None:
    config = WARM.model_copy(update={"teachers": 2, "warm_epochs": 1, "epochs": 3})
    result = train(world / "later", tmp_path / "teacher", config, start)
    lengths = [len(json.loads((tmp_path / "teacher" / f"curve{mark}.json").read_text())) for mark in ("", "-1")]
    assert lengths == [1, 3]
    assert (result["teachers_from_scratch"], result["epochs"]) == ("1 of 2", 1)


def test_a_warm_start_without_weights_changes_nothing(world: Path, tmp_path: Path) -> None:
    """A warm start without weights is a cold start, bit for bit."""
    train(world / "first", tmp_path / "none", WARM, WarmStart(why="there is no champion yet"))
    for name in ("weights.safetensors", "soft.npz", "text_vectors.npy", "rankings.parquet", "curve.json"):
        assert digest.file_digest(world / "teacher" / name) == digest.file_digest(tmp_path / "none" / name), name


# Loading -------------------------------------------------------------------------------------------


def test_items_are_found_again_by_their_ids_and_side_information_by_its_name(
    world: Path, start: WarmStart, tmp_path: Path
) -> None:
    """A new category, first in the alphabet, moves every row and column; one item is removed."""
    features = write_features(
        tmp_path / "moved", days=7, categories_of_items=("art", *CATEGORY_NAMES), without=("books-red",)
    )
    data = examples.read_examples(features, max_history=SETTINGS.max_history)
    warm = warm_start.open_weights(start, data, SETTINGS)
    torch.manual_seed(3)
    model = build_teacher(data, 32, config=SETTINGS, rng=np.random.default_rng(0))
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    warm.load_weights(model, data)
    assert len(warm.matched_rows(data)) == 39
    there, now = load_file(world / "teacher" / "weights.safetensors"), model.state_dict()
    before = examples.read_examples(world / "first", max_history=SETTINGS.max_history)
    for item in ("garden-blue", "toys-round"):
        row = there["fusion.own.weight"][before.index[item]]
        assert torch.equal(now["fusion.own.weight"][data.index[item]], row)
    assert torch.equal(
        now["fusion.own.weight"][data.index["art-red"]], fresh["fusion.own.weight"][data.index["art-red"]]
    )
    columns = {name: n for n, name in enumerate(warm_start.side_names(data))}
    old = {name: n for n, name in enumerate(warm_start.side_names(before))}
    for name in ("category=toys", "price"):
        assert torch.equal(now["fusion.side.weight"][:, columns[name]], there["fusion.side.weight"][:, old[name]])
    art = columns["category=art"]
    assert torch.equal(now["fusion.side.weight"][:, art], fresh["fusion.side.weight"][:, art])
    assert torch.equal(now["fusion.known_I"], fresh["fusion.known_I"])  # known items belong to the data


def declare_section(features: Path, order: dict[str, str]) -> Path:
    """Declare a field of users: the section that they read, under the names of ``order``."""
    table = parquet.read_table(features / "requests.parquet")
    sections = [order[item[0].partition("-")[0]] for item in table["targets"].to_pylist()]
    parquet.write_table(table.append_column("profile_section", pa.array(sections)), features / "requests.parquet")
    summary = json.loads((features / "summary.json").read_text())
    fields = ProfileFields(user={"section": "choice"})
    summary |= {"service": fields.service, "profile": fields.model_dump()}
    (features / "summary.json").write_text(json.dumps(summary))
    return features


def test_inputs_of_declared_fields_are_found_again_by_their_names(tmp_path: Path) -> None:
    """The section of toys has another name now, and all are equally frequent, so that the alphabet orders them."""
    same = {name: name for name in CATEGORY_NAMES}
    first = declare_section(write_features(tmp_path / "first"), same)
    later = declare_section(write_features(tmp_path / "later", days=7), {**same, "toys": "art"})
    train(first, tmp_path / "teacher")
    models = ModelRegistry(tmp_path / "repository")
    champion_weights.save_weights(models, CHAMPION, tmp_path / "teacher")
    start = champion_weights.select_warm_start(models, CHAMPION, "other data").fetched(models, tmp_path)
    data = examples.read_examples(later, max_history=SETTINGS.max_history)
    warm = warm_start.open_weights(start, data, SETTINGS)
    model = build_teacher(data, 32, config=SETTINGS, rng=np.random.default_rng(0))
    fresh = model.state_dict()["profile.enter.weight"].clone()
    warm.load_weights(model, data)
    there, now = load_file(tmp_path / "teacher" / "weights.safetensors"), model.state_dict()
    assert data.profile is not None
    old = [f"profile.section={name}" for name in CATEGORY_NAMES] + ["profile.section is another"]
    for column, name in enumerate(data.profile.input_names(5)):
        source = (
            fresh[:, column] if name == "profile.section=art" else there["profile.enter.weight"][:, old.index(name)]
        )
        assert torch.equal(now["profile.enter.weight"][:, column], source)
    assert torch.equal(now["profile.leave.weight"], there["profile.leave.weight"])
    assert there["profile.leave.weight"].abs().sum() > 0


def test_every_column_of_side_information_has_its_name(tmp_path: Path) -> None:
    """Every declared column, in the order of the side features."""
    features = write_features(tmp_path / "features")
    items = parquet.read_table(features / "items.parquet")
    count = len(items)
    wide = items.set_column(3, "language", pa.array(["de", "en"] * (count // 2)))
    wide = wide.append_column("weight", pa.array([float(n) for n in range(count)]))
    wide = wide.append_column("picture", pa.array([[1.0, 2.0, 3.0]] * count))
    wide = wide.append_column("brand", pa.array(["ours", "theirs", "ours", "nobody's"] * (count // 4)))
    parquet.write_table(wide, features / "items.parquet")
    data = examples.read_examples(features, max_history=5)
    names = warm_start.side_names(data)
    assert names == [
        "category=books", "category=garden", "category=music", "category=toys", "price", "language=de", "language=en",
        "weight", "picture[0]", "picture[1]", "picture[2]", "brand=ours", "brand=nobody's", "brand=theirs",
    ]  # fmt: skip
    columns = {name: data.side_IS[:, place] for place, name in enumerate(names)}
    assert list(columns["language=en"][:4]) == [0, 1, 0, 1]
    assert list(columns["brand=theirs"][:4]) == [0, 1, 0, 0]
    assert columns["weight"][0] < 0 < columns["weight"][-1]


def test_a_random_encoder_is_loaded_and_the_untuned_one_remains_the_baseline(
    world: Path, start: WarmStart, tmp_path: Path
) -> None:
    train(world / "later", tmp_path / "teacher", WARM.model_copy(update={"epochs": 1}), start)
    assert digest.file_digests(world / "teacher" / "encoder") == digest.file_digests(tmp_path / "teacher" / "encoder")
    origin = json.loads((tmp_path / "teacher" / "origin.json").read_text())
    assert (origin["began_from"], origin["encoder"]["own"]) == (CHAMPION, True)


@pytest.mark.slow
def test_several_processes_begin_as_one_does(world: Path, start: WarmStart, tmp_path: Path) -> None:
    config = WARM.model_copy(update={"epochs": 1, "processes": 2})
    result = train(world / "later", tmp_path / "two", config, start)
    one = train(world / "later", tmp_path / "one", WARM.model_copy(update={"epochs": 1}), start)
    assert result["processes"] == 2
    assert result["valid_ndcg@10_at_start"] == one["valid_ndcg@10_at_start"]
    assert result["began_from"] == CHAMPION


# Mismatches --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "changes", "why"),
    [
        ({"vector_size": 32}, {}, "vector_size is 32 here and 16 there"),
        ({"layers": 2}, {}, "layers is 2 here and 1 there"),
        ({"encoder": "fresh"}, {}, "another encoder"),
        ({"pooling": "cls"}, {}, "another encoder"),
        ({}, {"split": {"split": "time", "seed": 7}}, "split in another way"),
        ({}, {"service": "ranking_v2"}, "features are different"),
        ({}, {"train_end": "2023-12-01T00:00:00+00:00"}, "it was trained on later data"),
        ({}, {"data_end": "2023-12-31T00:00:00+00:00"}, "it was trained on later data"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_training_starts_from_scratch(
    world: Path, start: WarmStart, tmp_path: Path, overrides: dict[str, Any], changes: dict[str, Any], why: str
) -> None:
    features = write_features(tmp_path / "features", days=7, users=20, **changes)
    weights = open_weights(world, start, features, **overrides)
    assert weights.folder is None
    assert f"the weights of model {CHAMPION} do not fit: " in weights.why
    assert why in weights.why
    assert open_weights(world, start, world / "later").folder is not None  # the same start fits unchanged data


def test_weights_that_changed_are_refused(world: Path, tmp_path: Path) -> None:
    models = ModelRegistry(tmp_path / "repository")
    champion_weights.save_weights(models, CHAMPION, world / "teacher")
    path = tmp_path / "repository" / "weights" / CHAMPION / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="does not match its digest"):
        champion_weights.select_warm_start(models, CHAMPION, "other").fetched(models, tmp_path)
    (tmp_path / "repository" / "weights" / CHAMPION / "weights.json").write_text("{")
    with pytest.raises(IntegrityError, match="cannot be read"):
        champion_weights.select_warm_start(models, CHAMPION, "other")


# Selection ------------------------------------------------------------------------------------------


def stored(models: ModelRegistry, folder: Path, model: str, *, data: str, offered: str = "") -> str:
    """Store weights of a model trained on some data and offered those of another; their digest."""
    teacher = folder / model
    (teacher / "encoder").mkdir(parents=True)
    origin = {"encoder": {"own": False}, "data_digest": data, "offered": offered, "began_from": offered}
    (teacher / "origin.json").write_text(json.dumps(origin))
    (teacher / "teacher.json").write_text("{}")
    (teacher / "items.parquet").write_bytes(b"items")
    (teacher / "weights.safetensors").write_bytes(model.encode())
    champion_weights.save_weights(models, model, teacher)
    return digest.json_digest(champion_weights.read_metadata(models, model)["files"])


def test_a_repeated_run_begins_where_the_champion_of_the_same_data_began(tmp_path: Path) -> None:
    models = ModelRegistry(tmp_path / "repository")
    first = stored(models, tmp_path, "m1", data="monday")
    second = stored(models, tmp_path, "m2", data="tuesday", offered="m1")
    assert champion_weights.select_warm_start(models, "", "monday") == WarmStart(why="there is no champion yet")
    assert champion_weights.select_warm_start(models, "m1", "tuesday").digest == first
    assert champion_weights.select_warm_start(models, "m2", "wednesday").digest == second
    again = champion_weights.select_warm_start(models, "m2", "tuesday")
    assert (again.model_id, again.digest) == ("m1", first)
    assert champion_weights.select_warm_start(models, "m1", "monday").digest == ""
    assert "are not stored" in champion_weights.select_warm_start(models, "older", "monday").why
    delete_from_registry(models, "weights/m1")
    assert "no longer stored" in champion_weights.select_warm_start(models, "m2", "tuesday").why


@pytest.mark.integration
def test_weights_go_into_a_bucket_and_come_back(url: str, world: Path, tmp_path: Path) -> None:
    models = ModelRegistry(url)
    champion_weights.save_weights(models, CHAMPION, world / "teacher")
    champion_weights.save_weights(models, CHAMPION, world / "teacher")  # again, which changes nothing
    start = champion_weights.select_warm_start(models, CHAMPION, "other").fetched(models, tmp_path)
    assert open_weights(world, start, world / "later").own_encoder
    assert dataclasses.replace(start, folder="") == champion_weights.select_warm_start(models, CHAMPION, "other")
    delete_from_registry(models, f"weights/{CHAMPION}")
    assert champion_weights.read_metadata(ModelRegistry(url), CHAMPION) == {}


# As a pipeline step -------------------------------------------------------------------------------------------


def run_component(workspace: Path, features: Path, number: int, champion: str, config: FinetuneConfig) -> ledger.Entry:
    """Run finetune as a pipeline step in a run of its own."""
    from components.finetune.component import finetune as component

    run = f"2026010{number}-000000-world"
    place = workspace / "runs" / run / "teacher"
    component.python_func(
        features=SimpleNamespace(path=str(features)), config=config.model_dump(), run={"workspace": str(workspace)},
        job=run, champion=champion, teacher=SimpleNamespace(path=str(place)),
    )  # fmt: skip
    return ledger.read_entries(workspace / "runs" / run)["finetune"]


@pytest.mark.integration
def test_another_champion_changes_the_lineage_only_for_a_warm_start(world: Path, tmp_path: Path) -> None:
    workspace, quick = tmp_path / "w", {"epochs": 1}
    features = write_features(tmp_path / "features", days=7)
    artifacts.write_digests(features)
    models = ModelRegistry(workspace / "repository")
    cold, warm = (config.model_copy(update=quick) for config in (SETTINGS, WARM))
    assert run_component(workspace, features, 1, "", warm).result["began_from"] == "scratch"
    champion_weights.save_weights(models, CHAMPION, world / "teacher")
    entry = run_component(workspace, features, 2, CHAMPION, warm)
    assert (entry.status, entry.why) == ("done", "champion's weights changed")
    assert entry.result["began_from"] == CHAMPION
    assert run_component(workspace, features, 3, CHAMPION, warm).status == "reused"
    cache_key = step_cache.StepCache(workspace / "cache" / "finetune").latest()
    assert cache_key is not None
    digest_now = champion_weights.select_warm_start(models, CHAMPION, "other").digest
    assert cache_key.key["lineage"] == {"encoder": "", champion_weights.LINEAGE_KEY: digest_now}
    # when the model of this data becomes champion, the same run is a cache hit
    champion_weights.save_weights(models, "d" * 16, workspace / "runs" / "20260102-000000-world" / "teacher")
    assert run_component(workspace, features, 4, "d" * 16, warm).status == "reused"
    # without a warm start the champion does not matter
    assert run_component(workspace, features, 5, "", cold).status == "done"
    entry = run_component(workspace, features, 6, CHAMPION, cold)
    assert (entry.status, "began_from" in entry.result) == ("reused", False)


def test_damaged_weights_stop_the_step_with_one_message(world: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    features = write_features(tmp_path / "features", days=7)
    artifacts.write_digests(features)
    champion_weights.save_weights(ModelRegistry(workspace / "repository"), CHAMPION, world / "teacher")
    (workspace / "repository" / "weights" / CHAMPION / "weights.safetensors").write_bytes(b"other bytes")
    with pytest.raises(SystemExit, match=r"weights\.safetensors does not match its digest"):
        run_component(workspace, features, 1, CHAMPION, WARM)
    (workspace / "repository" / "weights" / CHAMPION / "weights.json").write_text("{")
    with pytest.raises(SystemExit, match="the metadata of a model's weights cannot be read"):
        run_component(workspace, features, 2, CHAMPION, WARM)
    assert ledger.read_entries(workspace / "runs" / "20260102-000000-world")["finetune"].status == "failed"
