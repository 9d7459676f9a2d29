"""A registry with candidates that wait for a review."""

import pytest

from rankline.features import transforms
from rankline.io.files import write_json
from tests.review.reviewed import Reviewed


@pytest.fixture
def reviewed(tmp_path, monkeypatch) -> Reviewed:
    """A workspace whose online store is there, with a registry in a folder."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write_json(tmp_path / "workspace" / "online" / transforms.SERVICE / "feature_store.yaml", {})
    return Reviewed(tmp_path)
