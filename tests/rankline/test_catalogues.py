"""Catalogues of a model in a folder and in a bucket's stand-in: added, published, taken back, refused."""

import shutil
from pathlib import Path

from rankline import bundle as bundles
from rankline.repository import Repository
from tests.rankline.test_repository import made, other, promote, repository  # noqa: F401 (fixtures)


def another_catalogue(bundle: bundles.Bundle, folder: Path, vectors: bytes = b"vectors of today") -> Path:
    """A later catalogue for the same model, sealed."""
    shutil.copytree(bundle.folder / "catalogue", folder)
    (folder / "vectors.fp32.npy").write_bytes(vectors)
    bundles.seal_catalogue(folder)
    return folder


def champion(models: Repository, bundle: bundles.Bundle) -> None:
    """Make a bundle the champion."""
    models.add(bundle.folder)
    models.append("registered", bundle.model_id, who="test", why="new")
    promote(models, bundle.model_id)


def publish(models: Repository, bundle: bundles.Bundle, folder: Path, **more: object) -> str:
    revision = models.add_catalogue(bundle.model_id, folder)
    models.publish(bundle.model_id, revision, who="test", why="prices of today", **more)
    return revision


def test_a_catalogue_that_is_published_is_the_one_served(repository, made, tmp_path):  # noqa: F811
    champion(repository, made)
    assert repository.pointer().revision == ""
    today = another_catalogue(made, tmp_path / "today")
    revision = repository.add_catalogue(made.model_id, today)
    assert revision != made.revision
    assert repository.bundle(made.model_id, into=tmp_path / "a").revision == made.revision, "added is not published"
    event = repository.publish(made.model_id, revision, who="test", why="prices", details={"items": 3})
    assert (event.kind, event.digests["catalogue"], event.details) == ("catalogue_published", revision, {"items": 3})
    assert repository.pointer().revision == revision
    opened = repository.bundle(made.model_id, into=tmp_path / "a")
    assert (opened.model_id, opened.revision) == (made.model_id, revision)
    assert opened.file("catalogue/vectors.fp32.npy").read_bytes() == b"vectors of today"
    assert opened.file("scorer.onnx").read_bytes() == b"weights"
    own = repository.bundle(made.model_id, revision="", into=tmp_path / "b")
    assert (own.revision, own.is_own_catalogue) == (made.revision, True)
    before = repository.fs.find(repository.root)
    assert repository.add_catalogue(made.model_id, today) == revision
    assert repository.fs.find(repository.root) == before
