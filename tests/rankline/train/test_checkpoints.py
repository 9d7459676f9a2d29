"""Checkpoints survive kills, damage and full disks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rankline.errors import TrainingError
from rankline.train.checkpoints import Checkpoints


def next_numbers(rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """The next numbers of both generators."""
    return rng.random(3).tolist(), torch.rand(3).tolist()


def save_checkpoint(folder: Path, epoch: int, rng: np.random.Generator) -> Path:
    """Save the checkpoint of an epoch; its file."""
    before = set(folder.glob("*.pt"))
    state = {"epoch": epoch, "best": 0.5, "curve": [{"epoch": 0, "loss": 1.0}], "model": {"w": torch.arange(5000.0)}}
    Checkpoints(folder).save(state, rng)
    (new,) = set(folder.glob("*.pt")) - before
    return new


def test_a_checkpoint_brings_state_and_chance_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    torch.manual_seed(4)
    save_checkpoint(tmp_path, 7, rng)
    expected = next_numbers(rng)
    other = np.random.default_rng(99)
    torch.manual_seed(99)
    state = Checkpoints(tmp_path).load(other)
    assert state is not None
    assert state["epoch"] == 7
    assert torch.equal(state["model"]["w"], torch.arange(5000.0))
    assert next_numbers(other) == expected


def test_only_the_last_checkpoint_is_kept_and_clear_forgets_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "x"
    for epoch in (1, 2, 3):
        save_checkpoint(folder, epoch, rng)
    assert len(list(folder.iterdir())) == 1
    assert Checkpoints(folder).load(rng)["epoch"] == 3  # type: ignore[index]
    Checkpoints(folder).clear()
    assert not folder.exists()
    Checkpoints(folder).clear()
    assert Checkpoints(folder).load(rng) is None


def test_without_a_folder_no_checkpoint_is_written() -> None:
    checkpointer = Checkpoints(None)
    checkpointer.save({"epoch": 1}, np.random.default_rng(0))
    assert checkpointer.load(np.random.default_rng(0)) is None
    checkpointer.clear()


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped byte", "other file"])
def test_a_damaged_checkpoint_is_not_used(tmp_path: Path, damage: str) -> None:
    rng = np.random.default_rng(0)
    path = save_checkpoint(tmp_path, 7, rng)
    whole = path.read_bytes()
    middle = len(whole) // 2  # in the weights, where torch does not notice it
    path.write_bytes(
        {
            "empty": b"",
            "cut": whole[:middle],
            "flipped byte": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "other file": b"not a checkpoint",
        }[damage]
    )
    untouched = np.random.default_rng(5)
    assert Checkpoints(tmp_path).load(untouched) is None
    assert untouched.random() == np.random.default_rng(5).random()
    assert not path.exists()


def test_a_kill_while_writing_leaves_the_one_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = save_checkpoint(tmp_path, 7, rng)
    (tmp_path / "partial").write_bytes(path.read_bytes()[:1000])
    assert Checkpoints(tmp_path).load(rng)["epoch"] == 7  # type: ignore[index]


def test_a_kill_before_tidying_leaves_two_and_the_newer_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    old = save_checkpoint(tmp_path, 7, rng)
    content = old.read_bytes()
    new = save_checkpoint(tmp_path, 8, rng)
    old.write_bytes(content)
    os.utime(old, ns=(1, 1))
    assert Checkpoints(tmp_path).load(rng)["epoch"] == 8  # type: ignore[index]
    new.write_bytes(new.read_bytes()[:-1])  # the older one is used where the newer is damaged
    assert Checkpoints(tmp_path).load(rng)["epoch"] == 7  # type: ignore[index]


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"epoch": 1, "bad": Bad()}, tmp_path / "partial")
    from rankline.io import digest

    (tmp_path / "partial").rename(tmp_path / f"{digest.file_digest(tmp_path / 'partial')}.pt")
    assert Checkpoints(tmp_path).load(np.random.default_rng(0)) is None
    assert not (tmp_path / "ran").exists()


def test_two_runs_of_the_same_step_keep_their_own_checkpoints(tmp_path: Path) -> None:
    """Each process writes to a file of its own, and tolerates files that the other one deleted."""
    rng = np.random.default_rng(0)
    one, two = Checkpoints(tmp_path / "shared"), Checkpoints(tmp_path / "shared")
    one.save({"epoch": 1}, rng)
    (tmp_path / "shared" / "partial").mkdir()  # another process is writing it
    two.save({"epoch": 2}, rng)
    state = one.load(rng)
    assert state is not None
    assert state["epoch"] == 2


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np, torch
from rankline.train.checkpoints import Checkpoints
from rankline.errors import TrainingError
keeper, rng = Checkpoints(Path(sys.argv[1])), np.random.default_rng(0)
keeper.save({"epoch": 1, "model": {"w": torch.zeros(1000)}}, rng)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    keeper.save({"epoch": 2, "model": {"w": torch.zeros(1_000_000)}}, rng)
except TrainingError as error:
    print(error)
print(sorted(p.suffix for p in Path(sys.argv[1]).iterdir()), keeper.load(rng)["epoch"])
"""


@pytest.mark.integration
def test_a_checkpoint_that_has_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    """With a limit of 100 kB on files, which torch reports like a full disk."""
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "a checkpoint could not be written" in done.stdout
    assert "free some disk space and run again" in done.stdout
    assert str(tmp_path) in done.stdout
    assert done.stdout.strip().endswith("['.pt'] 1")


def test_a_really_full_disk(tmp_path: Path) -> None:
    """On a file system of two megabytes, where mounting one is allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here (needs root with CAP_SYS_ADMIN)")
    try:
        checkpointer, rng = Checkpoints(disk / "x"), np.random.default_rng(0)
        checkpointer.save({"epoch": 1, "model": {"w": torch.zeros(1000)}}, rng)
        with pytest.raises(TrainingError, match=r"could not be written(.|\n)*MB free"):
            checkpointer.save({"epoch": 2, "model": {"w": torch.zeros(1_000_000)}}, rng)
        loaded = checkpointer.load(rng)
        assert loaded is not None
        assert loaded["epoch"] == 1
        assert len(list((disk / "x").iterdir())) == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)
