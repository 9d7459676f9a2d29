"""`rankline features`: what it refuses before anything begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import rankline, refused


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "there is no champion to materialize features for"),
        (("--until", "tomorrow"), "'tomorrow' is no moment"),
        (("--set", "ingest.nonsense=1"), "nonsense"),
    ],
)
def test_a_materialization_that_cannot_be_is_refused_at_once(
    tmp_path: Path, arguments: tuple[str, ...], wanted: str
) -> None:
    assert wanted in refused("features", "materialize", "-r", "smoke", "-w", tmp_path, *arguments, code=2)
    assert not list(tmp_path.iterdir()), "nothing was fetched or begun"


def test_a_workspace_without_features_says_where_they_come_from(tmp_path: Path) -> None:
    assert "a promotion brings them there" in rankline("features", "status", "-w", tmp_path).stdout
