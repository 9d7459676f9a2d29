"""Reading from the Kubernetes API with the settings of a kubeconfig, or of the pod that this runs in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow.kubeconfig import TIMEOUT_S, kubernetes_client
from rankline.errors import AccessError


class NotKnown(Exception):
    """This user may not read it, or it cannot be read here; the message says what."""


@dataclass(frozen=True)
class Kubernetes:
    """The Kubernetes API of a cluster."""

    client: Any  # kubernetes.client.ApiClient
    host: str

    def get(self, path: str) -> dict[str, Any] | None:
        """The object at a path of the API; None where there is none.

        Raises:
            NotKnown: this user may not read it.
            AccessError: the API does not answer.
        """
        import urllib3
        from kubernetes.client import ApiException

        try:
            response = self.client.call_api(
                path, "GET", header_params={"Accept": "application/json"}, auth_settings=["BearerToken"],
                _preload_content=False, _return_http_data_only=True, _request_timeout=TIMEOUT_S,
            )  # fmt: skip
            answer: dict[str, Any] = json.loads(response.data)
        except ApiException as error:
            if error.status == 404:
                return None
            if error.status in (401, 403):
                raise NotKnown(f"this user may not read {path}") from error
            raise AccessError("Kubernetes refuses", found=f"HTTP {error.status} for {path}", where=self.host) from error
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise AccessError("Kubernetes does not answer", found=type(error).__name__, where=self.host) from error
        return answer

    def items(self, path: str) -> list[dict[str, Any]]:
        """The objects of a list; see `get`."""
        return (self.get(path) or {}).get("items") or []


def open_kubernetes(context: str) -> Kubernetes:
    """The API that a context of the kubeconfig names, the current one if it is empty; in a pod, that of its cluster.

    Raises:
        AccessError: there is neither a kubeconfig with that context nor a pod's service account.
    """
    client = kubernetes_client(context)
    if client is None:
        raise AccessError(
            "no kubeconfig leads to Kubernetes",
            expected=f"a kubeconfig with the context {context!r}" if context else "~/.kube/config, or KUBECONFIG",
            found="none",
            hint="`kubectl get namespaces` has to work with it",
        )
    return Kubernetes(client, client.configuration.host)
