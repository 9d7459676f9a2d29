"""Times as records state them."""

from __future__ import annotations

import pytest

from rankline.utc import parse_utc


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-01-31T03:00", "2026-01-31T03:00:00+00:00"),
        ("2026-01-31T03:00+02:00", "2026-01-31T01:00:00+00:00"),
        ("2026-01-31T03:00:00.5Z", "2026-01-31T03:00:00.500000+00:00"),
        ("2026-01-31", "2026-01-31T00:00:00+00:00"),
    ],
)
def test_a_time_is_in_utc(text: str, utc: str) -> None:
    assert parse_utc(text).isoformat() == utc


@pytest.mark.parametrize("text", ["yesterday", "", "0001-01-01T00:00+05:00", "9999-12-31T23:00-05:00"])
def test_what_is_no_time_of_utc_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|format"):
        parse_utc(text)
