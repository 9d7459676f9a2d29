"""Times as records state them."""

from __future__ import annotations

from datetime import UTC, datetime


def parse_utc(text: str) -> datetime:
    """An ISO time in UTC, which it is in where it names no zone; a ValueError where it is none."""
    time = datetime.fromisoformat(text)
    try:
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as error:  # before the year 1 or after 9999 in UTC
        raise ValueError(f"{text} is out of range in UTC") from error
