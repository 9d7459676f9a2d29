"""A stand-in of the Kubernetes API on a real port: it reads objects that a test puts there, and changes nothing.

It is asked by the `kubernetes` client through a kubeconfig with a token. Every object has to fit the client's models of
the API, down to each field, so that no test agrees with a shape that Kubernetes does not have.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

TOKEN = "a-token-not-to-be-seen"
_RESOURCES = {  # resource -> (kind, model of the client)
    "namespaces": ("Namespace", "V1Namespace"),
    "nodes": ("Node", "V1Node"),
    "pods": ("Pod", "V1Pod"),
    "secrets": ("Secret", "V1Secret"),
    "configmaps": ("ConfigMap", "V1ConfigMap"),
    "serviceaccounts": ("ServiceAccount", "V1ServiceAccount"),
    "persistentvolumeclaims": ("PersistentVolumeClaim", "V1PersistentVolumeClaim"),
    "storageclasses": ("StorageClass", "V1StorageClass"),
    "deployments": ("Deployment", "V1Deployment"),
    "scheduledworkflows": ("ScheduledWorkflow", ""),  # of Kubeflow: the client has no model of it
}
_PATH = re.compile(
    r"^/(?:api/v1|apis/[a-z0-9.]+/v[0-9a-z]+)(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<resource>[a-z]+)"
    r"(?:/(?P<name>[^/?]+))?$"
)


def problems(value: Any, model: str, path: str = "") -> Iterator[str]:
    """What does not fit a model of Kubernetes: unknown fields, wrong types, and fields that are missing or invalid."""
    from kubernetes import client

    inner = re.sub(r"^(list\[|dict\(str, )(.*)[\])]$", r"\2", model)
    if inner != model:
        each = value.items() if isinstance(value, dict) else enumerate(value)
        for name, one in each:
            yield from problems(one, inner, f"{path}.{name}")
    elif kind := getattr(client.models, inner, None):
        names = {json_name: attribute for attribute, json_name in kind.attribute_map.items()}
        yield from (f"{path}.{name}" for name in set(value) - set(names))
        for name in set(value) & set(names):
            yield from problems(value[name], kind.openapi_types[names[name]], f"{path}.{name}")
        try:
            kind(**{names[name]: value[name] for name in set(value) & set(names)})
        except ValueError as error:
            yield f"{path}: {error}"
    elif (inner == "str" and not isinstance(value, str)) or (inner == "int" and type(value) is not int):
        yield f"{path}: {value!r} is no {inner}"


@dataclass
class KubernetesApi:
    """The objects of the stand-in, its address, and what its user may not read."""

    kubeconfig: Path
    host: str = ""
    forbidden: set[str] = field(default_factory=set)  # resources
    broken: bool = False
    requests: list[tuple[str, str]] = field(default_factory=list)  # (method, path)
    _objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)

    def put(self, resource: str, name: str, *, namespace: str = "", **content: Any) -> None:
        """Create or replace an object."""
        kind, model = _RESOURCES[resource]
        metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **content.pop("metadata", {})}
        entry = {"kind": kind, "metadata": metadata, **content}
        assert not model or list(problems(entry, model)) == []
        self._objects[resource, namespace, name] = entry

    def remove(self, resource: str, name: str, *, namespace: str = "") -> None:
        """Delete an object."""
        del self._objects[resource, namespace, name]

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """The status and the body of a GET."""
        match = _PATH.match(path)
        if self.broken or match is None:
            return _status(500 if self.broken else 404, "InternalError" if self.broken else "NotFound", path)
        resource, namespace, name = match["resource"], match["namespace"] or "", match["name"]
        if resource in self.forbidden:
            return _status(403, "Forbidden", f'{resource} is forbidden: User "reader" cannot get resource "{resource}"')
        if name is None:
            items = [
                entry
                for key, entry in self._objects.items()
                if key[0] == resource and namespace in ("", key[1])  # without a namespace: those of all
            ]
            return 200, {"kind": f"{_RESOURCES[resource][0]}List", "apiVersion": "v1", "metadata": {}, "items": items}
        entry = self._objects.get((resource, namespace, name))
        return (200, entry) if entry else _status(404, "NotFound", f'{resource} "{name}" not found')


def _status(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return code, {**status, "message": message, "reason": reason, "code": code}


@contextlib.contextmanager
def kubernetes_api(folder: Path) -> Iterator[KubernetesApi]:
    """The stand-in with an empty cluster; its kubeconfig is in ``folder``."""
    api = KubernetesApi(folder / "kubeconfig")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            api.requests.append((self.command, self.path))
            authorized = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            path = self.path.partition("?")[0]
            code, body = api.answer(path) if authorized else _status(401, "Unauthorized", "Unauthorized")
            content = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.host = f"http://127.0.0.1:{server.server_port}"
    api.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(api.host)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _kubeconfig(host: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": host}}],
        "users": [{"name": "reader", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "reader"}}],
    }  # fmt: skip
