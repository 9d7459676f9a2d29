"""A cluster without a shared volume: each step has an empty folder of its own, and shares a bucket and Postgres."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.package import compile_flow
from pipelines.steps import CACHED_TRAINING_STEPS
from rankline.io.storage import open_filesystem
from rankline.registry.model_registry import ModelRegistry
from rankline.runtime import references
from rankline.runtime.bucket_workspace import BucketWorkspace
from rankline.runtime.remote_cache import RemoteCache
from rankline.runtime.steps import Flow
from tests.cli.command import RANKLINE
from tests.cli.in_process import rankline, refused
from tests.conftest import SmokeRun
from tests.pipelines import golden
from tests.pipelines.pods import WORKSPACE, Pods

# what a pod leaves in Kubeflow's own bucket: references, and what its page of a run shows
SHOWN = {references.FILE, "files.json", "verdict.json", "verdict.md", "evidence.html", "MODEL_CARD.md", "page"}


def compiled(url: str, path: Path, *settings: str, flow: Flow = "train") -> Path:
    """The package of the smoke recipe whose steps share a bucket."""
    recipe = golden.pinned("smoke", f"storage.workspace={url}", f"cluster.workspace={WORKSPACE}", *settings)
    return compile_flow(recipe, path, flow=flow)


def summaries(url: str) -> list[dict[str, Any]]:
    """The summaries of all runs in the bucket, in the order of their start."""
    fs, root = open_filesystem(url)
    names = [name for name in fs.find(f"{root}/runs") if name.endswith("/summary.json")]
    return sorted((json.loads(fs.cat_file(name)) for name in names), key=lambda each: float(each["started"]))


def steps_of(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["step"]: step for step in summary["steps"]}


def passed_through_kubeflow(pods: Pods) -> set[str]:
    """The files that the steps gave to Kubeflow, without what its executor writes itself."""
    return {path.name for path in pods.bucket.rglob("*") if path.is_file()} - {"executor_output.json"}


@contextlib.contextmanager
def server(url: str) -> Iterator[str]:
    """The address of `rankline serve` with nothing but the URL of a workspace, once its features are there."""
    command = [RANKLINE, "serve", "-w", url, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split(" on ")[1].strip()
            deadline = time.monotonic() + 90
            while httpx.get(f"{address}/readyz").json()["features"]["state"] != "ready":
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()


def seed(url: str, smoke: SmokeRun) -> None:
    """Bring what a run on one machine has left into a bucket."""
    fs, root = open_filesystem(url)
    fs.put(f"{smoke.workspace}/repository/", f"{root}/repository/", recursive=True)
    for entry in (smoke.workspace / "cache").glob("*/*/entry.json"):
        step, key = entry.parts[-3:-1]
        assert RemoteCache(f"{url}/artifacts").put(step, key, entry.parent) == ""
    bucket = BucketWorkspace(url, smoke.workspace)
    for name in ("profiles", "online"):
        bucket.upload(name)


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty folder of somebody else, who has nothing but the URL."""
    folder = tmp_path / "away"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.mark.integration
