"""Two tiny bundles, and a registry in a folder and in memory."""

import uuid

import fsspec
import pytest

from rankline.registry.model_registry import ModelRegistry
from tests.rankline.registry.test_model_registry import tiny_bundle


@pytest.fixture
def bundle(tmp_path):
    return tiny_bundle(tmp_path / "made")


@pytest.fixture
def other(tmp_path):
    return tiny_bundle(tmp_path / "other", weights=b"others")


@pytest.fixture(params=["folder", "bucket"])
def repository(request, tmp_path):
    if request.param == "folder":
        yield ModelRegistry(tmp_path / "repository")
    else:
        yield ModelRegistry(f"memory://{uuid.uuid4().hex}/repository")
        fsspec.filesystem("memory").store.clear()
