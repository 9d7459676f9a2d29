"""Digests: the same bytes give the same digest."""

from pathlib import Path

import pytest

from rankline.errors import IntegrityError
from rankline.io import digest


def test_a_folder_is_its_files_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x.txt").write_text("x")
    assert digest.tree_digest(tmp_path / "a") == digest.tree_digest(tmp_path / "b")
    (tmp_path / "b" / "deep" / "x.txt").write_text("y")
    assert digest.tree_digest(tmp_path / "a") != digest.tree_digest(tmp_path / "b")


def test_verify_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    sums = digest.file_digests(tmp_path)
    digest.verify(tmp_path, sums, hint="h")
    (tmp_path / "a").write_text("b")
    with pytest.raises(IntegrityError, match="a does not match its digest"):
        digest.verify(tmp_path, sums, hint="h")
    (tmp_path / "a").unlink()
    with pytest.raises(IntegrityError, match="no such file"):
        digest.verify(tmp_path, sums, hint="h")
