"""The credentials with which nodes pull images: those that the service account of the pods names."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from pipelines.kubeflow.preflight.model import Preflight
from rankline.errors import AccessError

Credentials = tuple[str, str]  # user and password
_KEYS = (".dockerconfigjson", ".dockercfg")
_DOCKER_HUB = ("index.docker.io", "registry-1.docker.io")  # as docker's own configuration calls docker.io


def names_of(account: dict[str, Any]) -> list[str]:
    """The names of the pull secrets of a service account."""
    return [each["name"] for each in account.get("imagePullSecrets") or ()]


def pull_credentials(preflight: Preflight) -> dict[str, Credentials] | None:
    """Registry -> credentials that the service account has for it; None where they cannot be read from here."""
    credentials: dict[str, Credentials] = {}
    try:
        account = preflight.kubernetes.get(preflight.path("serviceaccounts", preflight.account)) or {}
        for name in names_of(account):
            secret = preflight.kubernetes.get(preflight.path("secrets", name)) or {}
            for registry, one in _registries(secret):
                credentials.setdefault(registry, one)
    except AccessError:
        return None
    return credentials


def _registries(secret: dict[str, Any]) -> Iterator[tuple[str, Credentials]]:
    data = secret.get("data") or {}
    try:
        for key in _KEYS:
            config = json.loads(base64.b64decode(data.get(key, "")) or b"{}")
            for address, entry in config.get("auths", config if key == ".dockercfg" else {}).items():
                registry = address.partition("://")[2] or address
                registry = registry.partition("/")[0]
                user, password = entry.get("username"), entry.get("password")
                if entry.get("auth"):
                    user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
                yield "docker.io" if registry in _DOCKER_HUB else registry, (user or "", password or "")
    except (ValueError, AttributeError):  # the nodes cannot read it either
        return
