"""Queries end to end: a BEIR folder, no user anywhere, to a served model that answers, or abstains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as parquet
import pytest

from rankline.model.bundle import open_bundle
from tests.components.asked_world import items
from tests.conftest import SmokeRun
from tests.serving.conftest import running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def report(answers: SmokeRun) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((answers.artifact("evaluate", "report") / "report.json").read_text())
    return answer


def test_it_is_promoted(answers: SmokeRun) -> None:
    assert answers.summary["outcome"] == "promoted"


def test_the_served_model_has_no_user_tower(answers: SmokeRun) -> None:
    bundle = open_bundle(answers.artifact("export", "bundle"))
    assert bundle.manifest.precisions
    assert all(precision.user is None for precision in bundle.manifest.precisions.values())
    assert not (bundle.folder / "user.onnx").exists()
    assert bundle.manifest.features.sources == [
        "towers_behind_best", "popular_share", "popular_behind_best", "towers_score", "bm25_share", "bm25_log",
    ]  # fmt: skip


def test_the_baselines_are_those_that_can_be_had_without_users(report: dict[str, Any]) -> None:
    assert set(report["systems"]) == {
        "candidate", "bm25", "popularity", "fresh_popularity", "teacher", "untuned_encoder", "rank_fusion",
        "source_towers", "source_covisit", "source_popular", "source_bm25",
    }  # fmt: skip


def test_training_makes_it_better_than_the_encoder_it_began_with(report: dict[str, Any]) -> None:
    reached = {name: system["metrics"]["ndcg@10"]["mean"] for name, system in report["systems"].items()}
    assert reached["candidate"] > reached["untuned_encoder"] + 0.2
    assert reached["candidate"] >= reached["bm25"] - 0.05
    assert reached["popularity"] < 0.2


def test_served_and_torch_agree(report: dict[str, Any]) -> None:
    assert report["parity"]["served_max_abs_difference"] < 1e-4
    assert report["parity"]["same_top10_share"] == 1.0


def test_the_curve_never_ends_below_where_the_encoder_began(answers: SmokeRun) -> None:
    result = next(step["result"] for step in answers.summary["steps"] if step["step"] == "distill")
    curve = json.loads((answers.artifact("distill", "student") / "curve.json").read_text())["towers"]
    reached = [point["valid_ndcg@10"] for point in curve if "valid_ndcg@10" in point]
    assert result["towers_valid_ndcg@10"] >= max(reached) - 1e-3


def test_the_soft_scores_cover_each_request_and_begin_with_its_answer(answers: SmokeRun) -> None:
    soft = np.load(answers.artifact("finetune", "teacher") / "soft.npz")
    requests = parquet.read_table(answers.artifact("featurize", "features") / "requests.parquet").to_pylist()
    ids = [item["item_id"] for item in items()]
    for split in ("train", "valid"):
        targets = [row["targets"][0] for row in requests if row["split"] == split]
        assert [ids[first] for first in soft[f"{split}_candidates"][:, 0]] == targets
        assert targets
        assert all(len(set(row)) == len(row) for row in soft[f"{split}_candidates"].tolist())


def test_a_server_answers_a_query_a_conversation_and_labels(answers: SmokeRun, tmp_path: Path) -> None:
    with running(tmp_path, "--bundle", str(answers.artifact("export", "bundle"))) as server:
        server.until("/readyz", lambda reply: reply.status_code == 200)

        def ask(route: str, **body: Any) -> httpx.Response:
            return server.client.post(f"/v1/{route}", json=body)

        matches = ask("search", query="do you have a green kite", k=3).json()
        assert matches["items"][0]["item_id"] == "green-kite"
        assert not matches["abstained"]
        assert matches["items"][0]["probability"] > matches["items"][1]["probability"]
        turns = ask("search", turns=["hello", "i need something", "a green kite please"], k=3).json()
        assert turns["items"][0]["item_id"] == "green-kite"
        assert ask("search", query="quantum chromodynamics", k=3).json()["abstained"]
        ranked = ask("rank", query="a white drum", candidates=["white-drum", "black-drum", "red-lamp"]).json()
        assert ranked["items"][0]["item_id"] == "white-drum"
        refused = ask("search", query="both", turns=["at once"])
        assert refused.status_code == 422
        assert "give one of them" in refused.text
        assert ask("search", k=3).status_code == 422
