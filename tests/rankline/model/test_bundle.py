"""Bundles: every file is verified, and the model id depends on the servable files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rankline.errors import IntegrityError, UsageError
from rankline.model import bundle as bundles
from rankline.model.bundle import Bundle
from tests.conftest import SmokeRun


@pytest.fixture(scope="module")
def bundle(smoke: SmokeRun) -> Bundle:
    return bundles.open_bundle(smoke.artifact("export", "bundle"))


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.folder, tmp_path / "bundle"))


def servable(folder: Path) -> list[Path]:
    """Every served file except the manifests."""
    lists = {"manifest.json", "catalogue/catalogue.json", "files.json"}
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and p.relative_to(folder).as_posix() not in lists]


def test_a_flipped_byte_is_refused_in_every_file(copy: Path) -> None:
    files = servable(copy)
    assert len(files) >= 15
    for path in files:
        whole = path.read_bytes()
        place = len(whole) // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(IntegrityError, match=path.name) as caught:
            bundles.open_bundle(copy)
        assert caught.value.hint
        assert bundles.open_bundle(copy, verify=False)  # not verified
        path.write_bytes(whole)
    assert bundles.open_bundle(copy)


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "user.onnx").unlink()
    with pytest.raises(IntegrityError, match=r"user\.onnx(.|\n)*no such file"):
        bundles.open_bundle(copy)


@pytest.mark.parametrize("missing", ["manifest.json", "catalogue/catalogue.json"])
def test_a_folder_that_is_no_bundle_is_refused(copy: Path, missing: str) -> None:
    (copy / missing).unlink()
    with pytest.raises(UsageError, match=Path(missing).name):
        bundles.open_bundle(copy)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", "{"),
        ("manifest.json", '{"schema_version": 2}'),
        ("manifest.json", "\x00"),
        ("catalogue/catalogue.json", "[]"),
        ("catalogue/catalogue.json", '{"files": 3}'),
        ("catalogue/catalogue.json", "{}"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(copy: Path, file: str, content: str) -> None:
    (copy / file).write_text(content)
    with pytest.raises(IntegrityError, match="cannot be read"):
        bundles.open_bundle(copy)


def test_bytes_that_are_no_text_are_refused_as_well(copy: Path) -> None:
    (copy / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IntegrityError, match="cannot be read"):
        bundles.open_bundle(copy)


def test_a_served_file_without_a_digest_is_refused(copy: Path) -> None:
    shutil.copyfile(copy / "user.onnx", copy / "other.onnx")
    manifest = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(manifest.replace('"user": "user.onnx"', '"user": "other.onnx"'))
    with pytest.raises(IntegrityError, match=r"no digest(.|\n)*other\.onnx"):
        bundles.open_bundle(copy)


def test_evidence_and_scores_beside_a_bundle_do_not_change_its_id(bundle: Bundle, copy: Path) -> None:
    (copy / "evidence").mkdir()
    (copy / "evidence" / "report.json").write_text("{}")
    (copy / "card.md").write_text("a model card")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest |= {"recipe": "renamed", "parity": [], "code_digest": "1" * 64}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    opened = bundles.open_bundle(copy)
    assert (opened.model_id, opened.revision) == (bundle.model_id, bundle.revision)
    assert opened.manifest.recipe == "renamed"


def test_the_model_and_its_catalogue_have_ids_of_their_own(bundle: Bundle, copy: Path) -> None:
    popularity = np.load(copy / "catalogue" / "sources" / "popularity.npy")
    np.save(copy / "catalogue" / "sources" / "popularity.npy", popularity + 1)
    renewed = bundles.write_bundle_manifest(copy, bundle.manifest)
    assert renewed.model_id == bundle.model_id
    assert renewed.revision != bundle.revision
    (copy / "policy.json").write_text('{"rerank": ["diversity"]}')
    changed = bundles.write_bundle_manifest(copy, bundle.manifest)
    assert changed.model_id != bundle.model_id
    assert changed.revision == renewed.revision


def test_sealing_twice_gives_the_same_ids(bundle: Bundle, copy: Path) -> None:
    again = bundles.write_bundle_manifest(copy, bundle.manifest)
    assert (again.model_id, again.revision, again.manifest) == (bundle.model_id, bundle.revision, bundle.manifest)


def test_the_model_id_is_read_without_verifying(bundle: Bundle, copy: Path) -> None:
    (copy / "scorer.onnx").write_bytes(b"other bytes")
    manifest = copy / "manifest.json"
    assert bundles.unverified_model_id(manifest.read_bytes()) == bundle.model_id
    manifest.write_text("{")
    assert bundles.unverified_model_id(manifest.read_bytes()) == bundles.unverified_model_id(b"") == ""


def test_the_id_is_of_paths_and_digests_in_any_order() -> None:
    a = bundles.model_id({"text.onnx": "1", "user.onnx": "2"})
    assert a == bundles.model_id({"user.onnx": "2", "text.onnx": "1"})
    assert len({a, bundles.model_id({"text.onnx": "2", "user.onnx": "1"}), bundles.model_id({"text.onnx": "1"})}) == 3


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_the_catalogue_is_in_the_order_of_the_items(bundle: Bundle, smoke: SmokeRun, precision: str) -> None:
    import pyarrow.parquet as parquet

    catalogue, shown = bundles.read_catalogue(bundle, precision)
    items = parquet.read_table(smoke.artifact("featurize", "features") / "items.parquet").to_pylist()
    assert list(catalogue.item_ids) == [item["item_id"] for item in items] == [item["item_id"] for item in shown]
    assert [item["title"] for item in shown] == [item["title"] for item in items]
    count = len(items)
    assert catalogue.vectors_ID.shape == (count, bundle.manifest.vector_size)
    assert catalogue.covisit.shape == (count, count)
    assert catalogue.popularity_I.shape == (count,)
    assert catalogue.categories_IC.shape == (count, len(catalogue.vocabulary))
    assert bundle.candidate_settings.max_history == bundle.manifest.max_history
