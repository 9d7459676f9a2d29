"""The cross-encoder: its candidates, its training, and the untuned encoder as a baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from components.finetune.config import FinetuneConfig
from components.finetune.cross_encoder import with_targets
from components.finetune.soft_labels import best_weight
from components.finetune.step import finetune
from rankline.runtime.progress import Progress
from rankline.train import examples
from rankline.train.examples import Examples
from tests.conftest import SmokeRun

CONFIG = FinetuneConfig(
    max_tokens=16, pair_tokens=24, vector_size=24, soft_candidates=12, encoder_learning_rate=1e-3,
    rankings_depth=20, pair_epochs=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def features(answers: SmokeRun) -> Path:
    return answers.artifact("featurize", "features")


@pytest.fixture(scope="module")
def data(features: Path) -> Examples:
    return examples.read_examples(features, max_history=2)


def rankings_of(teacher: Path, system: str) -> list[list[str]]:
    """A system's rankings of the test requests."""
    rows = parquet.read_table(teacher / "rankings.parquet").to_pylist()
    return [row["item_ids"] for row in rows if row["system"] == system]


@pytest.mark.integration
def test_the_untuned_encoder_stays_untuned_where_the_other_is_adapted(features: Path, tmp_path: Path) -> None:
    for name, steps in (("plain", 0), ("adapted", 12)):
        config = CONFIG.model_copy(update={"adapt_steps": steps})
        (tmp_path / name).mkdir()
        finetune(features, tmp_path / name, config=config, progress=Progress())
    assert rankings_of(tmp_path / "plain", "untuned_encoder") == rankings_of(tmp_path / "adapted", "untuned_encoder")
    vectors = [np.load(tmp_path / name / "text_vectors.npy") for name in ("plain", "adapted")]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3  # and the other one was


@pytest.mark.integration
def test_targets_come_first_and_no_candidate_twice(data: Examples) -> None:
    requests = data.splits["train"]
    rows = requests.query_rows[:5]
    candidates_RC = np.tile(np.arange(6), (5, 1))
    actual = with_targets(candidates_RC, requests, rows)
    assert actual.shape == (5, 6)
    assert [row[0] for row in actual.tolist()] == [int(requests.targets[row][0]) for row in rows]
    assert all(len(set(row)) == 6 for row in actual.tolist())


@pytest.mark.parametrize(("of_pairs", "weight"), [([3.0, 0.0, 0.0], 4.0), ([0.0, 3.0, 3.0], 0.0)])
def test_the_sides_are_added_up_as_the_validation_requests_say(of_pairs: list[float], weight: float) -> None:
    of_users = np.zeros((4, 3), np.float32)
    pairs = np.tile(np.array(of_pairs, np.float32), (4, 1))
    targets, candidates = [np.array([7])] * 4, np.tile(np.array([7, 8, 9]), (4, 1))
    assert best_weight(of_users, pairs, targets, candidates) == weight
