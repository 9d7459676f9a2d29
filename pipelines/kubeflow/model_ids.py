"""What the model registry says of runs, where it can be read: the model of each, and the verdict on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.kubeflow import logs
from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.nodes import latest_pods
from pipelines.kubeflow.run_package import RunPackage
from rankline.registry.registry_state import Event
from rankline.runtime.run_context import RunContext
from rankline.runtime.steps import DECIDING_STEPS

_VERDICTS = ("promoted", "pending", "rejected")
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
        events = _events(cluster, RunPackage(cluster, missing[0]).context(missing[0].run_id))
        registered = {event.run_id: event.model_id for event in events if event.run_id and event.model_id}
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


def recorded_verdict(cluster: Cluster, context: RunContext | None, run: str) -> dict[str, Any]:
    """The verdict of a run as its event has it, in the form of the deciding step's result; empty without one."""
    events = [each for each in _events(cluster, context) if each.run_id == run and each.kind in _VERDICTS]
    if not events:
        return {}
    event = events[-1]
    return {"sentence": event.why, "model_id": event.model_id, **event.details}


def _events(cluster: Cluster, context: RunContext | None) -> list[Event]:
    """The events of a run's registry, in a bucket or on a volume that is mounted here; none where it is neither."""
    if context is None or ("://" not in context.repository and not Path(context.repository).is_dir()):
        return []
    repository = context.repository

    def read() -> list[Event]:
        from rankline.registry.model_registry import ModelRegistry

        return ModelRegistry(repository, repair_cache=False).history()

    return cluster.files.ask(repository, read) or []
