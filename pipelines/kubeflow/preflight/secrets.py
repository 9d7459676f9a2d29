"""The secrets that steps read their environment from: there, with the keys, and filled in."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterator

from pipelines.findings import Finding
from pipelines.kubeflow.preflight.model import Preflight

PLACEHOLDER = "CHANGE-ME"  # what `rankline cluster init` writes in place of a value


def secrets(preflight: Preflight) -> Iterator[Finding]:
    """Every secret of `cluster.secrets` has its keys, with values other than the placeholder. No value is shown."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for secret in preflight.recipe.cluster.secrets.values():
        name, _, key = secret.partition("/")
        wanted[name].append(key)
    for name, keys in sorted(wanted.items()):
        resource = preflight.kubernetes.get(preflight.path("secrets", name))
        check, ns = f"secret {name}", preflight.namespace
        create = f"kubectl -n {ns} create secret generic {name} " + " ".join(f"--from-literal={key}=…" for key in keys)
        if resource is None:
            yield Finding(check, "fail", f"it does not exist in namespace {ns}", create)
            continue
        data = resource.get("data") or {}
        empty = (b"", PLACEHOLDER.encode())
        missing = [key for key in keys if key not in data]
        unfilled = [key for key in keys if key in data and base64.b64decode(data[key]).strip() in empty]
        if missing or unfilled:
            faults = [f"no key {key}" for key in missing] + [f"{key} is not filled in" for key in unfilled]
            yield Finding(check, "fail", f"{', '.join(faults)} (keys: {', '.join(sorted(data))})", create)
        else:
            yield Finding(check, "ok", f"it has {', '.join(keys)}")
