"""Kubeflow Pipelines itself: its version, and what the controller of its workflows does with every run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pipelines.findings import Finding
from pipelines.kubeflow.preflight.model import Preflight
from pipelines.steps import STEPS

SEEN = "2.17"  # the release that Rankline has run on


def version(preflight: Preflight) -> Iterator[Finding]:
    """The API server has the version that Rankline was run on, as its image says."""
    deployment = preflight.kubernetes.get(f"/apis/apps/v1/namespaces/{preflight.system}/deployments/ml-pipeline")
    if deployment is None:
        hint = "check that --context names the cluster of --host: the rest of this list is about that cluster"
        message = f"no deployment ml-pipeline in namespace {preflight.system} at {preflight.kubernetes.host}"
        yield Finding("version", "warn", message, hint)
        return
    images = [each["image"] for each in deployment["spec"]["template"]["spec"]["containers"]]
    tags = [tag[1] for image in images if (tag := re.search(r":v?([0-9][^/@]*)", image.rpartition("/")[2]))]
    if not tags:
        yield Finding("version", "warn", f"not known: its image is {images[0]}", f"Rankline was run on {SEEN}")
    elif not tags[0].startswith(f"{SEEN}."):
        hint = f"Rankline was run on {SEEN}: submit the recipe smoke first"
        yield Finding("version", "warn", f"Kubeflow Pipelines {tags[0]}", hint)
    else:
        yield Finding("version", "ok", f"Kubeflow Pipelines {tags[0]}")


def controller(preflight: Preflight) -> Iterator[Finding]:
    """What Argo's controller does with every workflow: which failures it tries again, and when it deletes pods."""
    path = f"/api/v1/namespaces/{preflight.system}/configmaps/workflow-controller-configmap"
    defaults = _workflow_defaults((preflight.kubernetes.get(path) or {}).get("data") or {})
    policy = defaults.get("templateDefaults", {}).get("retryStrategy", {}).get("retryPolicy", "")
    retries = sorted({row.size for row in STEPS.values() if getattr(preflight.recipe.cluster, row.size).retries})
    if policy == "OnError" and retries:
        message = "retryPolicy is OnError: a step that fails is not tried again, only one whose pod is lost"
        settings = ", ".join(f"cluster.{size}.retries" for size in retries)
        hint = f"{settings} have no effect on failures until workflowDefaults in {path.rpartition('/')[2]} is changed"
        yield Finding("retries", "warn", message, hint)
    else:
        yield Finding("retries", "ok", f"retryPolicy is {policy or 'OnFailure'}")
    seconds = (defaults.get("ttlStrategy") or {}).get("secondsAfterCompletion")
    if seconds is not None:
        yield Finding("pods", "ok", f"deleted {int(seconds) // 60} minutes after a run's end, with what kubectl shows")


def _workflow_defaults(data: dict[str, str]) -> dict[str, Any]:
    """`workflowDefaults.spec` of the controller's configuration, which is one text, or a text for each key."""
    import yaml

    config = {**(yaml.safe_load(data.get("config") or "") or {})}
    defaults = (
        yaml.safe_load(data["workflowDefaults"]) if "workflowDefaults" in data else config.get("workflowDefaults")
    )
    spec: dict[str, Any] = (defaults or {}).get("spec") or {}
    return spec
