"""Reading from the API of Kubernetes itself, where a kubeconfig or a pod's own account leads to it."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import Any

from rankline.errors import AccessError

_TIMEOUT_S = (3.0, 10.0)  # to connect, and to wait for an answer


class NotKnown(AccessError):
    """This user may not read it."""


@dataclass(frozen=True)
class Kubernetes:
    """The Kubernetes API of a cluster."""

    client: Any  # kubernetes.client.ApiClient
    host: str

    def get(self, path: str, **query: str) -> dict[str, Any] | None:
        """The object at a path of the API; None where there is none.

        Raises:
            NotKnown: this user may not read it.
            AccessError: the API does not answer.
        """
        import urllib3
        from kubernetes.client import ApiException

        try:
            response = self.client.call_api(
                path, "GET", query_params=list(query.items()), header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"], _preload_content=False, _return_http_data_only=True,
                _request_timeout=_TIMEOUT_S,
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

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """The objects of a list, which every cluster has; see `get`."""
        answer = self.get(path, **query)
        if answer is None:
            raise AccessError("Kubernetes does not have this list", found=path, where=self.host)
        return answer.get("items") or []


def open_kubernetes(context: str) -> Kubernetes:
    """The API that a context of the kubeconfig names, the current one if it is empty; in a pod, that of its cluster.

    Raises:
        AccessError: there is neither a kubeconfig with that context nor a pod's service account.
    """
    import kubernetes
    import yaml
    from kubernetes import config

    settings = kubernetes.client.Configuration()
    settings.retries = 0
    try:
        # the client reads KUBECONFIG when it is imported, and never again
        path = os.environ.get("KUBECONFIG") or None
        config.load_kube_config(path, context=context or None, client_configuration=settings)
    except (config.ConfigException, yaml.YAMLError, OSError):  # none, or one that cannot be read
        with contextlib.suppress(config.ConfigException):
            config.load_incluster_config(client_configuration=settings)
            return Kubernetes(kubernetes.client.ApiClient(settings), settings.host)
        raise AccessError(
            "no kubeconfig leads to Kubernetes",
            expected=f"a kubeconfig with the context {context!r}" if context else "~/.kube/config, or KUBECONFIG",
            found="none",
            hint="a kubeconfig with which `kubectl get namespaces` works",
        ) from None
    return Kubernetes(kubernetes.client.ApiClient(settings), settings.host)
