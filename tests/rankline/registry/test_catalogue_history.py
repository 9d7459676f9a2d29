"""Which catalogue revision a rollback goes to, if none is named."""

from __future__ import annotations

import pytest

from rankline.registry.catalogue_history import ServedRevision, previous_revision


@pytest.mark.parametrize(
    ("served", "gone", "previous"),
    [
        ("a", "", None),
        ("ab", "", "a"),
        ("abc", "", "b"),
        ("abc", "b", "a"),  # a revision that is gone is skipped
        ("abca", "", None),  # c was rolled back from, to the oldest
        ("abcb", "", "a"),
        ("abcbd", "", "b"),  # and never back to c
        ("abcbd", "ab", None),
    ],
)
def test_the_previous_revision(served: str, gone: str, previous: str | None) -> None:
    history = [
        ServedRevision(revision=name, event=n, at="", who="", why="", kept=name not in gone)
        for n, name in enumerate(served)
    ]
    assert previous_revision(history) == previous
