"""The flow that keeps features fresh: what it runs, when it is refused, and (slow) the whole of it by a schedule."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pipelines.assets import packaged
from pipelines.features import features_pipeline, materialize
from pipelines.recipes import named
from pipelines.runs.folder import RECIPE, run_folders
from pipelines.runs.freshness import freshness
from pipelines.runs.store import LocalRuns
from pipelines.schedules.firing import TIMESTAMP_FORMAT, Firing
from pipelines.schedules.store import ScheduleStore
from rankline.errors import UsageError
from rankline.model.scoring import feature_names
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime.steps import FLOWS
from tests.rankline.registry.test_model_registry import promote, tiny_bundle


def promoted(workspace: Path, *, service: str = "ranking_v1") -> None:
    """A champion that reads this feature service."""
    models = ModelRegistry(workspace / "repository")
    result = feature_names().model_copy(update={"service": service})
    bundle = tiny_bundle(workspace / "made" / service, weights=service.encode(), catalogue="smoke", features=result)
    models.add(bundle.folder)
    promote(models, bundle.model_id)


@pytest.mark.parametrize("cluster", [False, True])
def test_the_flow_is_the_line_up_to_its_features_and_then_online(tmp_path: Path, cluster: bool) -> None:
    from kfp import compiler

    flow = features_pipeline(named("smoke"), workspace=str(tmp_path), cluster=cluster)
    compiler.Compiler().compile(flow, str(tmp_path / "flow.yaml"))
    result = next(yaml.safe_load_all((tmp_path / "flow.yaml").read_text()))
    tasks = result["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    order: list[str] = []
    while len(order) < len(tasks):
        order += sorted(
            name for name, task in tasks.items()
            if name not in order and set(task.get("dependentTasks", ())) <= set(order)
        )[:1]  # fmt: skip
    assert tuple(name.replace("-", "_") for name in order) == FLOWS["features"]
    run = tasks["validate"]["inputs"]["parameters"]["run"]["runtimeValue"]["constant"]
    assert run["flow"] == "features", "validate leaves no profile then"


def test_what_the_champion_cannot_read_is_refused_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no champion"):
        materialize(named("smoke"), tmp_path)
    promoted(tmp_path, service="ranking_v0")
    with pytest.raises(UsageError, match="another service version") as result:
        materialize(named("smoke"), tmp_path)
    assert result.value.found == "ranking_v1"
    assert not run_folders(tmp_path)


@pytest.mark.slow
def test_assetized_by_hand_and_then_by_a_schedule(tmp_path: Path) -> None:
    """On the smoke shop: up to a time, then further by a scheduled run, never back; the runs and the status say so."""
    workspace, first = tmp_path / "w", datetime(2023, 12, 10, tzinfo=UTC)
    promoted(workspace)
    recipe = named("smoke")
    packaged.fetch("smoke", workspace, say=lambda line: None)
    result = materialize(recipe, workspace, until=first)
    assert (result["outcome"], [step["step"] for step in result["steps"]]) == ("materialized", [*FLOWS["features"]])
    (by_hand,) = freshness(workspace, now=first)
    assert by_hand.champion_reads
    assert by_hand.lag_s is not None
    assert 0 < by_hand.lag_s < 86_400, "nothing from the end on was read"

    # by a schedule, whose time gives the end of the window
    store, later = ScheduleStore(workspace), datetime(2023, 12, 12, tzinfo=UTC)
    store.create(
        {"name": "fresh", "recipe": "smoke", "cron": "0 0 0 * * *", "flow": "features", "directory": str(tmp_path)},
        now=datetime(2023, 12, 1, tzinfo=UTC),
    )
    firing = Firing("fresh", later.isoformat(), None, later.isoformat(), "scheduled", 1, later.isoformat())
    store.firings("fresh").create(firing)
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines.schedules.worker", str(workspace), "fresh", later.strftime(TIMESTAMP_FORMAT)],
        stdin=subprocess.PIPE,
    ) as process:
        assert process.wait(600) == 0
    ended = store.firings("fresh").read(later)
    assert ended is not None
    assert (ended.outcome, ended.exit_code, ended.error) == ("materialized", 0, "")
    (by_schedule,) = freshness(workspace, now=later)
    assert by_schedule.watermark > by_hand.watermark
    assert (by_schedule.owner, by_schedule.run) == ("schedule fresh", ended.run)
    lines = LocalRuns(workspace).list()
    assert [(line.flow, line.outcome, line.trigger) for line in lines] == [
        ("features", "materialized", "manual"), ("features", "materialized", "scheduled"),
    ]  # fmt: skip

    # the first run once more: it is features again, and takes nothing back
    again = LocalRuns(workspace).retry(lines[0].run)
    assert "stays as it is" in again["verdict"]
    assert {step["step"]: step["status"] for step in again["steps"]}["featurize"] == "reused"
    assert freshness(workspace, now=later)[0].watermark == by_schedule.watermark
    window = json.loads((workspace / "runs" / again["run"] / RECIPE).read_text())["ingest"]["window_end"]
    assert datetime.fromisoformat(window) == first
