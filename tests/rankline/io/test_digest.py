"""Digests: the same bytes give the same digest; a change of code is seen by the steps that use it."""

from pathlib import Path

import pytest

from rankline.errors import IntegrityError
from rankline.io import digest


def test_a_folder_is_its_files_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x.txt").write_text("x")
    assert digest.of_tree(tmp_path / "a") == digest.of_tree(tmp_path / "b")
    (tmp_path / "b" / "deep" / "x.txt").write_text("y")
    assert digest.of_tree(tmp_path / "a") != digest.of_tree(tmp_path / "b")


def test_code_of_one_step_does_not_see_another() -> None:
    finetune = digest.closure("components.finetune.step", packages=digest.OURS)
    evaluate = digest.closure("components.evaluate.step", packages=digest.OURS)
    assert "rankline.model.networks" in finetune
    assert "rankline.model.networks" not in evaluate
    assert "rankline.evaluation.metrics" in evaluate
    assert not any(name.startswith("components.evaluate") for name in finetune)


def test_code_digest_changes_with_an_imported_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest.of_code("components.export.step")
    changed = tmp_path / "graphs.py"
    changed.write_text("# another graph writer\n")
    closure = digest.closure

    def swapped(module: str, *, packages: tuple[str, ...]) -> dict[str, Path]:
        return closure(module, packages=packages) | {"components.export.graphs": changed}

    monkeypatch.setattr(digest, "closure", swapped)
    assert digest.of_code("components.export.step") != before


def test_verify_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    sums = digest.of_files(tmp_path)
    digest.verify(tmp_path, sums, hint="h")
    (tmp_path / "a").write_text("b")
    with pytest.raises(IntegrityError, match="a is not the file"):
        digest.verify(tmp_path, sums, hint="h")
    (tmp_path / "a").unlink()
    with pytest.raises(IntegrityError, match="no such file"):
        digest.verify(tmp_path, sums, hint="h")
