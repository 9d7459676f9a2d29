"""What Kubernetes itself has of a schedule: a ScheduledWorkflow, which starts the runs.

The API server creates it before it stores the recurring run. Where it fails in between, the ScheduledWorkflow fires,
and the API lists neither it nor its runs. A run is created in the same order: first its workflow.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.errors import Unreachable
from pipelines.kubeflow.kubernetes_api import open_kubernetes
from rankline.errors import AccessError

_PREFIX_LENGTH = 25  # characters of a schedule's name that Kubernetes' name begins with


@dataclass(frozen=True)
class ScheduledWorkflow:
    """A ScheduledWorkflow of the cluster."""

    name: str
    id: str  # that of its recurring run
    fires: bool
    pipeline_id: str
    version_id: str


def list_scheduled_workflows(cluster: Cluster) -> list[ScheduledWorkflow]:
    """The ScheduledWorkflows in the namespace of a cluster's runs.

    Raises:
        AccessError: no kubeconfig leads to Kubernetes, or it does not answer, or refuses the request.
    """
    kubernetes, namespace = open_kubernetes(cluster.context), cluster.pod_namespace()
    items = kubernetes.items(f"/apis/kubeflow.org/v1beta1/namespaces/{namespace}/scheduledworkflows")
    return [
        ScheduledWorkflow(
            name=each["metadata"]["name"],
            id=each["metadata"]["uid"],
            fires=bool(each["spec"].get("enabled")),
            pipeline_id=each["spec"].get("pipelineId", ""),
            version_id=each["spec"].get("pipelineVersionId", ""),
        )
        for each in items
    ]


def delete_command(cluster: Cluster, name: str) -> str:
    """The command that deletes a ScheduledWorkflow."""
    return f"kubectl {cluster.kubectl_namespace()} delete scheduledworkflow {name}"


def unstored_schedule(cluster: Cluster, name: str, version_id: str) -> contextlib.AbstractContextManager[None]:
    """Create a recurring run in the block: an error says what may fire all the same, and how to end it."""
    prefix = (re.sub("[^a-z0-9-]+", "", name.lower()) or "job-")[:_PREFIX_LENGTH]
    message = f"schedule {name} is not stored, and may fire all the same"
    return _unstored(cluster, message, "scheduledworkflow", prefix, version_id)


def unstored_run(cluster: Cluster, name: str, pipeline: str) -> contextlib.AbstractContextManager[None]:
    """Create a run in the block: an error says what may run all the same, and how to end it."""
    return _unstored(cluster, f"run {name!r} is not stored, and may run all the same", "workflow", f"{pipeline}-")


@contextlib.contextmanager
def _unstored(cluster: Cluster, message: str, kind: str, prefix: str, version_id: str = "") -> Iterator[None]:
    """``version_id`` is the package of a schedule, by which its ScheduledWorkflow is known."""
    try:
        yield
    except Unreachable as error:  # a request that is refused leaves nothing behind
        kubectl, names = f"kubectl {cluster.kubectl_namespace()}", list[str]()
        if version_id:
            with contextlib.suppress(AccessError):
                names = [each.name for each in list_scheduled_workflows(cluster) if each.version_id == version_id]
        commands = ", ".join(f"`{kubectl} delete {kind} {name}`" for name in names)
        listed = f"`{kubectl} get {kind}s` shows it as {prefix} and five more characters"
        raise AccessError(
            message,
            found=error.one_line,
            where=error.where,
            hint=commands or f"{listed}; `{kubectl} delete {kind} NAME` ends it",
        ) from error
