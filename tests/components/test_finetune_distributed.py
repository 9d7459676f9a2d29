"""finetune with several real processes, started by torchrun and connected by gloo."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from components.finetune import launch, torchrun
from components.finetune.step import finetune
from rankline.errors import SourceError, TrainingError
from rankline.io import digest
from rankline.io.artifacts import DIGESTS_FILE
from rankline.runtime.progress import Progress
from rankline.train import distributed
from tests.components.smoke_finetune import TRAINED_ENCODER, changed

# without dropout, which each process draws on its own, several processes compute what one computes
STILL = {"dropout": 0.0, "own_dropout": 0.0, "precision": "fp32"}
TOLERANCE = 1e-4


def curve_of(teacher: Path) -> list[float]:
    return [point["loss"] for point in json.loads((teacher / "curve.json").read_text())]


@pytest.mark.integration
def test_two_processes_have_the_loss_curve_of_one(features: Path, tmp_path: Path) -> None:
    """With a trained encoder, and each process's half of a step computed in two parts."""
    overrides = {**STILL, **TRAINED_ENCODER, "epochs": 3}
    finetune(features, tmp_path / "one", config=changed(**overrides), progress=Progress())
    progress = Progress(tmp_path / "progress.json", interval_s=0)
    result = finetune(
        features, tmp_path / "two", config=changed(**overrides, processes=2, accumulate=2), progress=progress,
        checkpoints=tmp_path / "checkpoints",
    )  # fmt: skip
    assert result["processes"] == 2
    one, two = curve_of(tmp_path / "one"), curve_of(tmp_path / "two")
    assert two == pytest.approx(one, rel=TOLERANCE)
    assert len(two) == 3
    assert {p.name for p in (tmp_path / "two").rglob("*")} == {p.name for p in (tmp_path / "one").rglob("*")}
    np.testing.assert_allclose(
        np.load(tmp_path / "two" / "text_vectors.npy"), np.load(tmp_path / "one" / "text_vectors.npy"), atol=1e-2
    )
    assert json.loads((tmp_path / "progress.json").read_text())["phase"] == "ranking the test requests"
    assert not (tmp_path / "checkpoints").exists()


def kill_the_second(checkpoints: Path, killed: list[int]) -> None:
    """Kill the second process once an epoch is finished."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        time.sleep(0.01)
        if not list(checkpoints.glob("*.pt")):
            continue
        for child in psutil.Process().children(recursive=True):
            if "components.finetune.torchrun" in child.cmdline() and child.environ().get("RANK") == "1":
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)
                return


@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_next_run_resumes(features: Path, tmp_path: Path) -> None:
    """One process resumes what two began: a checkpoint does not depend on their number."""
    config = changed(**STILL, epochs=40, evaluate_every=1, patience=99)
    checkpoints, killed = tmp_path / "checkpoints", []
    killer = threading.Thread(target=kill_the_second, args=(checkpoints, killed))
    killer.start()
    with pytest.raises(TrainingError, match=r"process 1 of 2 ended(.|\n)*signal 9(.|\n)*resumes from its last epoch"):
        finetune(
            features, tmp_path / "killed", config=config.model_copy(update={"processes": 2}), progress=Progress(),
            checkpoints=checkpoints,
        )  # fmt: skip
    killer.join()
    assert not [pid for pid in psutil.pids() if pid in killed]
    mine = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    assert not [line for line in mine if "components.finetune.torchrun" in line]
    assert list(checkpoints.glob("*.pt"))
    result = finetune(features, tmp_path / "last", config=config, progress=Progress(), checkpoints=checkpoints)
    assert result["resumed_at_epoch"] >= 1
    finetune(features, tmp_path / "whole", config=config, progress=Progress())
    assert len(curve_of(tmp_path / "last")) == 40
    assert curve_of(tmp_path / "last")[:3] == pytest.approx(curve_of(tmp_path / "whole")[:3], rel=TOLERANCE)
    assert curve_of(tmp_path / "last") == pytest.approx(curve_of(tmp_path / "whole"), rel=1e-2)


def test_a_refusal_of_the_processes_is_the_steps_own(features: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    config = changed(encoder=str(tmp_path / "nowhere"))
    place = {"features": features, "teacher": tmp_path / "teacher", "checkpoints": None, "progress": None}
    launch.write_job(job, config=config, result_folder=tmp_path / "error", seal=False, **place)
    assert torchrun.main(job) == 1
    error = launch.launch_error(tmp_path / "error", {}, 2)
    assert isinstance(error, SourceError)
    with pytest.raises(SourceError) as alone:
        finetune(features, tmp_path / "alone", config=config, progress=Progress())
    assert str(error) == str(alone.value)


def test_a_sealed_teacher_is_what_the_next_step_takes(features: Path, tmp_path: Path) -> None:
    """As several nodes leave it: a step refuses inputs without digests."""
    job, teacher = tmp_path / "job.json", tmp_path / "teacher"
    place = {"features": features, "teacher": teacher, "checkpoints": None, "progress": None}
    launch.write_job(job, config=changed(epochs=1), result_folder=tmp_path / "results", seal=True, **place)
    assert torchrun.main(job) == 0
    assert json.loads((tmp_path / "results" / "result.json").read_text())["epochs"] == 1
    digest.verify(teacher, json.loads((teacher / DIGESTS_FILE).read_text()), hint="")
    assert {"weights.safetensors", "encoder/model.safetensors"} <= json.loads(
        (teacher / DIGESTS_FILE).read_text()
    ).keys()


def test_as_many_processes_as_gpus_is_one_without_any(features: Path, tmp_path: Path) -> None:
    result = finetune(
        features, tmp_path / "x", config=changed(epochs=1, processes=0, device="cpu"), progress=Progress()
    )
    assert "processes" not in result


def test_parts_of_a_step_cover_it_once() -> None:
    for world_size, count in ((1, 1), (1, 3), (2, 1), (3, 2)):
        rows = np.arange(17)
        parts = [
            rows[part]
            for rank in range(world_size)
            for part in distributed.DistributedContext(rank, world_size).slices(count)
        ]
        assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
        assert len(parts) == world_size * count


def test_a_single_process_communicates_with_no_other() -> None:
    alone = distributed.DistributedContext()
    value = object()
    assert alone.broadcast(value) is value
    assert alone.is_main
    assert not distributed.is_distributed()


def test_an_unforeseen_error_in_a_process_is_reported_with_its_last_line(tmp_path: Path) -> None:
    class Failure:
        def __init__(self, exitcode: int, timestamp: int) -> None:
            self.exitcode, self.timestamp = exitcode, timestamp

    (tmp_path / "trace.0.txt").write_text("Traceback\nValueError: odd\n")
    error = launch.launch_error(tmp_path, {0: Failure(1, 5)}, 2)
    assert "process 0 of 2" in str(error)
    assert "exit code 1: ValueError: odd" in str(error)
    # the killed process is named before those that lost their connection
    assert "signal 9" in str(launch.launch_error(tmp_path, {0: Failure(1, 5), 1: Failure(-9, 6)}, 2))
