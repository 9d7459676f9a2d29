"""The checks of a cluster, and how they are run."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.findings import Finding
from pipelines.kubeflow.kubernetes_api import NotKnown
from pipelines.kubeflow.preflight import installation, namespace, nodes, secrets, volume
from pipelines.kubeflow.preflight.model import Check, Preflight
from rankline.errors import RanklineError

CHECKS: tuple[Check, ...] = (
    installation.version, installation.controller, namespace.namespace, namespace.service_account, volume.volume,
    secrets.secrets, nodes.nodes,
)  # fmt: skip


def run_preflight(preflight: Preflight) -> Iterator[Finding]:
    """The findings of every check, in order; what cannot be read is a finding as well."""
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            yield from check(preflight)
        except NotKnown as error:
            hint = "run this with the kubeconfig of somebody who may; the run itself does not need that right"
            yield Finding(name, "warn", f"not known: {error.message}", hint)
        except RanklineError as error:
            yield Finding(name, "fail", error.one_line, error.hint or "kubectl has to work here")
