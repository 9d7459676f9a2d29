"""A cluster's double for tests, and packages that are compiled once: compiling is slow, and has tests of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.kubeflow.client import Access, Cluster, connect
from pipelines.recipe import Recipe, as_dict
from pipelines.runs.folder import Flow
from tests.pipelines import golden
from tests.servers.kubeflow import NAMESPACE, Kubeflow, kubeflow_server

_COMPILED: dict[str, bytes] = {}


@pytest.fixture(autouse=True)
def nothing_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests: neither variables, nor kfp's context, nor a kubeconfig."""
    import kfp

    for name in list(os.environ):
        if name.startswith(("RANKLINE_KFP", "KF_PIPELINES", "KUBE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(kfp.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same recipe and schedule are compiled once a session; for `smoke` as it is the golden file is the package."""
    from pipelines.kubeflow import packages
    from pipelines.package import compile_flow

    def once(recipe: Recipe, output: Path, *, schedule: dict[str, Any] | None = None, flow: Flow = "train") -> Path:
        key = json.dumps([as_dict(recipe), schedule, flow], sort_keys=True, default=str)
        if key not in _COMPILED:
            plain = not schedule and as_dict(recipe) == as_dict(golden.pinned("smoke"))
            kept = golden.path(flow)
            path = kept if plain else compile_flow(recipe, output, schedule=schedule, flow=flow)
            _COMPILED[key] = path.read_bytes()
        output.write_bytes(_COMPILED[key])
        return output

    monkeypatch.setattr(packages, "compile_flow", once)


@pytest.fixture
def kubeflow(tmp_path: Path) -> Iterator[Kubeflow]:
    """A server of several users that asks nobody who they are."""
    with kubeflow_server(tmp_path) as server:
        yield server


@pytest.fixture
def cluster(kubeflow: Kubeflow) -> Cluster:
    """The same, as it is reached."""
    return reach(kubeflow)


def reach(kubeflow: Kubeflow, **settings: Any) -> Cluster:
    """A server, as it is reached with these settings."""
    return connect(Access(**{"host": kubeflow.host, "namespace": NAMESPACE, "auth": "none", **settings}))
