"""What Kubernetes itself has of a schedule: a ScheduledWorkflow, which starts the runs.

The API server creates it before it stores the recurring run. Where it fails in between, the ScheduledWorkflow fires,
and the API lists neither it nor its runs. A run is created in the same order: first its workflow.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.errors import Unreachable
from pipelines.kubeflow.kubeconfig import TIMEOUT_S, kubernetes_client
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
    import kubernetes
    import urllib3

    client, namespace = kubernetes_client(cluster.context), cluster.pod_namespace()
    if client is None:
        raise AccessError(
            "Kubernetes cannot be asked for ScheduledWorkflows",
            expected="a kubeconfig whose current context is this cluster, or --context",
            found="none",
        )
    try:
        response = kubernetes.client.CustomObjectsApi(client).list_namespaced_custom_object(
            "kubeflow.org", "v1beta1", namespace, "scheduledworkflows",
            _preload_content=False, _request_timeout=TIMEOUT_S,
        )  # fmt: skip
        items = json.loads(response.data).get("items") or []
    except (kubernetes.client.ApiException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise AccessError(
            "Kubernetes does not list ScheduledWorkflows",
            expected=f"the right to list scheduledworkflows.kubeflow.org in namespace {namespace}",
            found=getattr(error, "reason", "") or type(error).__name__,
            where=client.configuration.host,
        ) from error
    return [_from_item(each) for each in items]


def _from_item(item: dict[str, Any]) -> ScheduledWorkflow:
    spec = item["spec"]
    return ScheduledWorkflow(
        name=item["metadata"]["name"],
        id=item["metadata"]["uid"],
        fires=bool(spec.get("enabled")),
        pipeline_id=spec.get("pipelineId", ""),
        version_id=spec.get("pipelineVersionId", ""),
    )


def delete_command(cluster: Cluster, name: str) -> str:
    """The command that deletes a ScheduledWorkflow."""
    return f"kubectl {cluster.kubectl_namespace()} delete scheduledworkflow {name}"


@contextlib.contextmanager
def unstored_schedule(cluster: Cluster, name: str, version_id: str) -> Iterator[None]:
    """Create a recurring run in the block: an error says what may fire all the same, and how to end it."""

    def names() -> list[str]:
        return [each.name for each in list_scheduled_workflows(cluster) if each.version_id == version_id]

    prefix = (re.sub("[^a-z0-9-]+", "", name.lower()) or "job-")[:_PREFIX_LENGTH]
    with _unstored(
        cluster, f"schedule {name} is not stored, and may fire all the same", "scheduledworkflow", prefix, names
    ):
        yield


@contextlib.contextmanager
def unstored_run(cluster: Cluster, name: str, pipeline: str) -> Iterator[None]:
    """Create a run in the block: an error says what may run all the same, and how to end it."""
    with _unstored(cluster, f"run {name!r} is not stored, and may run all the same", "workflow", f"{pipeline}-", list):
        yield


@contextlib.contextmanager
def _unstored(
    cluster: Cluster, message: str, kind: str, prefix: str, find_names: Callable[[], list[str]]
) -> Iterator[None]:
    try:
        yield
    except Unreachable as error:  # a request that is refused leaves nothing behind
        kubectl, names = f"kubectl {cluster.kubectl_namespace()}", list[str]()
        with contextlib.suppress(AccessError):
            names = find_names()
        commands = ", ".join(f"`{kubectl} delete {kind} {name}`" for name in names)
        listed = f"`{kubectl} get {kind}s` shows it as {prefix} and five more characters"
        raise AccessError(
            message,
            found=f"{error.message}: {error.found}" if error.found else error.message,
            where=error.where,
            hint=commands or f"{listed}; `{kubectl} delete {kind} NAME` ends it",
        ) from error
