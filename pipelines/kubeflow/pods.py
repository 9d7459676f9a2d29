"""What Kubernetes says of the pods of a run: which ones wait and why, and which were killed.

The API of Kubeflow Pipelines has none of it. It is read where a kubeconfig leads to the cluster; the pods of a run
carry its id as a label and Argo's node id as an annotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow.client import Cluster
from pipelines.kubeflow.kubernetes_api import Kubernetes, open_kubernetes
from pipelines.kubeflow.run_package import size_setting
from pipelines.steps import StepRow
from rankline.errors import AccessError

RUN_LABEL, NODE_ANNOTATION = "pipeline/runid", "workflows.argoproj.io/node-id"
_STARTING = ("ContainerCreating", "PodInitializing")  # reasons that explain nothing
# what Kubernetes says of a pod that cannot start -> the setting that may be wrong
_SETTINGS = {
    "Insufficient cpu": "cpu",
    "Insufficient memory": "memory",
    "nvidia.com/gpu": "gpus",
    "node affinity": "node_selector",
    "node selector": "node_selector",
}


@dataclass(frozen=True)
class PodStatus:
    """Why a pod does not run as it should."""

    pod: str
    reason: str = ""  # why it waits, or how it was ended; empty where nothing is wrong
    out_of_memory: bool = False


class Pods:
    """The pods of a cluster's runs; nothing is known of them without a kubeconfig."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._kubernetes: Kubernetes | None = None
        self._reachable = True

    def statuses(self, run: str) -> dict[str, PodStatus]:
        """Argo's node id -> status of each pod of a run that still exists."""
        return {
            pod["metadata"].get("annotations", {}).get(NODE_ANNOTATION, ""): self._status(pod)
            for pod in self._list("pods", labelSelector=f"{RUN_LABEL}={run}")
        }

    def _status(self, pod: dict[str, Any]) -> PodStatus:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
        states = [state for each in containers for state in (each.get("state"), each.get("lastState")) if state]
        terminated = [state["terminated"] for state in states if state.get("terminated")]
        if any(each.get("reason") == "OOMKilled" for each in terminated):
            return PodStatus(name, "OOMKilled", out_of_memory=True)
        waiting = [state["waiting"] for state in states if state.get("waiting")]
        causes = [each for each in waiting if each.get("reason") not in _STARTING]
        causes += [each for each in status.get("conditions") or [] if _is_unscheduled(each)]
        causes += [status] if status.get("reason") else []  # Evicted, DeadlineExceeded
        if causes:
            return PodStatus(name, _sentence(causes[0]))
        return PodStatus(name, self._latest_warning(name) if waiting or status.get("phase") == "Pending" else "")

    def _latest_warning(self, pod: str) -> str:
        events = self._list("events", fieldSelector=f"involvedObject.name={pod},type=Warning")
        return _sentence(sorted(events, key=_event_time)[-1]) if events else ""

    def _list(self, kind: str, **query: str) -> list[dict[str, Any]]:
        """The objects of a kind; none where Kubernetes cannot be asked, which is not tried again."""
        if not self._reachable:
            return []
        try:
            self._kubernetes = self._kubernetes or open_kubernetes(self._cluster.context)
            return self._kubernetes.items(f"/api/v1/namespaces/{self._cluster.pod_namespace()}/{kind}", **query)
        except AccessError:
            self._reachable = False
            return []


def _event_time(event: dict[str, Any]) -> str:
    """When an event was last seen; the list is in the order of names."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max((time.removesuffix("Z") for time in times if time), default="")


def _is_unscheduled(condition: dict[str, Any]) -> bool:
    return condition.get("type") == "PodScheduled" and condition.get("status") == "False"


def _sentence(cause: dict[str, Any]) -> str:
    return ": ".join(part for part in (cause.get("reason", ""), " ".join((cause.get("message") or "").split())) if part)


def setting_for(row: StepRow, reason: str) -> str:
    """The setting to look at where a step's pod waits for this reason; empty where it is none that is known."""
    if "persistentvolumeclaim" in reason.lower():
        return "cluster.volume"
    if "Image" in reason.partition(":")[0]:
        return f"cluster.images.{row.image}"
    names = [setting for words, setting in _SETTINGS.items() if words in reason]
    return size_setting(row, names[0]) if names else ""
