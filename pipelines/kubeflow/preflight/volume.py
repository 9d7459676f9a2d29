"""The volume that the steps share: bound, for several nodes, and writable by the user of the images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipelines.findings import Finding
from pipelines.kubeflow.kubernetes_api import NotKnown
from pipelines.kubeflow.preflight.model import Preflight
from rankline.errors import AccessError

UID = 10001  # of the images
STEP_LABEL = "pipeline/runid"  # of the pods of a run
OWNER_HINT = f"apply volume.yaml of `rankline cluster init`: its job fails if uid {UID} may not write there"


def volume(preflight: Preflight) -> Iterator[Finding]:
    """The claim is bound and several pods may write to it."""
    volume_name = preflight.recipe.cluster.volume
    if not volume_name or preflight.recipe.storage.workspace:
        return
    name = f"claim {volume_name}"
    pvc = preflight.kubernetes.get(preflight.path("persistentvolumeclaims", volume_name))
    if pvc is None:
        hint = "apply volume.yaml of `rankline cluster init`, or --set cluster.volume=…"
        yield Finding(name, "fail", f"it does not exist in namespace {preflight.namespace}", hint)
        return
    phase = pvc.get("status", {}).get("phase", "Pending")
    if phase == "Pending" and _waits_for_pod(preflight, pvc):
        yield Finding(name, "warn", "not bound yet; its storage class binds it when a pod first uses it", OWNER_HINT)
    elif phase != "Bound":
        hint = f"kubectl -n {preflight.namespace} describe pvc {volume_name} says why"
        yield Finding(name, "fail", f"it is {phase}, so that every pod waits", hint)
    else:
        yield from _access(preflight, name, pvc["spec"]["accessModes"])
        yield _writable(preflight, volume_name)


def _waits_for_pod(preflight: Preflight, pvc: dict[str, Any]) -> bool:
    storage_class = pvc["spec"].get("storageClassName")
    try:
        resource = preflight.kubernetes.get(f"/apis/storage.k8s.io/v1/storageclasses/{storage_class}") or {}
    except NotKnown:
        return False
    return resource.get("volumeBindingMode") == "WaitForFirstConsumer"


def _access(preflight: Preflight, name: str, modes: list[str]) -> Iterator[Finding]:
    if "ReadWriteMany" in modes:
        yield Finding(name, "ok", "bound, ReadWriteMany")
        return
    if "ReadWriteOnce" not in modes:
        yield Finding(name, "fail", f"bound, but {', '.join(modes)}", "a claim that all steps may write: ReadWriteMany")
        return
    try:
        nodes = len(preflight.kubernetes.items("/api/v1/nodes"))
    except AccessError:
        nodes = 0  # not known
    message = f"bound, ReadWriteOnce: {'the only node has it' if nodes == 1 else 'pods on a second node wait for it'}"
    yield Finding(name, "ok" if nodes == 1 else "warn", message, "" if nodes == 1 else "a claim with ReadWriteMany")


def _writable(preflight: Preflight, volume_name: str) -> Finding:
    """Only a pod shows it: one that mounted the claim and succeeded."""
    pods = preflight.kubernetes.items(preflight.path("pods"))
    done = [each["metadata"]["name"] for each in pods if _wrote(each, volume_name)]
    if done:
        return Finding("claim's owner", "ok", f"pod {done[0]} wrote there as the user of the images")
    return Finding(
        "claim's owner", "warn", f"not known whether uid {UID} may write: no pod that did is there", OWNER_HINT
    )


def _wrote(pod: dict[str, Any], volume_name: str) -> bool:
    """Whether a pod of ours could write to the claim, and succeeded: as our user, or as a step, whose image has it."""
    spec = pod["spec"]
    volumes = {
        each["name"]
        for each in spec.get("volumes") or ()
        if (each.get("persistentVolumeClaim") or {}).get("claimName") == volume_name
    }
    writers = [
        container
        for container in spec["containers"]
        for mount in container.get("volumeMounts") or ()
        if mount["name"] in volumes and not mount.get("readOnly")
    ]
    if not writers or pod.get("status", {}).get("phase") != "Succeeded":
        return False
    user = (spec.get("securityContext") or {}).get("runAsUser")
    users = {(each.get("securityContext") or {}).get("runAsUser", user) for each in writers}
    return users == {UID} or (users == {None} and STEP_LABEL in (pod["metadata"].get("labels") or {}))
