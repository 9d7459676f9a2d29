"""Files that others read while they are written."""

import json
import multiprocessing
import os
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from rankline.contracts import FrozenModel
from rankline.errors import IntegrityError, UsageError
from rankline.io import files


class Point(FrozenModel):
    """Two numbers."""

    x: int
    y: int


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "new" / "value.json"
    for value in ({"a": 1}, {"b": [2]}):
        files.write_json(path, value, durable=durable)
        assert json.loads(path.read_text()) == value
    assert left_over(path.parent) == []


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "value"
    files.write_bytes(path, b"old")

    def write_half() -> None:
        with files.replacing(path) as partial:
            partial.write_bytes(b"ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert path.read_bytes() == b"old"
    assert left_over(tmp_path) == []


def test_a_failed_write_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "in it").touch()
    with pytest.raises(OSError, match="folder") as error:
        files.write_bytes(tmp_path / "folder", b"x")
    assert error.value.filename
    assert left_over(tmp_path) == []


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "out") as partial:
        partial.mkdir()
        (partial / "a").write_text("a")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "a"


def test_a_file_is_created_once(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    assert files.create_exclusively(path, b"first", durable=True)
    assert not files.create_exclusively(path, b"second")
    assert path.read_bytes() == b"first"
    assert left_over(tmp_path) == []


def test_a_folder_is_published_once(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        results.append(files.publish_folder(tmp_path / name, tmp_path / "final"))
    assert results == [True, False]
    assert (tmp_path / "final" / "file").read_text() == "one"
    assert not (tmp_path / "two").exists()


def test_a_file_that_cannot_be_linked_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("a")
    files.link_or_copy(tmp_path / "a", tmp_path / "linked")
    assert (tmp_path / "linked").stat().st_ino == (tmp_path / "a").stat().st_ino

    def refuse(source: Path, target: Path) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    files.link_or_copy(tmp_path / "a", tmp_path / "copied")
    assert (tmp_path / "copied").read_text() == "a"
    assert (tmp_path / "copied").stat().st_ino != (tmp_path / "a").stat().st_ino


def _hold(path: Path, ready: Event) -> None:
    with files.locked(path):
        ready.set()
        signal_never_comes = multiprocessing.Event()
        signal_never_comes.wait()


def test_a_lock_is_exclusive_and_ends_with_its_process(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Event()
    holder = spawn.Process(target=_hold, args=(tmp_path / "lock", ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(TimeoutError, match="locked"), files.locked(tmp_path / "lock", timeout_s=0):
        pass
    holder.kill()
    holder.join()
    with files.locked(tmp_path / "lock", timeout_s=10):
        pass


def test_an_error_of_the_block_passes_the_lock(tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="its own"), files.locked(tmp_path / "lock"):
        raise TimeoutError("its own")


def read(path: Path) -> Point:
    return files.read_model(
        path, Point, what="the point", error=IntegrityError, missing="draw it", damaged="draw it again"
    )


def test_a_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"x": 1, "y": 2}')
    assert read(tmp_path / "p.json") == Point(x=1, y=2)


@pytest.mark.parametrize("content", [b"", b"{", b'{"x": 1}', b'{"x": 1, "y": 2, "z": 3}', b"\xff\x00", b"[]"])
def test_a_damaged_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"the point cannot be read(.|\n)*p\.json(.|\n)*draw it again"):
        read(tmp_path / "p.json")


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"the point is missing(.|\n)*draw it"):
        read(tmp_path / "p.json")
    with pytest.raises(UsageError, match="is missing"):
        files.read_model(tmp_path / "p.json", Point, what="it", error=UsageError, missing="m", damaged="d")
