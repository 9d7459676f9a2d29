"""What both trainers need around their loops."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rankline.errors import DeviceError, TrainingError
from rankline.train import training


def test_cuda_asked_for_and_absent_is_refused() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(DeviceError) as caught:
        training.pick_device("cuda")
    assert "set device=auto or device=cpu" in str(caught.value)
    assert torch.__version__ in caught.value.found
    assert training.pick_device("auto") == training.pick_device("cpu") == torch.device("cpu")


def test_bf16_is_taken_where_asked_for_and_by_itself_where_there_is_hardware() -> None:
    cpu = torch.device("cpu")
    assert training.pick_autocast("bf16", cpu)
    assert not training.pick_autocast("fp32", cpu)
    # the kernel's own word for it, beside torch's
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    assert training.pick_autocast("auto", cpu) == ("avx512_bf16" in flags)


def test_the_rate_rises_falls_and_ends_at_nothing() -> None:
    rates = [training.learning_rate_at(f, peak=2.0, warm_up=0.1) for f in np.linspace(0, 1, 101)]
    assert rates[0] == 0
    assert rates[5] == pytest.approx(2.0 * 0.5 * (1 + math.cos(math.pi * 0.05)) / 2)
    assert int(np.argmax(rates)) == 10
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0)
    assert training.learning_rate_at(0.0, peak=2.0, warm_up=0.0) == 2.0
    assert training.learning_rate_at(1.5, peak=2.0, warm_up=0.1) == pytest.approx(0)


def test_windows_are_padded_behind_and_shifted_by_one() -> None:
    windows = [(np.array([4, 5, 6]), np.array([1, 2, 3])), (np.array([7, 8]), np.array([5, 0]))]
    items_BL, ratings_BL, next_BL = training.pad_windows(windows)
    assert items_BL.tolist() == [[4, 5], [7, 0]]
    assert ratings_BL.tolist() == [[1, 2], [5, 0]]
    assert next_BL.tolist() == [[5, 6], [8, -100]]


def test_batches_hold_every_window_once_beside_its_likes() -> None:
    windows = [(np.arange(n), np.arange(n)) for n in range(2, 25)]
    batches = training.window_batches(windows, np.random.default_rng(0), 5)
    assert sorted(len(items) for batch in batches for items, _ in batch) == list(range(2, 25))
    assert all(max(map(len, sizes)) - min(map(len, sizes)) <= 4 for sizes in [[w[0] for w in b] for b in batches])
    assert batches[0][0][0].size != 2 or batches[1][0][0].size != 7  # not in order of length


def test_ndcg_by_hand() -> None:
    assert training.ndcg_of_ranks(np.array([0, 1, 9, 10]), k=10) == pytest.approx(
        (1 + 1 / math.log2(3) + 1 / math.log2(11) + 0) / 4
    )


@pytest.mark.parametrize(
    ("scores", "target", "rank"),
    [
        ([3.0, 2.0, 1.0], 0, 0),
        ([3.0, 2.0, 1.0], 2, 2),
        ([1.0] * 101, 7, 50),  # a model that tells nothing apart is no perfect one
        ([5.0, 1.0, 1.0, 0.0], 1, 1),
        ([math.nan] * 5, 2, 4),  # nor is a broken one
        ([1.0, -math.inf, 0.0], 1, 2),
    ],
)
def test_where_a_target_stands(scores: list[float], target: int, rank: int) -> None:
    assert training.target_rank(np.array(scores), target) == rank


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_training(loss: float) -> None:
    training.check_finite(1.0, step="distill", epoch=3)
    with pytest.raises(TrainingError, match=r"distill is not a number(.|\n)*in epoch 3(.|\n)*distill.learning_rate"):
        training.check_finite(loss, step="distill", epoch=3)


# Checkpoints ---------------------------------------------------------------------------------------------------


def drawn(rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """What the two generators give next."""
    return rng.random(3).tolist(), torch.rand(3).tolist()


def kept(folder: Path, epoch: int, rng: np.random.Generator) -> Path:
    """The file of a checkpoint of some epoch."""
    before = set(folder.glob("*.pt"))
    state = {"epoch": epoch, "best": 0.5, "curve": [{"epoch": 0, "loss": 1.0}], "model": {"w": torch.arange(5000.0)}}
    training.Checkpoints(folder).save(state, rng)
    (new,) = set(folder.glob("*.pt")) - before
    return new


def test_a_checkpoint_brings_state_and_chance_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    torch.manual_seed(4)
    kept(tmp_path, 7, rng)
    wanted = drawn(rng)
    other = np.random.default_rng(99)
    torch.manual_seed(99)
    state = training.Checkpoints(tmp_path).load(other)
    assert state is not None
    assert state["epoch"] == 7
    assert torch.equal(state["model"]["w"], torch.arange(5000.0))
    assert drawn(other) == wanted


def test_only_the_last_checkpoint_is_kept_and_clear_forgets_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "x"
    for epoch in (1, 2, 3):
        kept(folder, epoch, rng)
    assert len(list(folder.iterdir())) == 1
    assert training.Checkpoints(folder).load(rng)["epoch"] == 3  # type: ignore[index]
    training.Checkpoints(folder).clear()
    assert not folder.exists()
    training.Checkpoints(folder).clear()
    assert training.Checkpoints(folder).load(rng) is None


def test_without_a_folder_nothing_is_kept() -> None:
    checkpointer = training.Checkpoints(None)
    checkpointer.save({"epoch": 1}, np.random.default_rng(0))
    assert checkpointer.load(np.random.default_rng(0)) is None
    checkpointer.clear()


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped byte", "other file"])
def test_a_damaged_checkpoint_is_not_used(tmp_path: Path, damage: str) -> None:
    rng = np.random.default_rng(0)
    path = kept(tmp_path, 7, rng)
    whole = path.read_bytes()
    middle = len(whole) // 2  # in the weights, where torch itself would not notice
    path.write_bytes(
        {
            "empty": b"",
            "cut": whole[:middle],
            "flipped byte": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "other file": b"not a checkpoint",
        }[damage]
    )
    untouched = np.random.default_rng(5)
    assert training.Checkpoints(tmp_path).load(untouched) is None
    assert untouched.random() == np.random.default_rng(5).random()
    assert not path.exists()


def test_a_kill_while_writing_leaves_the_one_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = kept(tmp_path, 7, rng)
    (tmp_path / "partial").write_bytes(path.read_bytes()[:1000])
    assert training.Checkpoints(tmp_path).load(rng)["epoch"] == 7  # type: ignore[index]


def test_a_kill_before_tidying_leaves_two_and_the_newer_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    old = kept(tmp_path, 7, rng)
    content = old.read_bytes()
    new = kept(tmp_path, 8, rng)
    old.write_bytes(content)
    os.utime(old, ns=(1, 1))
    assert training.Checkpoints(tmp_path).load(rng)["epoch"] == 8  # type: ignore[index]
    new.write_bytes(new.read_bytes()[:-1])  # and where the newer is damaged, the older saves the day
    assert training.Checkpoints(tmp_path).load(rng)["epoch"] == 7  # type: ignore[index]


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"epoch": 1, "bad": Bad()}, tmp_path / "partial")
    from rankline.io import digest

    (tmp_path / "partial").rename(tmp_path / f"{digest.file_digest(tmp_path / 'partial')}.pt")
    assert training.Checkpoints(tmp_path).load(np.random.default_rng(0)) is None
    assert not (tmp_path / "ran").exists()


def test_two_runs_of_the_same_work_do_not_take_each_others_checkpoint_away(tmp_path: Path) -> None:
    """Each writes under a name of its own, and a file that the other has tidied away is no fault."""
    rng = np.random.default_rng(0)
    one, two = training.Checkpoints(tmp_path / "shared"), training.Checkpoints(tmp_path / "shared")
    one.save({"epoch": 1}, rng)
    (tmp_path / "shared" / "partial").mkdir()  # what another process is in the middle of
    two.save({"epoch": 2}, rng)
    kept = one.load(rng)
    assert kept is not None
    assert kept["epoch"] == 2


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np, torch
from rankline.train import training
from rankline.errors import TrainingError
keeper, rng = training.Checkpoints(Path(sys.argv[1])), np.random.default_rng(0)
keeper.save({"epoch": 1, "model": {"w": torch.zeros(1000)}}, rng)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    keeper.save({"epoch": 2, "model": {"w": torch.zeros(1_000_000)}}, rng)
except TrainingError as error:
    print(error)
print(sorted(p.suffix for p in Path(sys.argv[1]).iterdir()), keeper.load(rng)["epoch"])
"""


