"""The API of Kubernetes itself, where a kubeconfig or a pod's own account leads to it."""

from __future__ import annotations

import contextlib
import os
from typing import Any

TIMEOUT_S = (3.0, 10.0)  # to connect, and to wait for an answer


def kubernetes_client(context: str) -> Any:
    """A client of Kubernetes, for a context of the kubeconfig or the current one; None where nothing leads to it."""
    import kubernetes

    configuration = kubernetes.client.Configuration()
    configuration.retries = 0
    return kubernetes.client.ApiClient(configuration) if _load_settings(configuration, context) else None


def _load_settings(configuration: Any, context: str) -> bool:
    """Fill in a kubeconfig's settings, or those of a pod; False where there are neither."""
    import yaml
    from kubernetes import config

    try:
        # the client reads KUBECONFIG when it is imported, and never again
        config.load_kube_config(
            os.environ.get("KUBECONFIG") or None, context=context or None, client_configuration=configuration
        )
    except (config.ConfigException, yaml.YAMLError, OSError):  # none, or one that cannot be read
        with contextlib.suppress(config.ConfigException):
            config.load_incluster_config(client_configuration=configuration)
            return True
        return False
    return True
