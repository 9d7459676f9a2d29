"""What a person said of a column: certain, if there is such a column."""

from __future__ import annotations

from collections.abc import Mapping

from onboarding.inference.interpretation import KEY_SETTINGS, SETTING_ROLES, SchemaMapping
from rankline.errors import UsageError


def assign_overrides(mapping: SchemaMapping, overrides: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Role -> setting -> column, of what a person said.

    Raises:
        UsageError: no such setting, or no table of that role has such a column.
    """
    assigned: dict[str, dict[str, str]] = {}
    for setting, column in overrides.items():
        if setting == "timestamp_unit":
            continue
        roles = SETTING_ROLES.get(setting.partition(".")[0])
        if roles is None:
            raise UsageError(
                f"columns have no meaning {setting!r}",
                expected="one of " + ", ".join(SETTING_ROLES) + "; a label as labels.rating",
                found=f"{setting}={column}",
            )
        present_roles = [role for role in roles if role in mapping.roles]
        matching_roles = [
            role
            for role in present_roles
            if not column or all(name in mapping.table(role).columns for name in column.split(","))
        ]
        if not matching_roles:
            columns = [name for role in present_roles for name in mapping.table(role).columns]
            raise UsageError(
                f"no table of {' or '.join(roles)} has a column {column!r}",
                expected="one of " + ", ".join(columns),
                found=f"{setting}={column}",
                where=mapping.survey.source,
            )
        for role in matching_roles if setting in KEY_SETTINGS.values() else matching_roles[:1]:
            assigned.setdefault(role, {})[setting] = column
    return assigned
