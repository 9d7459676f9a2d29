"""The progress of a step, in a small file."""

import json
from pathlib import Path

import pytest

from rankline.runtime.progress import Progress, read_progress


def test_without_a_path_it_writes_nothing(tmp_path: Path) -> None:
    progress = Progress()
    progress.phase("training")
    progress.update(1, 2, loss=3.0)
    assert list(tmp_path.iterdir()) == []


def test_a_phase_an_update_and_an_end_are_written(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "x.progress", interval_s=0)
    progress.phase("training")
    assert read_progress(tmp_path / "x.progress") == {"phase": "training"}
    progress.update(3, 10, loss=0.5)
    progress_now = read_progress(tmp_path / "x.progress")
    assert (progress_now["phase"], progress_now["done"], progress_now["total"], progress_now["numbers"]) == (
        "training",
        3,
        10,
        {"loss": 0.5},
    )
    assert progress_now["remaining_s"] == pytest.approx(7 / progress_now["rate"])  # type: ignore[operator]
    progress.update(10, 10)
    assert read_progress(tmp_path / "x.progress")["remaining_s"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x.progress"]


def test_it_writes_a_few_times_a_second_but_always_the_end(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "x", interval_s=60)
    progress.phase("training")
    reported = []
    for done in range(1, 101):
        progress.update(done, 100)
        reported.append(read_progress(tmp_path / "x")["done"])
    assert reported == [1] * 99 + [100]


def test_a_new_phase_is_written_at_once(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "x", interval_s=60)
    progress.phase("one")
    progress.update(1, 3)
    progress.phase("two")
    progress.update(1, 5)
    assert (read_progress(tmp_path / "x")["phase"], read_progress(tmp_path / "x")["total"]) == ("two", 5)


@pytest.mark.parametrize("content", [None, "", '{"phase": "tr', json.dumps([1])])
def test_an_unreadable_file_is_no_progress(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "x").write_text(content)
    assert read_progress(tmp_path / "x") == {}
