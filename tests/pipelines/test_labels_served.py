"""From a log of clicks and of what was shown in vain to the answers of the server."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from components.ingest.config import IngestConfig
from pipelines.recipe import Recipe
from pipelines.recipes import smoke
from pipelines.runs.runner import run
from rankline.io.sources import Tables
from rankline.runtime.server_process import serving
from tests.components.labelled_log import ABSENT, write_csv
from tests.components.test_featurize_labels import SHOWN, logs, visits

SERVER = {"precision": "fp32", "start_timeout_s": 60.0, "request_timeout_s": 60.0, "connections": 1}


def recipe(source: Path, columns: dict[str, Any], labels: dict[str, Any]) -> Recipe:
    """The recipe `smoke` on another log."""
    ingest = IngestConfig(
        source=str(source),
        format="tables",
        tables=Tables(events="log.csv"),
        items_from_events=True,
        columns={**ABSENT, "user_id": "user", "item_id": "item", "timestamp": "at", **columns},
        labels=labels,
    )
    return dataclasses.replace(smoke(), ingest=ingest, material=())


def requests() -> list[dict[str, Any]]:
    """A request of each user with what they clicked, and one of somebody new."""
    clicked: dict[str, tuple[list[str], list[float]]] = {"new": ([], [])}
    for user, at, items, _ in visits():
        item_ids, times = clicked.setdefault(user, ([], []))
        item_ids += items
        times += [float(at)] * len(items)
    return [
        {"user_id": user, "history": {"item_ids": item_ids, "times": times}}
        for user, (item_ids, times) in clicked.items()
    ]


@pytest.mark.integration
@pytest.mark.parametrize("log", ["types, requests"])
def test_what_nobody_ever_clicked_is_in_no_answer(tmp_path: Path, log: str) -> None:
    rows, columns, labels = logs()[log]
    write_csv(tmp_path / "source/log.csv", rows())
    summary = run(recipe(tmp_path / "source", columns, labels), tmp_path / "workspace")
    steps = {step["step"]: step.get("paths", {}) for step in summary["steps"]}
    with serving(Path(steps["export"]["bundle"]), folder=tmp_path / "server", **SERVER) as server:
        answers = [server.post("/v1/recommend", json.dumps({**each, "k": 10}).encode()) for each in requests()]
    items = [item["item_id"] for answer in answers for item in answer["items"]]
    assert len(items) == 121 * 10
    assert not SHOWN.intersection(items)
