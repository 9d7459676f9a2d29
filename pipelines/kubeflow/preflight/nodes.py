"""The nodes: one has to have room for the largest step of each size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pipelines.findings import Finding
from pipelines.kubeflow.kubernetes_api import NotKnown
from pipelines.kubeflow.preflight.model import Preflight
from pipelines.placement import Resources
from pipelines.quantities import parse_quantity
from pipelines.steps import STEPS
from rankline.errors import AccessError

_BLOCKING = ("NoSchedule", "NoExecute")
Requests = dict[str, dict[str, Decimal]]  # node -> resource -> what its pods request


def nodes(preflight: Preflight) -> Iterator[Finding]:
    """For each size of the recipe's steps, a node that is ready, has its labels and has room for what a pod requests.

    What other pods request is taken off where this user may list them.
    """
    items, taken = preflight.kubernetes.items("/api/v1/nodes"), _taken(preflight)
    usable = [each for each in items if _takes_pods(each)]
    for name in sorted({row.size for row in STEPS.values()}):
        size: Resources = getattr(preflight.recipe.cluster, name)
        wanted = _requests(size)
        text = ", ".join(f"{quantity} {resource}" for resource, quantity in wanted.items())
        labelled = [each for each in usable if _has_labels(each, size.node_selector)]
        fitting = [each for each in labelled if all(_allows(each, *one) for one in wanted.items())]
        check = f"nodes for {name}"
        free = [each for each in fitting if all(_allows(each, *one, taken or {}) for one in wanted.items())]
        if free:
            note = "" if taken is not None else "; whether other pods leave room is not known"
            yield Finding(check, "ok", f"{len(free)} of {len(items)} allow {text}{note}")
            continue
        if fitting:
            lower = " or ".join(_setting(name, resource) for resource in wanted)
            message = f"{len(fitting)} of {len(items)} allow {text}, and other pods leave no room for it now"
            yield Finding(check, "warn", message, f"{lower}, or end other pods; such a step waits until there is room")
            continue
        if not labelled:
            hint = "mend cluster.{name}.node_selector, or the nodes" if usable else "`kubectl get nodes` shows them"
            yield Finding(check, "fail", f"none of {len(items)} is ready and has its labels", hint.format(name=name))
            continue
        lacking = [resource for resource in wanted if not any(_allows(e, resource, wanted[resource]) for e in labelled)]
        most = ", ".join(f"{_most(labelled, resource)} {resource}" for resource in wanted)
        settings = [_setting(name, resource) for resource in lacking or wanted]
        hint = f"{' or '.join(settings)}; such a step would wait for a node for ever"
        yield Finding(check, "fail", f"none allows {text}; the largest have {most}", hint)


def _requests(size: Resources) -> dict[str, str]:
    return {**size.requests, **({size.gpu_type: str(size.gpus)} if size.gpus else {})}


def _setting(size: str, resource: str) -> str:
    name = {"cpu": "cpu_request", "memory": "memory_request"}.get(resource, "gpus")
    return f"--set cluster.{size}.{name}=…"


def _takes_pods(node: dict[str, Any]) -> bool:
    spec, conditions = node["spec"], node["status"].get("conditions") or ()
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    tainted = any(each["effect"] in _BLOCKING and "gpu" not in each["key"] for each in spec.get("taints") or ())
    return ready and not tainted and not spec.get("unschedulable")


def _has_labels(node: dict[str, Any], labels: dict[str, str]) -> bool:
    return all(node["metadata"].get("labels", {}).get(label) == value for label, value in labels.items())


def _allows(node: dict[str, Any], resource: str, quantity: str, taken: Requests = {}) -> bool:  # noqa: B006
    """Whether a node has as much of a resource, apart from what is ``taken`` of it."""
    used = taken.get(node["metadata"]["name"], {}).get(resource, Decimal(0))
    return parse_quantity(node["status"]["allocatable"].get(resource, "0")) - used >= parse_quantity(quantity)


def _taken(preflight: Preflight) -> Requests | None:
    """What the pods on each node request; None where this user may not list them."""
    try:
        pods = preflight.kubernetes.items("/api/v1/pods")
    except (NotKnown, AccessError):  # they are very many, or not for this user
        return None
    taken: Requests = defaultdict(lambda: defaultdict(Decimal))
    for pod in pods:
        if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        for container in pod["spec"]["containers"]:
            requests = (container.get("resources") or {}).get("requests") or {}
            for resource, quantity in requests.items():
                taken[pod["spec"].get("nodeName", "")][resource] += parse_quantity(quantity)
    return taken


def _most(nodes: list[dict[str, Any]], resource: str) -> str:
    values: list[str] = [each["status"]["allocatable"].get(resource, "0") for each in nodes]
    return max(values, key=parse_quantity)
