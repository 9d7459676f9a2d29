"""`rankline features`: what it refuses before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.in_process import rankline, refused


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "there is no champion to materialize features for"),
        (("--until", "tomorrow"), "'tomorrow' is not a time"),
        (("--set", "ingest.nonsense=1"), "nonsense"),
    ],
)
def test_an_impossible_materialization_is_refused(tmp_path: Path, arguments: tuple[str, ...], wanted: str) -> None:
    assert wanted in refused("features", "materialize", "-r", "smoke", "-w", tmp_path, *arguments, code=2)
    assert not list(tmp_path.iterdir()), "nothing was fetched or started"


def test_a_workspace_without_features(tmp_path: Path) -> None:
    assert "a promotion brings them there" in rankline("features", "status", "-w", tmp_path).stdout
