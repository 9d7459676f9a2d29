"""Where the log of a step can still be read: in its pod, and once that is gone, in the workspace of the run."""

from __future__ import annotations

import time
from typing import Any

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.run_package import RunPackage
from pipelines.kubeflow.run_summary import is_running, kubectl_logs_command
from pipelines.kubeflow.triggers import unix_seconds

STOCK_KEEP_S = 3600  # Kubeflow's own configuration deletes the pods of a run that long after its end


def log_hint(
    cluster: Cluster, run: Any, package: RunPackage, *, step: str = "", pod: str = "", pod_exists: bool = False
) -> str:
    """The command that shows the log of a step, or of every pod of a run."""
    if pod_exists or not pods_are_gone(run, package):
        return f"`{kubectl_logs_command(cluster, run.run_id, pod)}`"
    context = package.context(run.run_id)
    place = "WORKSPACE" if context is None else context.storage.workspace or str(context.workspace)
    command = f"`{' '.join(['rankline runs logs', run.run_id, *([step] if step else []), '-w', place])}`"
    if "://" in place:
        return f"{command}: the pods are gone"
    return (
        f"{command} in a pod that mounts the workspace, as logs.yaml of `rankline cluster init` does: its own is gone"
    )


def pods_are_gone(run: Any, package: RunPackage) -> bool:
    """Whether a run ended so long ago that its pods have been deleted."""
    ended_s = None if is_running(run) else unix_seconds(run.finished_at)
    return ended_s is not None and time.time() - ended_s > (package.keep_s or STOCK_KEEP_S)
