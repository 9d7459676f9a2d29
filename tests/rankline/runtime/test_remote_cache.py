"""The remote cache and checkpoints, in a folder or a bucket, used from another machine."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy
import pytest

from rankline.io.storage import StorageConfig, open_filesystem
from rankline.runtime import ledger
from rankline.runtime.run_context import RunContext
from rankline.runtime.run_step import StepSpec, run_step
from tests.rankline.runtime.test_run_step import Config, Work, seal
from tests.servers.proxy import DROP, flaky

pytestmark = pytest.mark.integration


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "number.txt").write_text("21")
    seal(folder)
    return folder


@pytest.fixture(params=["folder", "bucket"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "remote") if request.param == "folder" else str(request.getfixturevalue("url"))


def do(work: Any, machine: Path, raw: Path, storage: StorageConfig) -> ledger.Entry:
    context = RunContext(machine, "run", storage)
    outputs = {"output": context.folder / "out" / "output"}
    run_step(StepSpec("ingest", work, Config(), inputs={"raw": raw}, outputs=outputs, preload=("json", "csv")), context)
    return ledger.read_entries(context.folder)["ingest"]


def only(remote: str, ending: str) -> tuple[Any, str]:
    """The only file of a remote cache that has this ending."""
    fs, root = open_filesystem(remote)
    (match,) = [name for name in fs.find(root) if name.endswith(ending)]
    return fs, match


def test_another_machine_reuses_a_finished_step(tmp_path: Path, raw: Path, remote: str) -> None:
    work, storage = Work(), StorageConfig(artifacts=remote)
    assert do(work.step, tmp_path / "a", raw, storage).status == "done"
    second = do(work.step, tmp_path / "b", raw, storage)
    assert (second.status, second.result, work.done) == ("reused", {"value": 42}, 1)
    assert (Path(second.paths["output"]) / "number.txt").read_text() == "42"
    # without the remote cache the step is executed again
    assert do(work.step, tmp_path / "c", raw, StorageConfig()).status == "done"


@pytest.mark.parametrize("damage", ["a flipped byte", "a missing file", "half an entry"])
def test_a_damaged_entry_is_reported_and_replaced(tmp_path: Path, raw: Path, remote: str, damage: str) -> None:
    work, storage = Work(), StorageConfig(artifacts=remote)
    do(work.step, tmp_path / "a", raw, storage)
    fs, file = only(remote, "entry.json" if damage == "half an entry" else "number.txt")
    if damage == "a missing file":
        fs.rm_file(file)
    else:
        fs.pipe_file(file, b"43" if damage == "a flipped byte" else b'{"key"')
    second = do(work.step, tmp_path / "b", raw, storage)
    assert (second.status, work.done) == ("done", 2)
    assert f"the entry at {remote} was damaged" in second.why
    third = do(work.step, tmp_path / "c", raw, storage)  # the new entry has taken its place
    assert (third.status, third.result, work.done) == ("reused", {"value": 42}, 2)


def test_files_without_an_entry_are_ignored(tmp_path: Path, raw: Path, remote: str) -> None:
    """An upload that was killed before its last file."""
    work, storage = Work(), StorageConfig(artifacts=remote)
    do(work.step, tmp_path / "a", raw, storage)
    fs, file = only(remote, "entry.json")
    fs.rm_file(file)
    assert do(work.step, tmp_path / "b", raw, storage).status == "done"
    assert do(work.step, tmp_path / "c", raw, storage).status == "reused"


def test_a_remote_cache_that_is_down_costs_no_run(tmp_path: Path, raw: Path, bucket: Any, monkeypatch: Any) -> None:
    with flaky(bucket.port, lambda n: DROP) as network:
        monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.environment(port=network.port)["AWS_ENDPOINT_URL"])
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
        done = do(Work().step, tmp_path / "a", raw, StorageConfig(artifacts=f"{bucket.url}/x"))
    assert done.status == "done"
    assert "could not be read (the store does not respond as it should)" in done.why
    assert "not uploaded to" in done.why


TRAINER = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    import numpy, torch
    from rankline.contracts import FrozenModel
    from rankline.runtime.run_context import RunContext
    from rankline.runtime.run_step import StepSpec, run_step
    from rankline.runtime.progress import Progress
    from rankline.io.storage import StorageConfig

    machine, remote, pause_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

    class Config(FrozenModel):
        epochs: int = 3

    def train(*, output, config, progress, checkpoints):
        from rankline.train.checkpoints import Checkpoints
        rng, saved = numpy.random.default_rng(1), Checkpoints(checkpoints)
        state = saved.load(rng) or {"epoch": 0, "sum": 0.0}
        began = state["epoch"]
        for epoch in range(began, config.epochs):
            state = {"epoch": epoch + 1, "sum": state["sum"] + float(rng.random())}
            saved.save(state, rng)
            print("saved", epoch + 1, flush=True)
            time.sleep(pause_s)
        output.mkdir(parents=True)
        (output / "sum.txt").write_text(repr(state["sum"]))
        saved.clear()
        return {"began": began, "sum": state["sum"]}

    context = RunContext(machine, "run", StorageConfig(checkpoints=remote))
    outputs = {"output": context.folder / "output"}
    print(run_step(StepSpec("finetune", train, Config(), outputs=outputs, code=("rankline.train.checkpoints",),
        checkpoints=True), context))
    """
)


def train(machine: Path, remote: str, pause_s: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(machine), remote, str(pause_s)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("damage", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["whole", "damaged"])
def test_training_killed_on_one_machine_resumes_on_another(tmp_path: Path, url: str, damage: bool) -> None:
    remote = url
    first = train(tmp_path / "a", remote, 30)
    assert first.stdout is not None
    assert first.stdout.readline() == "saved 1\n"
    fs, root = open_filesystem(remote)
    deadline = time.monotonic() + 30
    while not (fs.exists(root) and any(name.endswith("latest.json") for name in fs.find(root))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    if damage:
        fs, file = only(remote, ".pt")
        fs.pipe_file(file, b"no checkpoint")
    printed = train(tmp_path / "b", remote, 0).communicate(timeout=60)[0]
    result = eval(printed.splitlines()[-1])
    assert result["began"] == (0 if damage else 1)
    undisturbed = numpy.random.default_rng(1)
    assert result["sum"] == sum(float(undisturbed.random()) for _ in range(3))
    why = ledger.read_entries(tmp_path / "b" / "runs" / "run")["finetune"].why
    assert ("was damaged, training starts from scratch" in why) is damage
    assert not any(name.endswith(".pt") for name in (fs.find(root) if fs.exists(root) else []))
    assert json.loads((tmp_path / "b" / "runs" / "run" / "finetune.json").read_text())["status"] == "done"
