"""`rankline doctor RECIPE --host`: the cluster, the images and the stores of a recipe that is to be submitted."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankline.errors import AccessError
from tests.cli.in_process import rankline
from tests.pipelines.images.test_registry import sign_in
from tests.pipelines.kubeflow.kubeflow_world import cluster, compiled_once, kubeflow, nothing_of_ours  # noqa: F401
from tests.pipelines.kubeflow.test_orphans import failure  # noqa: F401
from tests.pipelines.kubeflow.test_preflight import NS, api  # noqa: F401
from tests.servers.kubeflow import NAMESPACE, Kubeflow, kubeflow_server
from tests.servers.kubernetes import KubernetesApi
from tests.servers.postgres import Postgres
from tests.servers.registry import PASSWORD, USER, Registry, image_registry

assert NS == NAMESPACE  # both stand-ins have the same namespace


@pytest.fixture
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Settings that pin images which a registry has, and nothing that needs a GPU."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with image_registry() as registry:
        yield images_of(registry)


def images_of(registry: Registry) -> list[str]:
    images = {name: registry.put(f"team/{name}") for name in ("data", "train", "evaluate")}
    settings = [f"cluster.images.{name}={image}" for name, image in images.items()]
    return [word for setting in [*settings, "cluster.train.gpus=0"] for word in ("--set", setting)]


def examine(host: str, *words: object, code: int = 0) -> dict[str, dict[str, Any]]:
    """The findings by their names."""
    done = rankline("doctor", *words, "--host", host, "--auth", "none", "-n", NAMESPACE, "--json")
    assert done.returncode == code, (done.stdout, done.stderr)
    findings = json.loads(done.stdout)["findings"]
    assert {each["subject"] for each in findings} == {"cluster"}
    return {each["check"]: each for each in findings}


def test_a_cluster_that_has_everything(kubeflow: Kubeflow, api: KubernetesApi, pinned: list[str]) -> None:  # noqa: F811
    findings = examine(kubeflow.host, "smoke", *pinned)
    assert {each["status"] for each in findings.values()} == {"ok"}, findings
    assert findings["API"]["found"] == f"{kubeflow.host} answers: several users, namespace {NAMESPACE}"
    assert {
        "schedules",
        "version",
        "retries",
        "claim rankline",
        "nodes for train",
        "image data",
        "image evaluate",
    } <= set(findings)
    assert "history" not in findings  # on the volume, which is not here
    assert {method for method, _ in api.requests} == {"GET"}


def test_the_recipe_that_is_named_is_examined(
    kubeflow: Kubeflow,  # noqa: F811
    api: KubernetesApi,  # noqa: F811
    pinned: list[str],
) -> None:
    findings = examine(kubeflow.host, "movielens", *pinned, "--set", "cluster.volume=other", code=1)
    assert findings["claim other"]["status"] == "fail"


def test_a_schedule_that_fires_without_being_listed(
    kubeflow: Kubeflow,  # noqa: F811
    failure: AccessError,  # noqa: F811
    api: KubernetesApi,  # noqa: F811
    pinned: list[str],
) -> None:
    (workflow,) = kubeflow.api.scheduled_workflows.values()
    name = workflow["metadata"]["name"]
    api.put("scheduledworkflows", name, namespace=NS, metadata=workflow["metadata"], spec=workflow["spec"])
    finding = examine(kubeflow.host, "smoke", *pinned)[f"ScheduledWorkflow {name}"]
    assert (finding["status"], "kubectl" in finding["hint"]) == ("warn", True)


def test_without_a_kubeconfig_the_rest_is_checked(kubeflow: Kubeflow, pinned: list[str]) -> None:  # noqa: F811
    findings = examine(kubeflow.host, "smoke", *pinned)
    assert findings["Kubernetes"]["status"] == "warn"
    assert set(findings) == {"API", "schedules", "runs", "Kubernetes", "image data", "image train", "image evaluate"}


def test_kubeflow_that_does_not_answer(api: KubernetesApi, pinned: list[str]) -> None:  # noqa: F811
    findings = examine("http://127.0.0.1:1", "smoke", *pinned, code=1)
    assert findings["API"]["status"] == "fail"
    assert findings["claim rankline"]["status"] == "ok"


def test_a_namespace_that_a_single_user_server_ignores(tmp_path: Path, pinned: list[str]) -> None:
    with kubeflow_server(tmp_path, multi_user=False) as server:
        finding = examine(server.host, "smoke", *pinned)["API"]
    assert (finding["status"], "ignores namespace team" in finding["found"]) == ("warn", True)


def test_images_that_are_not_pinned_not_there_and_not_known(
    kubeflow: Kubeflow,  # noqa: F811
    api: KubernetesApi,  # noqa: F811
    pinned: list[str],
) -> None:
    other = "@sha256:" + "b" * 64
    wrong = ["--set", "cluster.images.data=team/data:1.0", "--set", f"cluster.images.evaluate=127.0.0.1:1/x{other}"]
    train = next(word for word in pinned if ".train=" in word).partition("@")[0] + other
    findings = examine(kubeflow.host, "smoke", *wrong, "--set", train, "--set", "cluster.train.gpus=0", code=1)
    statuses = {name: each["status"] for name, each in findings.items() if name.startswith("image")}
    assert statuses == {"image data": "fail", "image train": "fail", "image evaluate": "warn"}


def with_pull_secret(
    server: KubernetesApi, registry: Registry, *, password: str = PASSWORD, key: str = ".dockerconfigjson"
) -> None:
    """Let the service account of the pods name a secret for the registry."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    auths = {f"https://{registry.address}/v2/": {"auth": auth}}
    config = {"auths": auths} if key == ".dockerconfigjson" else auths
    data = {key: base64.b64encode(json.dumps(config).encode()).decode()}
    server.put("secrets", "registry", namespace=NS, data=data)
    server.put("serviceaccounts", "default-editor", namespace=NS, imagePullSecrets=[{"name": "registry"}])


