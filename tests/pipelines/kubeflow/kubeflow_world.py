"""A double of a cluster for tests, and small packages for it: compiling is slow, and has tests of its own."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pipelines.kubeflow.client import Access, Cluster, connect
from pipelines.package import compile_flow
from pipelines.recipe import Recipe, as_dict
from rankline.runtime.steps import Flow
from tests.pipelines import golden
from tests.servers.kubeflow import NAMESPACE, Kubeflow, kubeflow_server


@pytest.fixture(autouse=True)
def nothing_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide what differs where the tests run: variables, kfp's context and kubeconfig, the age of the server's runs."""
    import kfp

    from pipelines.kubeflow import log_hint, run_package

    for module in (log_hint, run_package):  # so that no pod is gone, and no deadline has passed
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: 0.0))
    for name in list(os.environ):
        if name.startswith(("RANKLINE_KFP", "KF_PIPELINES", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small packages of the recipe `smoke` for the cluster, made from one that was compiled; others are compiled."""
    from pipelines.kubeflow import packages, plan

    def small_package(
        recipe: Recipe, output: Path, *, schedule: dict[str, Any] | None = None, flow: Flow = "train"
    ) -> Path:
        smoke = golden.pinned("smoke")
        if (recipe.name, recipe.cluster) != (smoke.name, smoke.cluster):
            return compile_flow(recipe, output, schedule=schedule, flow=flow)
        settings = as_dict(recipe)
        documents = json.loads(_base_package(flow, schedule is not None))
        # every setting changes the package, and so the name of its version, as in a real one
        documents[0]["pipelineInfo"]["description"] = recipe.description
        content = json.dumps([settings, schedule], sort_keys=True, default=str)
        documents[0]["deploymentSpec"]["executors"]["exec-summary"]["container"]["args"] = [content]
        for component in documents[0]["components"].values():
            for name, task in component.get("dag", {}).get("tasks", {}).items():
                parameters = task.get("inputs", {}).get("parameters", {})
                if schedule is not None and "schedule" in _constant(parameters, "run"):
                    _constant(parameters, "run")["schedule"] = schedule
                if name == "decide":
                    _constant(parameters, "config")["allow_older_window"] = settings["decide"]["allow_older_window"]
        output.write_text("---\n".join(json.dumps(each) + "\n" for each in documents))  # JSON is YAML
        return output

    for module in (packages, plan):
        monkeypatch.setattr(module, "compile_flow", small_package)


@functools.cache
def _base_package(flow: Flow, scheduled: bool) -> str:
    """The documents of a package as JSON, without the code of its steps: the golden file, or compiled."""
    with tempfile.TemporaryDirectory() as folder:
        path = golden.path(flow)
        if scheduled:
            schedule = {"name": "nightly", "cron": "0 0 3 * * *", "window": "1d"}
            path = compile_flow(golden.pinned("smoke"), Path(folder) / "flow.yaml", schedule=schedule, flow=flow)
        documents = list(yaml.load_all(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    for executor in documents[0]["deploymentSpec"]["executors"].values():
        executor["container"]["command"] = ["true"]
    return json.dumps(documents)


def _constant(parameters: dict[str, Any], name: str) -> dict[str, Any]:
    constant: dict[str, Any] = parameters.get(name, {}).get("runtimeValue", {}).get("constant", {})
    return constant


@pytest.fixture
def kubeflow(tmp_path: Path) -> Iterator[Kubeflow]:
    """A server for several users without authentication."""
    with kubeflow_server(tmp_path) as server:
        yield server


@pytest.fixture
def cluster(kubeflow: Kubeflow) -> Cluster:
    """A connection to it."""
    return reach(kubeflow)


def reach(kubeflow: Kubeflow, **settings: Any) -> Cluster:
    """A connection with these settings."""
    return connect(Access(**{"host": kubeflow.host, "namespace": NAMESPACE, "auth": "none", **settings}))
