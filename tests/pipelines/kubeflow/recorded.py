"""Recorded runs of a real server with what is not in the recordings: their packages, and what their pods wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kfp_server_api
import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from pipelines.kubeflow import log_hint, run_package, run_summary, waiting
from pipelines.kubeflow.client import Access, Cluster, connect
from tests.servers.kubeflow import Api, Kubeflow, kubeflow_server, recording

PODS = "/api/v1/namespaces/kubeflow/pods"
EVENTS = "/api/v1/namespaces/kubeflow/events"
LAUNCHER = (
    'time="2026-11-30T05:45:40.103Z" level=INFO msg="capturing logs" argo=true',
    "I1130 05:45:40.244031      17 launcher_v2.go:160] input ComponentSpec:{",
    '  "inputDefinitions": {}',
    "}",
)


def clock_at(monkeypatch: pytest.MonkeyPatch, instant: str) -> None:
    """Let what goes by the age of a run take this for now."""
    seconds = datetime.fromisoformat(instant).timestamp()
    for module in (log_hint, run_package, run_summary, waiting):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: seconds))


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubeflow]:
    """A server with a single user, as the recorded one, soon after the runs."""
    clock_at(monkeypatch, "2026-11-30T06:05:00Z")
    with kubeflow_server(tmp_path, multi_user=False) as server:
        yield server


@pytest.fixture
def cluster(recorded: Kubeflow) -> Cluster:
    """A connection to it."""
    return connect(Access(host=recorded.host, auth="none"))


def add_package(api: Api, run: str, flow: str = "train", *, timeout_s: int = 60, **parameters: Any) -> None:
    """Give a recorded run its package; ``parameters`` are those of the run that each step gets."""
    package = recording(f"package-{flow}")
    tasks = package["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    constant = {"runtimeValue": {"constant": {"workspace": "/rankline", **parameters}}}
    tasks["ingest"]["inputs"] = {"parameters": {"run": constant}}
    executor = {"container": {"image": "a", "resources": {"resourceMemoryLimit": "400Mi"}}}
    package["deploymentSpec"] = {"executors": {"exec-finetune": executor}}
    deployment = {"executors": {"exec-finetune": {"activeDeadlineSeconds": str(timeout_s)}}}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": deployment}}}
    reference = api.runs[run]["pipeline_version_reference"]
    spec = {"pipeline_spec": package, "platform_spec": platform}
    api.versions[reference["pipeline_version_id"]] = {**reference, "display_name": "smoke-1", "pipeline_spec": spec}


def flow_of(name: str) -> str:
    return {"run-features": "features", "run-refresh-unchanged": "refresh"}.get(name, "train")


def replay(server: Kubeflow, name: str, **parameters: Any) -> str:
    run = server.api.replay(name)
    add_package(server.api, run, flow_of(name), **parameters)
    return run


def deserialized(name: str) -> Any:
    class Answer:
        data = json.dumps(recording(name))

    return kfp_server_api.ApiClient().deserialize(Answer, "V2beta1Run")


def in_words(server: Kubeflow, *words: str) -> Any:
    return CliRunner().invoke(app, [*words, "--host", server.host, "--auth", "none"], env={"COLUMNS": "200"})


def step_log(step: str, *lines: str, **entry: Any) -> str:
    """What a pod writes: the launcher's lines, the step's, and its result unless there is no ``entry``."""
    result = [f"rankline-result: {json.dumps({'step': step, 'status': 'done', **entry})}"] if entry else []
    return "\n".join([*LAUNCHER, f"rankline-step: {step}", *lines, *result]) + "\n"


def use_kubeconfig(server: Kubeflow, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the server the cluster of the current kubeconfig."""
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "far",
        "clusters": [{"name": "far", "cluster": {"server": server.host.removesuffix("/pipeline")}}],
        "users": [{"name": "me", "user": {"token": "a"}}],
        "contexts": [{"name": "far", "context": {"cluster": "far", "user": "me"}}],
    }  # fmt: skip
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(path))


def pod(run: str, node: str, **status: Any) -> dict[str, Any]:
    """A pod as Kubernetes lists it."""
    workflow, _, number = node.rpartition("-")
    return {
        "metadata": {
            "name": f"{workflow}-retry-system-container-impl-{number}",
            "labels": {"pipeline/runid": run},
            "annotations": {"workflows.argoproj.io/node-id": node},
        },
        "status": {"phase": "Pending", **status},
    }
