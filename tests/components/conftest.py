"""Fixtures that several steps' tests share."""

from pathlib import Path

import pytest

from tests.conftest import SmokeRun


@pytest.fixture(scope="session")
def features(smoke: SmokeRun) -> Path:
    """What featurize wrote in the smoke run."""
    return smoke.artifact("featurize", "features")
