"""What a check of a cluster takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipelines.findings import Finding
from pipelines.kubeflow.kubernetes_api import Kubernetes
from pipelines.recipe import Recipe


@dataclass(frozen=True)
class Preflight:
    """A recipe, and the cluster that it is to be submitted to."""

    recipe: Recipe
    kubernetes: Kubernetes
    namespace: str  # of the run's pods
    account: str  # service account of the run's pods; empty for the namespace's own
    system: str = "kubeflow"  # namespace of Kubeflow Pipelines itself

    def path(self, kind: str, name: str = "") -> str:
        """The path of the core API to the objects of a kind in the run's namespace, or to one of them."""
        return f"/api/v1/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")


Check = Callable[[Preflight], Iterator[Finding]]
