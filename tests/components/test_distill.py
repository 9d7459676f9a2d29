"""distill: towers that survive kills, candidate sources, and a scorer that learns from validation requests."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import scipy.sparse as sparse
import torch
from safetensors.torch import load_file

from components.distill import towers, towers_trainer
from components.distill.candidate_table import CandidateDrawer
from components.distill.config import DistillConfig
from components.distill.encode import EncodedTexts
from components.distill.step import distill
from components.distill.towers_trainer import TowersInputs
from pipelines.recipes import smoke as smoke_recipe
from rankline.errors import DeviceError, TrainingError
from rankline.evaluation import snapshot_requests
from rankline.features import candidate_sources
from rankline.model import scoring
from rankline.model.networks import HistoryTower, TextEncoder
from rankline.model.scoring import CandidateSettings, Catalogue
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer
from rankline.train import examples
from tests.components.children import files, killed_now_and_then
from tests.conftest import SmokeRun

SMOKE = smoke_recipe().distill
QUICK = SMOKE.model_copy(update={"epochs": 1, "scorer_epochs": 2})
Student = dict[str, torch.Tensor]


def changed(**overrides: Any) -> DistillConfig:
    """The smoke recipe's settings with some changed."""
    return SMOKE.model_copy(update=overrides)


@pytest.fixture(scope="module")
def teacher(smoke: SmokeRun) -> Path:
    return smoke.artifact("finetune", "teacher")


@pytest.fixture(scope="module")
def student(smoke: SmokeRun) -> Path:
    """The student of the smoke run."""
    return smoke.artifact("distill", "student")


@pytest.fixture(scope="module")
def data(features: Path) -> examples.Examples:
    return examples.read_examples(features, max_history=SMOKE.max_history)


Rows = Callable[[dict[str, Any]], dict[str, Any]]


def with_requests(features: Path, folder: Path, change: Rows) -> Path:
    """The features with every request put through ``change``; a request of split "" is left out."""
    copied = Path(shutil.copytree(features, folder))
    table = parquet.read_table(copied / "requests.parquet")
    rows = [row for row in map(change, table.to_pylist()) if row["split"]]
    parquet.write_table(pa.Table.from_pylist(rows, schema=table.schema), copied / "requests.parquet")
    return copied


def distill_weights(features: Path, teacher: Path, folder: Path, config: DistillConfig = QUICK) -> Student:
    """The weights of a student made of these features."""
    distill(features, teacher, folder, config=config, progress=Progress())
    return load_file(folder / "weights.safetensors")


