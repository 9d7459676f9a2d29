"""What a person said of a column: certain, if there is such a column."""

from __future__ import annotations

from collections.abc import Mapping

from onboarding.inference.interpretation import KEYS, SETTINGS, Reading
from rankline.errors import UsageError


def placed(made: Reading, said: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Role -> setting -> column, of what a person said.

    Raises:
        UsageError: no such setting, or no table of that role has such a column.
    """
    told: dict[str, dict[str, str]] = {}
    for setting, column in said.items():
        if setting == "timestamp_unit":
            continue
        roles = SETTINGS.get(setting.partition(".")[0])
        if roles is None:
            raise UsageError(
                f"columns have no meaning {setting!r}",
                expected="one of " + ", ".join(SETTINGS) + "; a label as labels.rating",
                found=f"{setting}={column}",
            )
        there = [role for role in roles if role in made.roles]
        having = [
            role for role in there if not column or all(one in made.table(role).columns for one in column.split(","))
        ]
        if not having:
            columns = [name for role in there for name in made.table(role).columns]
            raise UsageError(
                f"no table of {' or '.join(roles)} has a column {column!r}",
                expected="one of " + ", ".join(columns),
                found=f"{setting}={column}",
                where=made.survey.source,
            )
        for role in having if setting in KEYS.values() else having[:1]:
            told.setdefault(role, {})[setting] = column
    return told
