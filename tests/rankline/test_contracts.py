"""What passes between the steps."""

from __future__ import annotations

import pytest

from rankline.contracts import replace_in_strings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/tmp/pr", "{workspace}"),
        ("/tmp/pr/items.csv", "{workspace}/items.csv"),
        ("file:///tmp/pr/items.csv", "file://{workspace}/items.csv"),
        ("SELECT * FROM '/tmp/pr/a.csv'", "SELECT * FROM '{workspace}/a.csv'"),
        ("/tmp/prices.item", "/tmp/prices.item"),
        ("/tmp/pr.item", "/tmp/pr.item"),
        ("/tmp/pr-2/items.csv", "/tmp/pr-2/items.csv"),
        ("/data/tmp/pr/items.csv", "/data/tmp/pr/items.csv"),
    ],
)
def test_a_path_is_replaced_where_its_parts_are_whole(text: str, expected: str) -> None:
    assert replace_in_strings({"source": [text]}, "/tmp/pr", "{workspace}") == {"source": [expected]}


def test_the_placeholder_is_replaced_wherever_it_stands() -> None:
    assert replace_in_strings("{workspace}/a and {workspace}b", "{workspace}", "/tmp/w") == "/tmp/w/a and /tmp/wb"