@pytest.fixture(scope="module")
def quick(features: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Student:
    """A student trained for one epoch."""
    return distill_weights(features, teacher, tmp_path_factory.mktemp("quick") / "student")


def differing(a: Student, b: Student, prefix: str) -> set[str]:
    return {name for name in a if name.startswith(prefix) and not torch.equal(a[name], b[name])}


# Kills ------------------------------------------------------------------------------------------------------


@pytest.mark.slow  # the default run kills finetune
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(features: Path, teacher: Path, tmp_path: Path) -> None:
    config = changed(epochs=10, patience=99, scorer_epochs=2)
    whole = distill(features, teacher, tmp_path / "whole", config=config, progress=Progress())
    result, kills = killed_now_and_then(
        "distill", {"features": features, "teacher": teacher}, tmp_path / "killed", config,
        scratch=tmp_path / "child", kills=2, seed=2,
    )  # fmt: skip
    assert kills >= 1
    assert result["resumed_at_epoch"] >= 1
    assert {**result, "resumed_at_epoch": 0} == whole
    killed, undisturbed = files(tmp_path / "killed"), files(tmp_path / "whole")
    assert killed.keys() == undisturbed.keys()
    assert [name for name in killed if killed[name] != undisturbed[name] and not name.endswith(".npz")] == []
    a, b = (sparse.load_npz(tmp_path / name / "sources" / "covisit.npz") for name in ("killed", "whole"))
    assert (a != b).nnz == 0
    assert not (tmp_path / "child" / "checkpoints").exists()


@pytest.mark.integration
def test_the_towers_stop_where_nothing_improves(features: Path, teacher: Path, tmp_path: Path) -> None:
    config = changed(learning_rate=1e-12, epochs=30, evaluate_every=1, patience=2, scorer_epochs=1)
    result = distill(features, teacher, tmp_path / "student", config=config, progress=Progress())
    curve = json.loads((tmp_path / "student" / "curve.json").read_text())["towers"]
    assert (result["towers_best_epoch"], len(curve)) == (0, 3)


@pytest.mark.integration
def test_on_several_threads_the_towers_are_the_same_again(features: Path, teacher: Path, tmp_path: Path) -> None:
    config = QUICK.model_copy(update={"requests_per_step": 3000, "batch_size": 60})
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        one, two = (distill_weights(features, teacher, tmp_path / name, config) for name in ("one", "two"))
    finally:
        torch.set_num_threads(before)
    assert differing(one, two, "") == set()


# The towers -------------------------------------------------------------------------------------------------------


@pytest.mark.integration
def test_the_towers_learn_from_sampled_items_too(features: Path, teacher: Path, tmp_path: Path) -> None:
    distill_weights(features, teacher, tmp_path / "x", changed(sampled_items=20, scorer_epochs=1))
    validations = [p["valid_ndcg@10"] for p in curve_of(tmp_path / "x") if "valid_ndcg@10" in p]
    assert validations[-1] > 0.3  # popularity: 0.07


def curve_of(student: Path) -> list[dict[str, float]]:
    return json.loads((student / "curve.json").read_text())["towers"]


@pytest.fixture(scope="module")
def untaught(data: examples.Examples) -> int:
    """An item that is removed from training."""
    return int(data.sequences.items[0][0])


def test_an_item_unseen_in_training_has_a_vector_of_its_text(
    data: examples.Examples, teacher: Path, untaught: int
) -> None:
    masks = [items != untaught for items in data.sequences.items]
    without = dataclasses.replace(
        data,
        sequences=examples.Sequences(
            *(
                [values[keep] for values, keep in zip(part, masks)]
                for part in (data.sequences.items, data.sequences.times, data.sequences.ratings)
            )
        ),
    )
    assert data.known_I[untaught]
    assert not without.known_I[untaught]
    text_IT = torch.from_numpy(np.load(teacher / "text_vectors.npy"))
    torch.manual_seed(0)
    model = towers.Towers.make(without, text_size=text_IT.shape[1], size=16, config=SMOKE)
    before = model.fusion.own.weight.detach().clone()
    cpu = torch.device("cpu")
    encoder = teacher / "encoder"
    texts = EncodedTexts(
        without, TextEncoder.load(encoder), Tokenizer(encoder / "tokenizer.json", max_tokens=16), text_IT, device=cpu
    )
    soft = np.load(teacher / "soft.npz")
    inputs = TowersInputs(without, texts, soft["train_candidates"], soft["train_logits"])
    towers_trainer.train(model, inputs, QUICK, progress=Progress(), checkpoints=None)
    vectors_ID = torch.from_numpy(model.item_vectors(text_IT))
    with torch.no_grad():
        without_own_ID = model.fusion.text(text_IT) + model.fusion.side(model.side_IS)
    assert torch.equal(vectors_ID[untaught], without_own_ID[untaught])
    others = [i for i in range(len(data.item_ids)) if without.known_I[i]]
    assert (vectors_ID[others] - without_own_ID[others]).abs().amax(1).min() > 1e-3
    assert torch.equal(model.fusion.own.weight[untaught], before[untaught])


def test_the_student_begins_where_the_teacher_ended(data: examples.Examples, teacher: Path) -> None:
    weights = load_file(teacher / "weights.safetensors")
    model = towers.Towers.make(data, text_size=32, size=16, config=SMOKE)
    loaded = model.load_matching(weights)
    assert loaded == len([name for name in model.state_dict() if name != "side_IS"])
    assert torch.equal(model.tower.position.weight, weights["tower.position.weight"])
    other = towers.Towers.make(data, text_size=32, size=16, config=changed(max_history=7))
    assert other.load_matching(weights) == loaded - 1  # all but the positions


# The sources ------------------------------------------------------------------------------------------------------


def test_the_sources_are_counted_from_the_training_sequences_alone(student: Path, data: examples.Examples) -> None:
    expected = candidate_sources.covisitation(
        data.sequences.items, len(data.item_ids), window=SMOKE.covisit_window,
        step_decay=SMOKE.covisit_step_decay, max_neighbours=SMOKE.covisit_neighbours,
    )  # fmt: skip
    covisit = sparse.load_npz(student / "sources" / "covisit.npz")
    assert (covisit != expected).nnz == 0
    counts = np.bincount(np.concatenate(data.sequences.items), minlength=len(data.item_ids))
    assert np.load(student / "sources" / "popularity.npy").tolist() == counts.tolist()


# The scorer -------------------------------------------------------------------------------------------------------


def test_the_scorer_never_sees_a_test_request(features: Path, teacher: Path, quick: Student, tmp_path: Path) -> None:
    def spoilt(row: dict[str, Any]) -> dict[str, Any]:
        if row["split"] == "test":
            row |= {"targets": row["seen"][:1], "seen": row["targets"], "user_events_7d": 1e6, "target_ratings": [1.0]}
        return row

    other = distill_weights(with_requests(features, tmp_path / "features", spoilt), teacher, tmp_path / "student")
    assert differing(quick, other, "") == set()


def test_the_scorer_learns_from_the_validation_requests(
    features: Path, teacher: Path, quick: Student, tmp_path: Path
) -> None:
    def other_taste(row: dict[str, Any]) -> dict[str, Any]:
        return row | ({"user_events_7d": row["user_events_7d"] * 2 + row["at"] % 7} if row["split"] == "valid" else {})

    other = distill_weights(with_requests(features, tmp_path / "features", other_taste), teacher, tmp_path / "student")
    assert differing(quick, other, "towers.") == set()
    assert "scorer.standardize.mean_F" in differing(quick, other, "scorer.")


def test_without_a_validation_request_that_teaches_the_fusion_is_served(
    features: Path, teacher: Path, tmp_path: Path
) -> None:
    """No target is among the candidates, because it was seen before."""

    def seen_before(row: dict[str, Any]) -> dict[str, Any]:
        return row | ({"seen": [*row["seen"], *row["targets"]]} if row["split"] == "valid" else {})

    result = distill(
        with_requests(features, tmp_path / "features", seen_before), teacher, tmp_path / "student",
        config=QUICK, progress=Progress(),
    )  # fmt: skip
    assert (result["ranks_by"], result["chosen_on"], result["candidates_recall"]) == ("fusion", 0, 0)
    assert result["weights"] == {"towers": 1.0, "covisit": 1.0, "popular": 3.0, "words": 1.0}
    student = load_file(tmp_path / "student" / "weights.safetensors")
    assert not student["scorer.wide.weight"].any()
    assert json.loads((tmp_path / "student" / "choice.json").read_text())["ranks_by"] == "fusion"


def test_the_parity_table_holds_every_test_request_and_no_seen_item(student: Path, data: examples.Examples) -> None:
    rows = parquet.read_table(student / "parity.parquet").to_pylist()
    test = data.splits["test"]
    assert sorted(row["request_id"] for row in rows) == sorted(test.ids)
    for row in rows:
        seen = {data.item_ids[i] for i in test.seen[test.ids.index(row["request_id"])]}
        assert len(row["item_ids"]) == len(set(row["item_ids"])) == len(row["logits"]) > 10
        assert not seen & set(row["item_ids"])
        assert np.isfinite(row["logits"]).all()


def test_a_history_longer_than_the_student_reads_is_cut_before_anything_is_computed(
    features: Path, data: examples.Examples, student: Path
) -> None:
    """As in serving, the context features count the events that the student reads."""
    weights = load_file(student / "weights.safetensors")
    tower = HistoryTower(size=16, max_history=20, layers=1, heads=SMOKE.heads, dropout=0.0).eval()
    count = len(data.item_ids)
    catalogue = Catalogue(
        item_ids=data.item_ids, index=data.index, vectors_ID=weights["towers.fusion.own.weight"].numpy(),
        categories_IC=data.categories_IC, vocabulary=data.vocabulary,
        covisit=sparse.csr_matrix((count, count), dtype=np.float32), popularity_I=np.ones(count, np.float32),
    )  # fmt: skip
    names, settings = scoring.feature_names(), CandidateSettings(10, 0.9, 3)
    requests = list(snapshot_requests.read_snapshot_requests(features, "test"))[:5]
    assert len(requests) == 5
    assert all(len(request.state.history.item_ids) > 3 for request in requests)
    cut = [
        dataclasses.replace(request, state=scoring.truncate_history(request.state, 3)) for request in requests
    ]  # fmt: skip
    long, short = (
        CandidateDrawer(tower, catalogue, settings, names, {}).draw(given, progress=Progress())
        for given in (requests, cut)
    )
    columns = names.columns
    assert np.allclose(long.features[0][:, columns.index("ctx_log_history")], np.log(4))
    np.testing.assert_array_equal(long.left_RD, short.left_RD)
    for a, b in zip(long.features, short.features):
        np.testing.assert_array_equal(a, b)


def test_what_ranks_is_better_than_its_towers(smoke: SmokeRun) -> None:
    result = next(step["result"] for step in smoke.summary["steps"] if step["step"] == "distill")
    quality = result["out_of_fold_ndcg@10"]
    assert quality[result["ranks_by"]] > result["towers_valid_ndcg@10"] > 0.3
    assert quality[result["ranks_by"]] >= max(quality["fusion"], quality["source"])
    assert result["candidates_recall"] > 0.9
    manifest = json.loads((smoke.artifact("export", "bundle") / "manifest.json").read_text())
    assert manifest["ranks_by"] == result["ranks_by"]


@pytest.mark.integration
def test_without_users_there_are_no_words_of_a_history(smoke: SmokeRun, answers: SmokeRun) -> None:
    for run, present in ((smoke, True), (answers, False)):
        student, catalogue = run.artifact("distill", "student"), run.artifact("export", "bundle") / "catalogue"
        settings = json.loads((student / "student.json").read_text())
        assert ("words_share" in settings["features"]["sources"]) is present
        assert (catalogue / "sources" / "words.npz").is_file() is present


# Refusals -------------------------------------------------------------------------------------------------------


def test_cuda_asked_for_and_absent(features: Path, teacher: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(DeviceError, match="set device=auto or device=cpu"):
        distill(features, teacher, tmp_path / "student", config=changed(device="cuda"), progress=Progress())


@pytest.mark.parametrize("name", ["learning_rate", "scorer_learning_rate"])
def test_an_absurd_learning_rate_is_an_error_and_nothing_is_saved(
    features: Path, teacher: Path, tmp_path: Path, name: str
) -> None:
    config = QUICK.model_copy(update={name: 1e30, "scorer_epochs": 9, "scorer_batch_size": 16})
    with pytest.raises(TrainingError, match="loss of distill is not a number"):
        distill(features, teacher, tmp_path / "student", config=config, progress=Progress())
    assert not (tmp_path / "student").exists()
