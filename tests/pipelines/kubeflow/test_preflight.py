"""The checks of a cluster: each passes on a cluster that has everything, and each is seen to fail."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.findings import Finding
from pipelines.kubeflow.kubernetes_api import open_kubernetes
from pipelines.kubeflow.preflight import installation, namespace, nodes, secrets, volume
from pipelines.kubeflow.preflight.model import Check, Preflight
from pipelines.kubeflow.preflight.run import CHECKS, run_preflight
from pipelines.recipes import named
from rankline.errors import AccessError
from tests.servers.kubernetes import TOKEN, KubernetesApi, kubernetes_api

NS = "team"
SECRET = "cluster.secrets=" + '{"PGPASSWORD": "db/password", "PGUSER": "db/user"}'
# as Kubeflow Pipelines 2.17 ships it
DEFAULTS = """spec:
  ttlStrategy:
    secondsAfterCompletion: 3600
  templateDefaults:
    retryStrategy:
      limit: "2"
      retryPolicy: {policy}
"""


def controller_settings(policy: str) -> dict[str, Any]:
    return {"data": {"artifactRepository": "archiveLogs: true\n", "workflowDefaults": DEFAULTS.format(policy=policy)}}


def deployment(image: str) -> dict[str, Any]:
    pod = {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "ml-pipeline-api-server", "image": image}]},
    }
    return {"spec": {"selector": {"matchLabels": {"app": "x"}}, "template": pod}}


def node(cpu: str = "8", memory: str = "64Gi", *, ready: str = "True", **more: Any) -> dict[str, Any]:
    allocatable = {"cpu": cpu, "memory": memory, **more.pop("extra", {})}
    return {
        "spec": more,
        "status": {"allocatable": allocatable, "conditions": [{"type": "Ready", "status": ready}]},
    }


def pod(
    *, user: int | None = 10001, phase: str = "Succeeded", read_only: bool = False, step: bool = False
) -> dict[str, Any]:
    mounted = {"name": "rankline", "persistentVolumeClaim": {"claimName": "rankline"}}
    mount = {"name": "rankline", "mountPath": "/rankline", "readOnly": read_only}
    container = {"name": "main", "image": "x", "volumeMounts": [mount]}
    container |= {"securityContext": {"runAsUser": user}} if user is not None else {}
    labels = {"pipeline/runid": "1"} if step else {}
    return {
        "metadata": {"labels": labels},
        "spec": {"volumes": [mounted], "containers": [container]},
        "status": {"phase": phase},
    }


def pvc(*modes: str, phase: str = "Bound") -> dict[str, Any]:
    return {"spec": {"accessModes": list(modes), "storageClassName": "shared"}, "status": {"phase": phase}}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    """A cluster that has everything."""
    with kubernetes_api(tmp_path) as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
        server.put(
            "deployments", "ml-pipeline", namespace="kubeflow", **deployment("ghcr.io/kubeflow/kfp-api-server:2.17.0")
        )
        server.put(
            "configmaps", "workflow-controller-configmap", namespace="kubeflow", **controller_settings("OnFailure")
        )
        server.put("namespaces", NS, metadata={"labels": {namespace.ENFORCE: "restricted"}}, status={"phase": "Active"})
        server.put("serviceaccounts", "default-editor", namespace=NS)
        server.put("persistentvolumeclaims", "rankline", namespace=NS, **pvc("ReadWriteMany"))
        server.put("pods", "step", namespace=NS, **pod())
        filled = {key: base64.b64encode(b"x").decode() for key in ("password", "user")}
        server.put("secrets", "db", namespace=NS, data=filled)
        server.put("nodes", "one", **node(extra={"nvidia.com/gpu": "1"}))
        yield server


def examined(*settings: str) -> Preflight:
    recipe = named("smoke", [SECRET, *settings])
    return Preflight(recipe, open_kubernetes(""), NS, "default-editor")


def findings_of(check: Check, *settings: str) -> dict[str, Finding]:
    """The findings of a check by their names; those that are not ok have to say what to do."""
    findings = {each.check: each for each in check(examined(*settings))}
    assert all(each.hint for each in findings.values() if each.status != "ok"), findings
    return findings


def test_a_cluster_that_has_everything_passes(api: KubernetesApi) -> None:
    findings = list(run_preflight(examined()))
    assert {each.status for each in findings} == {"ok"}, findings
    assert [each.check for each in findings] == [
        "version", "retries", "pods", f"namespace {NS}", "service account default-editor", "claim rankline",
        "claim's owner", "secret db", "nodes for data", "nodes for serve", "nodes for small", "nodes for train",
    ]  # fmt: skip
    assert {method for method, _ in api.requests} == {"GET"}


def test_an_empty_cluster_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kubernetes_api(tmp_path) as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
        statuses = {each.check: each.status for each in run_preflight(examined())}
    assert statuses["version"] == "warn"  # perhaps another cluster than that of --host
    assert {name for name, status in statuses.items() if status == "fail"} == {
        f"namespace {NS}", "service account default-editor", "claim rankline", "secret db", "nodes for data",
        "nodes for serve", "nodes for small", "nodes for train",
    }  # fmt: skip


def test_what_this_user_may_not_read_is_not_known(api: KubernetesApi) -> None:
    api.forbidden = {"deployments", "configmaps", "namespaces", "serviceaccounts", "secrets", "nodes", "pods",
                     "persistentvolumeclaims"}  # fmt: skip
    findings = list(run_preflight(examined()))
    assert len(findings) == len(CHECKS)
    assert {each.status for each in findings} == {"warn"}
    assert all(each.found.startswith("not known: this user may not read /api") for each in findings)


def test_an_api_that_is_broken_fails_each_check(api: KubernetesApi) -> None:
    api.broken = True
    findings = list(run_preflight(examined()))
    assert [each.status for each in findings] == ["fail"] * len(CHECKS)
    assert all("HTTP 500" in each.found and each.hint for each in findings)


def test_no_kubeconfig_and_an_unknown_context(
    api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AccessError, match="the context 'other'"):
        open_kubernetes("other")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(AccessError, match="no kubeconfig leads to Kubernetes"):
        open_kubernetes("")


def test_a_kubeconfig_whose_token_is_refused(api: KubernetesApi, tmp_path: Path) -> None:
    api.kubeconfig.write_text(api.kubeconfig.read_text().replace(TOKEN, "another"))
    assert {each.status for each in run_preflight(examined())} == {"warn"}


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ("ghcr.io/kubeflow/kfp-api-server:2.5.0", "Kubeflow Pipelines 2.5.0"),
        ("registry:5000/kfp@sha256:" + "a" * 64, "not known"),
    ],
)
def test_another_version(api: KubernetesApi, image: str, text: str) -> None:
    api.put("deployments", "ml-pipeline", namespace="kubeflow", **deployment(image))
    finding = findings_of(installation.version)["version"]
    assert (finding.status, finding.found[: len(text)]) == ("warn", text)


def test_a_controller_that_does_not_try_failed_steps_again(api: KubernetesApi) -> None:
    settings = controller_settings("OnError")
    for data in (
        settings,
        {"data": {"config": "workflowDefaults:\n  " + DEFAULTS.format(policy="OnError").replace("\n", "\n  ")}},
    ):
        api.put("configmaps", "workflow-controller-configmap", namespace="kubeflow", **data)
        findings = findings_of(installation.controller)
        assert findings["retries"].status == "warn"
        assert "cluster.train.retries" in findings["retries"].hint
        assert findings["pods"].found.startswith("deleted 60 minutes after")
    no_retries = [f"cluster.{size}.retries=0" for size in ("small", "data", "train", "serve")]
    assert findings_of(installation.controller, *no_retries)["retries"].status == "ok"


def test_a_namespace_that_is_being_deleted(api: KubernetesApi) -> None:
    api.put("namespaces", NS, status={"phase": "Terminating"})
    assert findings_of(namespace.namespace)[f"namespace {NS}"].status == "fail"


@pytest.mark.parametrize(
    ("put", "status", "text"),
    [
        (pvc("ReadWriteMany", phase="Pending"), "fail", "it is Pending"),
        (pvc("ReadWriteMany", phase="Lost"), "fail", "it is Lost"),
        (pvc("ReadOnlyMany"), "fail", "ReadOnlyMany"),
        (pvc("ReadWriteOnce"), "ok", "the only node has it"),
    ],
)
def test_a_claim_that_is_not_usable(api: KubernetesApi, put: dict[str, Any], status: str, text: str) -> None:
    api.put("persistentvolumeclaims", "rankline", namespace=NS, **put)
    finding = findings_of(volume.volume)["claim rankline"]
    assert (finding.status, text in finding.found) == (status, True)


def test_a_claim_for_one_node_of_several(api: KubernetesApi) -> None:
    api.put("persistentvolumeclaims", "rankline", namespace=NS, **pvc("ReadWriteOnce"))
    api.put("nodes", "two", **node())
    assert findings_of(volume.volume)["claim rankline"].status == "warn"
    api.forbidden = {"nodes"}
    assert findings_of(volume.volume)["claim rankline"].status == "warn"


def test_a_claim_that_is_bound_when_it_is_used(api: KubernetesApi) -> None:
    api.put("persistentvolumeclaims", "rankline", namespace=NS, **pvc("ReadWriteMany", phase="Pending"))
    api.put("storageclasses", "shared", provisioner="x", volumeBindingMode="WaitForFirstConsumer")
    assert findings_of(volume.volume)["claim rankline"].status == "warn"
    assert findings_of(volume.volume, "cluster.volume=") == {}
    assert findings_of(volume.volume, "storage.workspace=s3://acme/team") == {}


def test_a_step_runs_as_the_user_of_its_image(api: KubernetesApi) -> None:
    api.put("pods", "step", namespace=NS, **pod(user=None, step=True))
    assert findings_of(volume.volume)["claim's owner"].status == "ok"


@pytest.mark.parametrize(
    "other", [pod(user=0), pod(user=None), pod(read_only=True), pod(user=1000), pod(phase="Failed"), None]
)
def test_a_claim_that_no_pod_of_the_images_user_wrote_to(api: KubernetesApi, other: dict[str, Any] | None) -> None:
    api.remove("pods", "step", namespace=NS)
    if other:
        api.put("pods", "other", namespace=NS, **other)
    finding = findings_of(volume.volume)["claim's owner"]
    assert (finding.status, finding.found[:9]) == ("warn", "not known")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"password": "eA=="}, "no key user (keys: password)"),
        ({"password": "eA==", "user": ""}, "user is not filled in"),
        (
            {"password": "eA==", "user": base64.b64encode(secrets.PLACEHOLDER.encode()).decode()},
            "user is not filled in",
        ),
        ({}, "no key password, no key user"),
    ],
)
def test_a_secret_without_a_key(api: KubernetesApi, data: dict[str, str], text: str) -> None:
    api.put("secrets", "db", namespace=NS, data=data)
    finding = findings_of(secrets.secrets)["secret db"]
    assert (finding.status, text in finding.found) == ("fail", True)
    assert "kubectl -n team create secret generic db --from-literal=password=…" in finding.hint


@pytest.mark.parametrize(
    ("change", "settings", "text"),
    [
        ({"cpu": "2"}, ("cluster.train.cpu=16", "cluster.train.cpu_request=8"), "none allows 8 cpu"),
        ({"memory": "1Gi"}, ("cluster.train.memory=16Gi",), "the largest have 8 cpu, 1Gi memory"),
        ({}, ("cluster.train.gpus=1",), "1 nvidia.com/gpu; the largest have 8 cpu, 64Gi memory, 0 nvidia.com/gpu"),
        ({}, ('cluster.train.node_selector={"disk": "ssd"}',), "none of 1 is ready and has its labels"),
        ({"ready": "False"}, (), "none of 1 is ready"),
        ({"unschedulable": True}, (), "none of 1 is ready"),
        ({"taints": [{"key": "dedicated", "effect": "NoSchedule"}]}, (), "none of 1 is ready"),
    ],
)
def test_nodes_on_which_a_step_would_wait_for_ever(
    api: KubernetesApi, change: dict[str, Any], settings: tuple[str, ...], text: str
) -> None:
    api.put("nodes", "one", **node(**change))
    finding = findings_of(nodes.nodes, *settings)["nodes for train"]
    assert (finding.status, text in finding.found) == ("fail", True), finding


def busy(memory: str, node: str = "one", phase: str = "Running") -> dict[str, Any]:
    container = {"name": "main", "image": "x", "resources": {"requests": {"memory": memory}}}
    return {"spec": {"nodeName": node, "containers": [container]}, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("pods", "status"),
    [
        ([busy("63Gi")], "warn"),
        ([busy("40Gi"), busy("23Gi")], "warn"),
        ([busy("63Gi", node="two")], "ok"),
        ([busy("63Gi", phase="Succeeded")], "ok"),
        ([busy("50Gi")], "ok"),
    ],
)
def test_what_other_pods_request_is_no_room(api: KubernetesApi, pods: list[dict[str, Any]], status: str) -> None:
    for number, each in enumerate(pods):
        api.put("pods", f"busy-{number}", namespace="kubeflow", **each)
    finding = findings_of(nodes.nodes, "cluster.train.memory=8Gi")["nodes for train"]
    assert finding.status == status
    api.forbidden = {"pods"}
    finding = findings_of(nodes.nodes, "cluster.train.memory=8Gi")["nodes for train"]
    assert (finding.status, "whether other pods leave room is not known" in finding.found) == ("ok", True)


def test_where_the_pods_cannot_be_listed_the_nodes_are_checked_all_the_same(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    preflight = examined()
    items = preflight.kubernetes.items

    def without_pods(_: Any, path: str) -> list[dict[str, Any]]:
        if path == "/api/v1/pods":
            raise AccessError("Kubernetes does not answer", found="ReadTimeoutError")
        return items(path)

    monkeypatch.setattr(type(preflight.kubernetes), "items", without_pods)
    findings = list(nodes.nodes(preflight))
    assert {each.status for each in findings} == {"ok"}
    assert all("not known" in each.found for each in findings)


def test_the_stand_in_refuses_objects_that_kubernetes_does_not_have(api: KubernetesApi) -> None:
    wrong: list[Callable[[], None]] = [
        lambda: api.put("secrets", "x", data={"a": 5}),
        lambda: api.put("pods", "x", spec={"containers": []} | {"colour": "red"}),
        lambda: api.put("pods", "x", spec={}),
    ]
    for put in wrong:
        with pytest.raises(AssertionError):
            put()