def test_pods_with_nothing_but_a_bucket(smoke: SmokeRun, url: str, tmp_path: Path, away: Path) -> None:
    seed(url, smoke)
    assert rankline("fetch", "smoke", "-w", url).returncode == 0
    pinned = [word for setting in golden.PINNED for word in ("--set", setting)]
    pinned += ["--set", f"cluster.workspace={WORKSPACE}"]
    plan = json.loads(rankline("submit", "--recipe", "smoke", "-w", url, "--plan", "--json", *pinned).stdout)
    assert plan["cluster"]["workspace"] == url
    planned = {step["step"]: (step["state"], step["why"].partition(", kept at")[0]) for step in plan["steps"]}
    pods = Pods(tmp_path)
    pods.run(compiled(url, tmp_path / "flow.yaml"))

    # what was planned has happened, and only references have gone through Kubeflow
    (summary,) = summaries(url)
    assert (summary["outcome"], summary["model_id"]) == ("already serving", smoke.summary["model_id"])
    happened = steps_of(summary)
    for step in CACHED_TRAINING_STEPS:
        assert ("reused", happened[step]["why"]) == planned[step]
    assert passed_through_kubeflow(pods) == SHOWN
    cached = {path.parent.name for path in pods.folder.glob("*/cache/*/*")}
    assert cached == {"evaluate", "export", "finetune", "validate"}

    # anybody reads it from anywhere
    listed = json.loads(rankline("runs", "list", "-w", url, "--json").stdout)
    assert [(each["run"], each["outcome"], each["recipe"], each["flow"]) for each in listed] == [
        (summary["run"], "already serving", "smoke", "train")
    ]
    assert json.loads(rankline("runs", "show", "-w", url, "--json").stdout)["steps"] == summary["steps"]
    champion = json.loads(rankline("champion", "-w", url, "--json").stdout)
    assert champion["model_id"] == smoke.summary["model_id"]
    (service,) = json.loads(rankline("features", "status", "-w", url, "--json").stdout)["services"]
    assert (service["champion_reads"], service["owner"]) == (True, "promotion")
    assert "this command works on a folder" in refused("gc", "-w", url, code=2)
    assert "does not work on a workspace in a bucket" in refused("runs", "cancel", "last", "-w", url, code=2)
    assert not list(away.iterdir())

    with server(url) as address:
        answer = json.loads(rankline("ask", "u1", "--url", address, "--json").stdout)
    assert answer["model_id"] == smoke.summary["model_id"]
    assert answer["items"]
    assert not answer.get("degraded")


@pytest.mark.slow
def test_from_nothing_to_a_champion(url: str, postgres: Any, tmp_path: Path, away: Path) -> None:
    assert rankline("fetch", "smoke", "-w", url).returncode == 0
    settings = [
        f"promote.tracking_uri={postgres.sqlalchemy_url}",
        "storage.features.registry=postgres",
        f"storage.features.postgres={postgres.address}",
    ]
    package, pods = compiled(url, tmp_path / "flow.yaml", *settings, "ingest.window_end=2023-12-10"), Pods(tmp_path)
    pods.run(package)
    (first,) = summaries(url)
    assert first["outcome"] == "promoted"
    assert "error" not in steps_of(first)["promote"]["result"]["mlflow"]
    assert ModelRegistry(f"{url}/repository").champion() == first["model_id"]
    pods.run(package)
    second = steps_of(summaries(url)[1])
    assert {second[step]["status"] for step in CACHED_TRAINING_STEPS} == {"reused"}
    assert passed_through_kubeflow(pods) == SHOWN

    # two runs that write the online store at once: it ends complete up to the later one
    runs = [
        pods.start(
            compiled(url, tmp_path / f"{day}.yaml", *settings, f"ingest.window_end=2023-12-{day}", flow="features")
        )
        for day in ("13", "12")
    ]
    for run in runs:
        assert run.wait(600) == 0, run.communicate()[0][-3000:]
    results = [steps_of(summary)["materialize"]["result"]["online"] for summary in summaries(url)[2:]]
    (service,) = json.loads(rankline("features", "status", "-w", url, "--json").stdout)["services"]
    assert service["watermark"] == max(each["until"] for each in results)
    assert service["watermark"] > steps_of(first)["promote"]["result"]["online"]["until"]
    with server(url) as address:
        until = datetime.fromisoformat(service["watermark"]).timestamp()
        assert httpx.get(f"{address}/readyz").json()["features"]["watermark"] == until
        assert not httpx.post(f"{address}/v1/recommend", json={"user_id": "u1"}).json().get("degraded")


@pytest.mark.slow
def test_packed_pods_with_nothing_but_a_bucket(smoke: SmokeRun, url: str, tmp_path: Path, away: Path) -> None:
    seed(url, smoke)
    assert rankline("fetch", "smoke", "-w", url).returncode == 0
    package = compiled(url, tmp_path / "flow.yaml", "cluster.pack=true")
    Pods(tmp_path).run(package)
    (summary,) = summaries(url)
    assert summary["outcome"] == "already serving"
    states = {step: row["status"] for step, row in steps_of(summary).items()}
    assert states == dict.fromkeys(CACHED_TRAINING_STEPS, "reused") | {"resolve_inputs": "done", "decide": "done"}
