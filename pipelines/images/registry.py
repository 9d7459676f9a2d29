"""Whether a registry has an image, as its API for manifests says: without credentials, or with docker's."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests

Credentials = tuple[str, str]  # user and password
_TIMEOUT_S = 10.0
_DOCKER_HUB, _DOCKER_HUB_API = "docker.io", "registry-1.docker.io"
_DOCKER_HUB_CONFIG = "https://index.docker.io/v1/"  # its key in docker's configuration
_TYPES = ", ".join(
    f"application/vnd.{kind}"
    for kind in (
        "oci.image.index.v1+json", "oci.image.manifest.v1+json", "docker.distribution.manifest.list.v2+json",
        "docker.distribution.manifest.v2+json",
    )
)  # fmt: skip


class ManifestUnknown(Exception):
    """The registry does not have the image."""


class RegistryNotKnown(Exception):
    """The registry cannot be asked from here; the message says why."""


class WantsCredentials(RegistryNotKnown):
    """The registry answers, and wants other credentials."""


def docker_credentials(image: str) -> Credentials | None:
    """The user and password that docker has here for the registry of an image."""
    return _credentials(parts(image)[0])


def require_manifest(image: str, credentials: Credentials | None) -> None:
    """Return if the registry has ``image`` (name@sha256:…); without ``credentials``, for anybody.

    Raises:
        ManifestUnknown: it does not.
        RegistryNotKnown: it cannot be reached.
        WantsCredentials: it wants credentials, or others.
    """
    import requests

    registry, name, digest = parts(image)
    host = _DOCKER_HUB_API if registry == _DOCKER_HUB else registry
    is_local = re.match(r"(localhost|127\.[0-9.]+)(:|$)", registry)  # as docker does, without TLS
    url = f"{'http' if is_local else 'https'}://{host}/v2/{name}/manifests/{digest}"
    try:
        with requests.Session() as session:
            response = session.head(url, headers={"Accept": _TYPES}, timeout=_TIMEOUT_S, allow_redirects=True)
            if response.status_code == 401:
                authorization = _authorization(session, credentials, response.headers.get("WWW-Authenticate", ""))
                headers = {"Accept": _TYPES, "Authorization": authorization}
                response = session.head(url, headers=headers, timeout=_TIMEOUT_S, allow_redirects=True)
    except (requests.RequestException, ValueError) as error:
        raise RegistryNotKnown(f"{registry} does not answer here ({type(error).__name__})") from error
    if response.status_code == 404:
        raise ManifestUnknown(image)
    if response.status_code in (401, 403):
        raise WantsCredentials(f"{registry} wants {'other ' if credentials else ''}credentials")
    if response.status_code != 200:
        raise RegistryNotKnown(f"{registry} answers with HTTP {response.status_code}")


def parts(image: str) -> tuple[str, str, str]:
    """(registry, name, digest) of an image, with Docker Hub's defaults."""
    reference, _, digest = image.partition("@")
    first, slash, rest = reference.partition("/")
    if not slash or not (re.search("[.:]", first) or first == "localhost"):
        first, rest = _DOCKER_HUB, reference if slash else f"library/{reference}"
    return first, re.sub(r":[^:/]*$", "", rest), digest


def _authorization(session: requests.Session, credentials: Credentials | None, challenge: str) -> str:
    """The header that answers a registry's challenge: the credentials, or a token for them, or for nobody."""
    scheme, _, fields = challenge.partition(" ")
    if scheme.lower() == "basic" or not challenge:
        return f"Basic {base64.b64encode(':'.join(credentials).encode()).decode()}" if credentials else ""
    values = dict(re.findall(r'(\w+)="([^"]*)"', fields))
    query = {name: values[name] for name in ("service", "scope") if name in values}
    response = session.get(values.get("realm", ""), params=query, auth=credentials, timeout=_TIMEOUT_S)
    answer = response.json() if response.ok else {}
    return f"Bearer {answer.get('token') or answer.get('access_token') or ''}"


def _credentials(registry: str) -> Credentials | None:
    """The user and password that docker has for a registry, from its configuration or a credential helper."""
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    key = _DOCKER_HUB_CONFIG if registry == _DOCKER_HUB else registry
    helper = (config.get("credHelpers") or {}).get(key) or config.get("credsStore")
    if auth := (config.get("auths") or {}).get(key, {}).get("auth"):
        user, _, password = base64.b64decode(auth).decode().partition(":")
        return user, password
    if not helper:
        return None
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=key, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
        answer = json.loads(done.stdout)
        return str(answer["Username"]), str(answer["Secret"])
    except (OSError, ValueError, LookupError, subprocess.TimeoutExpired):
        return None
