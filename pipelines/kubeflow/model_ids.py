"""Which model each run of a list came to: from the model registry where it can be read, else from the runs' logs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.kubeflow import logs
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.run_package import RunPackage
from rankline.errors import RanklineError
from rankline.runtime.steps import DECIDING_STEPS

MAX_LOGS = 20  # runs of a list whose log is read for the model
REGISTRY_TIMEOUT_S = 10.0  # a bucket that is not reachable from here must not hold up a list


def model_ids(cluster: Cluster, runs: Sequence[Any]) -> dict[str, str]:
    """Run -> the model that it trained or refreshed, for the runs with a verdict; ``runs`` are the latest first."""
    found: dict[str, str] = {}
    for run in runs[:MAX_LOGS]:
        found[run.run_id] = _from_log(cluster, run)
    missing = [run for run in runs if not found.get(run.run_id)]
    if missing:
        registered = _registered_models(RunPackage(cluster, missing[0]).run_parameters())
        found |= {run.run_id: registered.get(run.run_id, "") for run in missing}
    return found


def _from_log(cluster: Cluster, run: Any) -> str:
    for step in DECIDING_STEPS:
        if pod := logs.latest_pod(run, step):
            output = logs.read_output(cluster, run.run_id, pod)
            return str(output.result.get("result", {}).get("model_id", "")) if output else ""
    return ""


def _registered_models(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Run -> model, as the events of the registry say, in a bucket or on a volume that is mounted here."""
    repository = parameters.get("storage", {}).get("repository", "")
    workspace = Path(parameters.get("workspace", ""), "repository")
    if not repository and not workspace.is_dir():
        return {}
    models: dict[str, str] = {}

    def read() -> None:
        from rankline.registry.model_registry import ModelRegistry

        with contextlib.suppress(RanklineError, OSError):
            events = ModelRegistry(repository or workspace, repair_cache=False).history()
            models.update({event.run_id: event.model_id for event in events if event.run_id and event.model_id})

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(REGISTRY_TIMEOUT_S)
    return dict(models)
