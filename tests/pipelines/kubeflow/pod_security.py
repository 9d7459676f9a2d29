"""The rules of Pod Security `restricted` (Kubernetes 1.34) for what our manifests contain."""

from __future__ import annotations

from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(pod: dict[str, Any]) -> list[str]:
    """What the spec of a pod does that `restricted` refuses."""
    result = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    result += [f"volume {each['name']}" for each in pod.get("volumes", ()) if not set(each) - {"name"} <= VOLUMES]
    shared = pod.get("securityContext", {})
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        own = {**shared, **container.get("securityContext", {})}
        rules = {
            "runAsNonRoot": own.get("runAsNonRoot") is True,
            "runAsUser": own.get("runAsUser") != 0,
            "seccompProfile": own.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in own.get("capabilities", {}).get("drop", ())
            and set(own.get("capabilities", {}).get("add", ())) <= {"NET_BIND_SERVICE"},
            "privileged": not own.get("privileged"),
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", ())),
        }
        result += [f"{container['name']}: {name}" for name, met in rules.items() if not met]
    return result
