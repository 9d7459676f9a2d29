"""Failure is kind: one message that says what to do, an exit code, nothing lost and nothing left running."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.assets.synthetic_shop import write_shop
from pipelines.runs.folder import run_state
from rankline.runtime import ledger
from tests.cli.in_process import rankline, refused
from tests.cli.runs.test_step import alone
from tests.conftest import SmokeRun
from tests.pipelines.runs.watched import folders, reasons, steps, summary, watched


def missing(folder: Path) -> None:
    folder.rmdir()


def empty(folder: Path) -> None:
    write_shop(folder)
    (folder / "shop.inter").write_text("")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("spoil", "result"),
    [
        (missing, ("the source does not exist", "expected: a folder of RecBole", "try: set ingest.source")),
        (empty, ("a source file is empty", "found: 0 bytes", "shop.inter", "try:")),
    ],
)
def test_a_source_that_cannot_be_read(tmp_path: Path, spoil: Callable[[Path], None], result: tuple[str, ...]) -> None:
    source, workspace = tmp_path / "source", tmp_path / "ws"
    source.mkdir()
    spoil(source)
    message = refused("run", "--recipe", "smoke", "-w", workspace, f"--set=ingest.source={source}")
    assert message.startswith("resolve_inputs stopped: ")
    for words in result:
        assert words in message
    ended = summary(workspace)
    assert (ended["outcome"], ended["failed_step"], ended["kubeflow_status"]) == ("failed", "resolve_inputs", "FAILED")
    assert ended["error"] in message
    assert steps(workspace) == {"resolve_inputs": "failed"}


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        (("--recipe", "smoke", "--set", "finetune.epoch=3"), ("no setting 'finetune.epoch'", "did you mean 'epochs'?")),
        (("--recipe", "smoke", "--set", "finetune.epochs=0"), ("finetune.epochs", "greater than or equal to 1")),
        (("--recipe", "smok"), ("no recipe named 'smok'", "did you mean 'smoke'?")),
        (("--recipe", "nowhere:mine"), ("recipe nowhere:mine cannot be loaded", "No module named 'nowhere'", "try:")),
        (("--colour", "red"), ("No such option", "--colour")),
    ],
)
def test_a_wrong_command_is_refused_before_anything_is_done(
    tmp_path: Path, arguments: tuple[str, ...], result: tuple[str, ...]
) -> None:
    message = refused("run", "-w", tmp_path / "ws", *arguments, code=2)
    for words in result:
        assert words in message
    assert not (tmp_path / "ws").exists()


def test_a_workspace_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    message = refused("run", "--recipe", "smoke", "-w", tmp_path / "file" / "ws")
    assert message.startswith("the file system refused: Not a directory")
    assert f"where: {tmp_path / 'file' / 'ws'}" in message
    assert "try: another --workspace" in message


def test_a_failure_of_kubeflow_itself_is_reported_with_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "kfp").mkdir()
    (tmp_path / "kfp" / "__init__.py").write_text("raise ImportError('half of it is missing')\n")
    done = rankline("run", "--recipe", "smoke", "-w", tmp_path / "ws", "--json", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert json.loads(done.stdout) == summary(tmp_path / "ws")  # a program is told, too
    message = done.stderr
    assert message.startswith("the runner stopped: it ended before the flow did")
    assert "found: ImportError: half of it is missing" in message
    assert "kubeflow.log" in message
    assert summary(tmp_path / "ws")["outcome"] == "incomplete"


@pytest.mark.slow  # two runs
def test_a_source_swapped_for_one_too_small_is_refused_and_loses_nothing(smoke: SmokeRun, tmp_path: Path) -> None:
    workspace = smoke.copy(tmp_path / "ws")
    source = workspace / "material" / "smoke"
    write_shop(source, users=12, events=2)
    message = refused("run", "--recipe", "smoke", "-w", workspace)
    assert message.startswith("featurize stopped: the data is too small to split")
    assert "expected: at least 10 requests" in message
    assert "try: " in message
    assert reasons(workspace)["ingest"] == "source changed"
    assert summary(workspace)["failed_step"] == "featurize"
    write_shop(source)  # the old data again: what was made from it is still there
    for step in ("ingest", "featurize"):
        line, _ = alone(smoke, workspace, tmp_path, step)
        assert line.endswith(f"unchanged since run {smoke.summary['run']}")


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    with watched(tmp_path) as run:
        run.reached("ingest")
        run.process.send_signal(number)
        code, _, err = run.ended()
        assert code == 130
        assert err.strip() == "interrupted; the next run continues from what is finished"
        run.nothing_is_left()
    assert summary(tmp_path)["outcome"] in ("failed", "incomplete")
    assert summary(tmp_path)["error"].startswith("it was interrupted")  # and not killed, or out of memory


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_when_the_command_dies_its_run_dies_with_it(tmp_path: Path, number: signal.Signals) -> None:
    with watched(tmp_path) as run:
        run.reached("resolve_inputs")
        assert run_state(run.folder) == "running"
        run.process.send_signal(number)
        run.process.wait(timeout=30)
        run.nothing_is_left()
        if number == signal.SIGKILL and not (run.folder / "summary.json").is_file():
            message = refused("runs", "cancel", "last", "-w", tmp_path, code=2)
            assert "is not under way" in message  # known at once
            assert "found: unfinished" in message


@pytest.mark.integration
def test_a_killed_runner_is_reported_and_takes_its_step_along(tmp_path: Path) -> None:
    with watched(tmp_path) as run:
        run.reached("ingest")
        run.runner().kill()
        code, _, err = run.ended()
        assert code == 1
        assert " stopped: it ended" in err
        assert "the next run continues from the finished steps" in err
        run.nothing_is_left()
    assert summary(tmp_path)["outcome"] in ("failed", "incomplete")


@pytest.mark.integration
def test_two_runs_at_once_keep_their_own_ledgers(tmp_path: Path) -> None:
    with watched(tmp_path, "ingest.source=/one") as one, watched(tmp_path, "ingest.source=/two") as two:
        (code_one, _, err_one), (code_two, _, err_two) = one.ended(), two.ended()
    assert (code_one, code_two) == (1, 1)
    assert "where: /one" in err_one
    assert "where: /two" in err_two
    assert len(folders(tmp_path)) == 2
    result = {
        ledger.read_entries(folder)["resolve_inputs"].error.split("where: ")[1].split()[0]
        for folder in folders(tmp_path)
    }
    assert result == {"/one", "/two"}


def test_cuda_requested_and_absent(smoke: SmokeRun, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    message = refused(
        "step", "finetune", "--recipe", "smoke", "-w", tmp_path / "ws", "--set", "finetune.device=cuda",
        "--features", smoke.artifact("featurize", "features"), "--teacher", tmp_path / "teacher",
        CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    assert "cuda" in message.lower()
    assert "expected:" in message
    assert "try: " in message
    assert not (tmp_path / "teacher" / "files.json").exists()
