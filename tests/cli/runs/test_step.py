"""`rankline step`: each step alone, through the component that the pipeline runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from pipelines.steps import STANDALONE_STEPS
from rankline.errors import RanklineError
from rankline.registry.model_registry import ModelRegistry
from tests.cli.in_process import refused
from tests.conftest import SmokeRun


@pytest.fixture(scope="module")
def workspace(smoke: SmokeRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smoke.copy(tmp_path_factory.mktemp("alone") / "ws")


def alone(smoke: SmokeRun, workspace: Path, out: Path, step: str, *settings: str) -> tuple[str, dict[str, object]]:
    """(first line, result) of one step on the artifacts of the smoke run."""
    spec = STANDALONE_STEPS[step]
    folders = {name: smoke.artifact(*source) for name, source in spec.inputs.items()}
    folders |= {name: out / name for name in spec.outputs}
    arguments = [part for name, path in folders.items() for part in (f"--{name}", str(path))]
    completed = CliRunner().invoke(
        app, ["step", step, "--recipe", "smoke", "-w", str(workspace), *arguments, *(f"--set={s}" for s in settings)]
    )
    assert completed.exit_code == 0, (completed.output, completed.exception)
    for name in spec.outputs:
        assert (out / name / "files.json").is_file()
    line, _, result = completed.output.partition("\n")
    return line, json.loads(result)


@pytest.mark.parametrize("step", [step for step in STANDALONE_STEPS if step not in ("decide", "promote")])
def test_a_step_alone_reuses_what_the_pipeline_wrote(
    smoke: SmokeRun, workspace: Path, tmp_path: Path, step: str
) -> None:
    line, result = alone(smoke, workspace, tmp_path, step)
    assert line.startswith(f"{step} reused in ")
    assert line.endswith(f"unchanged since run {smoke.summary['run']}")
    assert result == next(each["result"] for each in smoke.summary["steps"] if each["step"] == step)


def test_a_changed_setting_makes_it_run(smoke: SmokeRun, workspace: Path, tmp_path: Path) -> None:
    line, result = alone(smoke, workspace, tmp_path, "ingest", "ingest.max_rejected_share=0.5")
    assert line.startswith("ingest done in ")
    assert "max_rejected_share: " in line
    assert line.endswith("-> 0.5")
    assert result


@pytest.mark.integration
def test_deciding_and_promoting_alone(smoke: SmokeRun, workspace: Path, tmp_path: Path) -> None:
    line, result = alone(smoke, workspace, tmp_path, "decide")
    assert line.startswith("decide done in ")
    assert (result["outcome"], result["model_id"]) == ("already_serving", smoke.summary["model_id"])
    line, result = alone(smoke, workspace, tmp_path, "promote")  # as after a kill: no second event
    assert result["event"] == 3
    assert len(ModelRegistry(workspace / "repository").history()) == 3


def test_a_run_of_one_step_is_not_the_last_run(smoke: SmokeRun, workspace: Path, tmp_path: Path) -> None:
    alone(smoke, workspace, tmp_path, "ingest")
    completed = CliRunner().invoke(app, ["runs", "show", "-w", str(workspace)])
    assert completed.exit_code == 0, completed.exception
    assert smoke.summary["run"] in completed.output


def test_a_missing_folder_is_refused(smoke: SmokeRun, tmp_path: Path) -> None:
    message = refused(
        "step", "validate", "--recipe", "smoke", "-w", tmp_path / "ws", "--raw", tmp_path / "raw",
        "--clean", tmp_path / "clean", "--report", tmp_path / "report",
    )  # fmt: skip
    assert "no such folder" in message
    assert f"where: {tmp_path / 'raw'}" in message
    assert "try: " in message


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    completed = CliRunner().invoke(
        app, ["step", "ingest", "--recipe", "smoke", "-w", str(tmp_path / "ws"), "--raw", str(tmp_path / "raw")]
    )
    assert isinstance(completed.exception, RanklineError)
    assert "the source does not exist" in str(completed.exception)


def test_an_input_with_a_flipped_byte_is_refused(smoke: SmokeRun, tmp_path: Path) -> None:
    import shutil

    from tests.pipelines.runs.watched import flip

    raw = tmp_path / "raw"
    shutil.copytree(smoke.artifact("ingest", "raw"), raw)
    flip(raw / "events.parquet")
    message = refused(
        "step", "validate", "--recipe", "smoke", "-w", tmp_path / "ws", "--raw", raw,
        "--clean", tmp_path / "clean", "--report", tmp_path / "report",
    )  # fmt: skip
    assert "events.parquet does not match its digest" in message
    assert "expected: sha256 " in message