def test_a_checkpoint_that_has_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    """Files may not grow beyond 100 kB there, which torch meets as it meets a full disk."""
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "a checkpoint could not be written" in done.stdout
    assert "make room there and run again" in done.stdout
    assert str(tmp_path) in done.stdout
    assert done.stdout.strip().endswith("['.pt'] 1")


def test_a_really_full_disk(tmp_path: Path) -> None:
    """A file system of two megabytes, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here (needs root with CAP_SYS_ADMIN)")
    try:
        checkpointer, rng = training.Checkpoints(disk / "x"), np.random.default_rng(0)
        checkpointer.save({"epoch": 1, "model": {"w": torch.zeros(1000)}}, rng)
        with pytest.raises(TrainingError, match=r"could not be written(.|\n)*MB free"):
            checkpointer.save({"epoch": 2, "model": {"w": torch.zeros(1_000_000)}}, rng)
        loaded = checkpointer.load(rng)
        assert loaded is not None
        assert loaded["epoch"] == 1
        assert len(list((disk / "x").iterdir())) == 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("skew", [0.0, 0.7])
def test_the_sampled_softmax_is_the_full_one_on_average(skew: float) -> None:
    """However unevenly items are drawn: the value, and the gradient that training follows."""
    torch.manual_seed(0)
    hidden_ND, fused_ID = torch.randn(8, 6) * 0.5, torch.randn(200, 6)
    next_N = torch.arange(8)  # with the skew, the targets are the most drawn
    probability_I = 1.0 / np.arange(1, 201) ** skew
    probability_I /= probability_I.sum()
    rng = np.random.default_rng(0)

    def loss_and_gradient(sampled: int) -> tuple[float, torch.Tensor]:
        fused = fused_ID.clone().requires_grad_()
        sampled_S = training.ItemSampler(probability_I)(rng, sampled)
        loss = training.next_item_loss(hidden_ND, fused, next_N, sampled_S=sampled_S, probability_I=probability_I)
        loss.backward()
        assert fused.grad is not None
        return loss.item(), fused.grad

    wanted, direction = loss_and_gradient(0)
    draws = [loss_and_gradient(120) for _ in range(400)]
    gradient = torch.stack([each for _, each in draws]).mean(0)
    assert np.mean([loss for loss, _ in draws]) == pytest.approx(wanted, rel=0.03)
    assert (gradient - direction).norm() < 0.25 * direction.norm()  # and more of it with more draws


def test_with_no_samples_it_is_the_full_softmax() -> None:
    torch.manual_seed(0)
    hidden_ND, fused_ID, next_N = torch.randn(8, 6), torch.randn(40, 6), torch.arange(8)
    none, probability_I = np.zeros(0, np.int64), np.full(40, 1 / 40)
    loss = training.next_item_loss(hidden_ND, fused_ID, next_N, sampled_S=none, probability_I=probability_I)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(hidden_ND @ fused_ID.T, next_N))
