"""The namespace of the run's pods: that it is there, what it enforces on pods, and their service account."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.findings import Finding
from pipelines.kubeflow.preflight.model import Preflight
from pipelines.kubeflow.preflight.pull_secrets import names_of

ENFORCE = "pod-security.kubernetes.io/enforce"


def namespace(preflight: Preflight) -> Iterator[Finding]:
    """The namespace exists and is not being deleted."""
    resource = preflight.kubernetes.get(f"/api/v1/namespaces/{preflight.namespace}")
    name = f"namespace {preflight.namespace}"
    if resource is None:
        yield Finding(name, "fail", "it does not exist", f"kubectl create namespace {preflight.namespace}")
        return
    if resource.get("status", {}).get("phase") == "Terminating":
        yield Finding(name, "fail", "it is being deleted", "use another --namespace")
        return
    level = resource["metadata"].get("labels", {}).get(ENFORCE, "privileged")
    note = "; the package asks Kubeflow to run its pods as it wants" if level == "restricted" else ""
    yield Finding(name, "ok", f"Pod Security enforces {level}{note}")


def service_account(preflight: Preflight) -> Iterator[Finding]:
    """The account of the pods is there, with the secrets that it names for pulling images."""
    name = f"service account {preflight.account}"
    account = preflight.kubernetes.get(preflight.path("serviceaccounts", preflight.account))
    if account is None:
        hint = "--service-account names one that Kubeflow's pods may use, with its rights and a token"
        yield Finding(name, "fail", f"it does not exist in namespace {preflight.namespace}", hint)
        return
    yield Finding(name, "ok", "it is there")
    for secret in names_of(account):
        if preflight.kubernetes.get(preflight.path("secrets", secret)) is None:
            hint = f"kubectl -n {preflight.namespace} create secret docker-registry {secret} …"
            yield Finding(f"pull secret {secret}", "fail", "the service account names it, and it does not exist", hint)