@pytest.mark.integration
def test_images_are_pulled_with_the_secrets_of_the_service_account(
    kubeflow: Kubeflow,  # noqa: F811
    api: KubernetesApi,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with image_registry() as registry:
        registry.challenge = "Bearer"
        pinned = images_of(registry)

        def image(**expected: Any) -> dict[str, Any]:
            return examine(kubeflow.host, "smoke", *pinned, **expected)["image train"]

        assert (image()["status"], "not known" in image()["found"]) == ("warn", True)  # nobody has credentials
        sign_in(tmp_path, registry)  # this machine has, and the cluster has not
        lacking = image()
        assert lacking["status"] == "warn"
        assert "that no pull secret of service account default-editor has" in lacking["found"]
        assert "kubectl create secret docker-registry" in lacking["hint"]
        (tmp_path / "config.json").unlink()
        for key in (".dockerconfigjson", ".dockercfg"):
            with_pull_secret(api, registry, key=key)
            assert image()["status"] == "ok"
        assert image()["found"].endswith("for the pull secret of service account default-editor")
        with_pull_secret(api, registry, password="wrong")
        assert image()["status"] == "warn"
        api.put("serviceaccounts", "default-editor", namespace=NS, imagePullSecrets=[{"name": "none"}])
        findings = examine(kubeflow.host, "smoke", *pinned, code=1)
        assert (findings["pull secret none"]["status"], findings["image train"]["status"]) == ("fail", "warn")
        sign_in(tmp_path, registry)
        api.forbidden = {"secrets"}
        findings = examine(kubeflow.host, "smoke", *pinned)
        assert findings["image train"]["status"] == "ok"  # as far as this machine can know
        assert PASSWORD not in str(findings)


def test_stores_that_only_the_cluster_reaches_are_warnings(
    kubeflow: Kubeflow,  # noqa: F811
    api: KubernetesApi,  # noqa: F811
    pinned: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    stores = ["storage.repository=s3://shop/models", "storage.artifacts=s3://shop/work"]
    stores += ["promote.tracking_uri=postgresql+psycopg://mlflow@127.0.0.1:1/mlflow"]
    findings = examine(kubeflow.host, "smoke", *pinned, *(word for each in stores for word in ("--set", each)))
    assert {findings[name]["status"] for name in ("history", "storage.artifacts", "MLflow")} == {"warn"}


@pytest.mark.integration
def test_a_database_is_not_filled(
    kubeflow: Kubeflow,  # noqa: F811
    pinned: list[str],
    postgres: Postgres,
) -> None:
    uri = f"promote.tracking_uri={postgres.sqlalchemy_url}"
    for _ in range(2):
        findings = examine(kubeflow.host, "smoke", *pinned, "--set", uri)
        assert "no tables yet" in findings["MLflow"]["found"]
