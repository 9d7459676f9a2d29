"""Which model each run of a list came to: from the model registry where it can be read, else from the runs' logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.kubeflow import logs
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.nodes import latest_pods
from pipelines.kubeflow.run_package import RunPackage
from rankline.runtime.run_context import RunContext
from rankline.runtime.steps import DECIDING_STEPS

MAX_LOGS = 20  # runs of a list whose log is read for the model


def model_ids(cluster: Cluster, runs: Sequence[Any]) -> dict[str, str]:
    """Run -> the model that it trained or refreshed, for the runs with a verdict; ``runs`` are the latest first."""
    models: dict[str, str] = {}
    for run in runs[:MAX_LOGS]:
        model = _from_log(cluster, run)
        if model is None:  # pods go an hour after their run, so those before it are gone, too
            break
        models[run.run_id] = model
    missing = [run for run in runs if not models.get(run.run_id)]
    if missing:
        registered = _registered_models(cluster, RunPackage(cluster, missing[0]).context(missing[0].run_id))
        models |= {run.run_id: registered.get(run.run_id, "") for run in missing}
    return models


def _from_log(cluster: Cluster, run: Any) -> str | None:
    """The model of a run, which may be empty; None where the log of its deciding step cannot be read."""
    pods = latest_pods(run)
    for step in DECIDING_STEPS:
        if pod := pods.get(step):
            output = logs.read_output(cluster, run.run_id, pod)
            return str(output.result.get("result", {}).get("model_id", "")) if output else None
    return ""


def _registered_models(cluster: Cluster, context: RunContext | None) -> dict[str, str]:
    """Run -> model, as the events of the registry say, in a bucket or on a volume that is mounted here."""
    if context is None or ("://" not in context.repository and not Path(context.repository).is_dir()):
        return {}
    repository = context.repository

    def read() -> dict[str, str]:
        from rankline.registry.model_registry import ModelRegistry

        events = ModelRegistry(repository, repair_cache=False).history()
        return {event.run_id: event.model_id for event in events if event.run_id and event.model_id}

    return cluster.files.ask(repository, read) or {}
