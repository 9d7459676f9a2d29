"""What the API server refuses is refused here: each rule has a package that breaks it and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.kubeflow.conformance import check_package, package_problems
from rankline.errors import UsageError
from tests.pipelines import golden

Documents = list[dict[str, Any]]


@pytest.fixture(scope="module")
def sound() -> str:
    return golden.path("train").read_text()


def broken(sound: str, tmp_path: Path, breaking: Callable[[Documents], object]) -> Path:
    """A sound package after something was done to its documents."""
    documents = list(yaml.safe_load_all(sound))
    breaking(documents)
    path = tmp_path / "flow.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path


def executor(documents: Documents, name: str) -> dict[str, Any]:
    container: dict[str, Any] = documents[0]["deploymentSpec"]["executors"][f"exec-{name}"]["container"]
    return container


def test_a_sound_package_has_no_problem(sound: str, tmp_path: Path) -> None:
    assert list(package_problems(broken(sound, tmp_path, lambda documents: None))) == []


@pytest.mark.parametrize(
    ("breaking", "expected"),
    [
        (lambda d: d[0].update(surprise=1), "surprise"),
        (lambda d: d[0]["components"]["comp-resolve-inputs"].update(colour="red"), "colour"),
        (lambda d: executor(d, "resolve-inputs").update(colour="red"), "colour"),
        (lambda d: d[1].update(surprise=1), "surprise"),
        (lambda d: d[0].update(schemaVersion="2.2.0"), "schemaVersion 2.2.0"),
        (lambda d: d[0].pop("schemaVersion"), "schemaVersion None"),
        (lambda d: d.append(d[0]), "2 pipeline documents"),
        (lambda d: d.pop(0), "0 pipeline documents"),
        (lambda d: d.append(d[1]), "2 platform documents"),
        (
            lambda d: d[0]["root"]["dag"]["tasks"].update(
                {
                    "resolve-inputs": {
                        "componentRef": {"name": "comp-resolve-inputs"},
                        "inputs": {
                            "parameters": {"run": {"runtimeValue": {"constant": {"id": "{{$.pipeline_job_uuid}}"}}}}
                        },
                    }
                }
            ),
            "a placeholder inside",
        ),
        (lambda d: d.append({"kind": "Workflow"}), "neither a pipeline nor a platform"),
        (lambda d: d[0]["pipelineInfo"].update(name="Rankline-Smoke"), "'Rankline-Smoke'"),
        (lambda d: d[0]["pipelineInfo"].update(name="x" * 129), "pipeline name"),
        (lambda d: executor(d, "evaluate").update(image="rankline:1"), "exec-evaluate: image 'rankline:1'"),
        (lambda d: d[0]["deploymentSpec"]["executors"].pop("exec-evaluate"), "no executor 'exec-evaluate'"),
        (lambda d: d[0]["components"].pop("comp-evaluate"), "a task refers to no component"),
        (lambda d: d[0]["components"].pop("comp-summary"), "a task refers to no component"),
        (
            lambda d: d[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-resolve-inputs"].update(
                bad=1
            ),
            "bad",
        ),
    ],
)
def test_a_broken_rule_is_named(
    sound: str, tmp_path: Path, breaking: Callable[[Documents], object], expected: str
) -> None:
    path = broken(sound, tmp_path, breaking)
    with pytest.raises(UsageError, match="would refuse this package") as refusal:
        check_package(path)
    assert expected in refusal.value.found
    assert refusal.value.where == str(path)
