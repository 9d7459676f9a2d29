"""The job for Kubeflow Trainer: what the API's own models say of it, and the work that it names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.finetune import torchrun
from pipelines.kubeflow import trainjob
from pipelines.package import compile_flow
from pipelines.recipes import named
from rankline.errors import UsageError
from tests.pipelines import golden

PINNED = "registry/train@sha256:" + "a" * 64
SETTINGS = [
    f"cluster.images.train={PINNED}", "cluster.train.nodes=2", "cluster.train.gpus=4", "cluster.train.cpu=16",
    "cluster.train.memory=64Gi", "cluster.train.node_selector.pool=gpus", "cluster.secrets.TOKEN=hub/token",
]  # fmt: skip


def prepared(tmp_path: Path, *settings: str) -> dict[str, Any]:
    recipe = named("smoke", [*SETTINGS, *settings])
    return trainjob.prepare(recipe, name="it", features=tmp_path / "features", teacher=tmp_path / "teacher")


def unknown(value: Any, model: Any) -> Any:
    """What of a plain value the API's model did not keep: fields that the API does not know."""
    if isinstance(value, dict) and isinstance(model, dict):
        return {k: left for k, v in value.items() if (left := unknown(v, model.get(k)) if k in model else v)}
    if isinstance(value, list) and isinstance(model, list):
        return [left for v, m in zip(value, model, strict=True) if (left := unknown(v, m))]
    return None if value == model else value


def checked(job: dict[str, Any]) -> dict[str, Any]:
    """Fields of the job that the API does not know; raises where one has the wrong type or a needed one is missing."""
    api = pytest.importorskip("kubeflow_trainer_api.models", reason="needs kubeflow-trainer-api")
    known = api.TrainerV1alpha1TrainJob.from_dict(job).to_dict()
    return unknown(job, known) or {}


@pytest.mark.integration
def test_the_job_is_one_that_the_api_knows(tmp_path: Path) -> None:
    assert checked(prepared(tmp_path)) == {}


def test_a_field_that_the_api_does_not_know_is_seen(tmp_path: Path) -> None:
    job = prepared(tmp_path)
    job["spec"]["trainer"]["numNode"] = 2
    job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["tmpl"] = {"x": 1}
    assert "numNode" in str(checked(job))
    assert "tmpl" in str(checked(job))
    del job["spec"]["runtimeRef"]
    with pytest.raises(ValueError, match="runtimeRef"):
        checked(job)


def test_nodes_gpus_and_the_shared_volume_are_what_the_recipe_asks_for(tmp_path: Path) -> None:
    spec = prepared(tmp_path)["spec"]
    trainer = spec["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"], trainer["image"]) == (2, 4, PINNED)
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "4"}
    assert trainer["resourcesPerNode"]["requests"] == {"cpu": "4000m", "memory": "64Gi", "nvidia.com/gpu": "4"}
    assert trainer["command"][-1] == str(tmp_path / "teacher.job" / "job.json")
    assert {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}} in trainer["env"]
    (node,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "rankline"
    assert pod["nodeSelector"] == {"pool": "gpus"}


def test_the_work_it_names_is_what_a_process_does(tmp_path: Path) -> None:
    """The very file, run by one process here: it refuses the features that are not there, and says so."""
    job = Path(prepared(tmp_path, "finetune.epochs=1")["spec"]["trainer"]["command"][-1])
    job_file = json.loads(job.read_text())
    assert job_file["seal"]
    assert job_file["config"]["epochs"] == 1
    assert "{workspace}" not in job.read_text()
    with pytest.raises(FileNotFoundError, match="features"):
        torchrun.main(job)


@pytest.mark.parametrize(
    ("setting", "message"), [("cluster.images.train=x:latest", "not pinned"), ("cluster.volume=", "a volume that all")]
)
def test_an_unfit_recipe_is_refused(
    tmp_path: Path, setting: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=message):
        prepared(tmp_path, setting)
    folders = ["--features", str(tmp_path / "f"), "--teacher", str(tmp_path / "t")]
    settings = [part for each in (*SETTINGS, setting) for part in ("--set", each)]
    assert trainjob.main(["--recipe", "smoke", *folders, *settings]) == 2
    assert message in capsys.readouterr().err


def test_the_command_prints_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--features", str(tmp_path / "f"), "--teacher", str(tmp_path / "t")]
    settings = [part for each in SETTINGS for part in ("--set", each)]
    assert trainjob.main(["--recipe", "smoke", *folders, *settings]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["kind"] == "TrainJob"


def test_a_flow_of_several_nodes_is_not_compiled(tmp_path: Path) -> None:
    recipe = golden.pinned("smoke")
    images = [f"cluster.images.{name}={image}" for name, image in recipe.cluster.images.model_dump().items()]
    several_nodes = named("smoke", [*images, "cluster.train.nodes=2"])
    with pytest.raises(UsageError, match=r"one pod on one node(.|\n)*pipelines\.kubeflow\.trainjob"):
        compile_flow(several_nodes, tmp_path / "flow.yaml")
