"""A proposal: what the tables and columns of a source mean, the map that says so, and a recipe on top of it.

Names speak first, values decide: a key has a value a row, the log's column of items holds the catalogue's keys,
a moment lies in our time. What only people know (the zone of clocks, which of two readings of a date) is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.ingest.config import UNITS
from onboarding.inference.gaps import Gap, find_gaps
from onboarding.inference.interpretation import ROLES, TEXT_SETTINGS, SchemaMapping
from onboarding.inference.kinds import infer_kind
from onboarding.inference.mapping import map_columns
from onboarding.inference.roles import assign_roles, find_table
from onboarding.inference.settings import map_settings, recipe_settings
from onboarding.inference.stated import assign_overrides
from onboarding.survey import Survey
from rankline.errors import UsageError


class Proposal(SchemaMapping):
    """What is proposed for a source: a reading of it, and what follows."""

    @property
    def settings(self) -> dict[str, Any]:
        """The map: ingest's own settings, without where the source is."""
        return map_settings(self)

    @property
    def recipe_settings(self) -> dict[str, Any]:
        """What the recipe changes, because the data asks for it."""
        return recipe_settings(self)

    @property
    def gaps(self) -> list[Gap]:
        """What is missing for a good model, the questions first."""
        return sorted(find_gaps(self), key=lambda gap: not gap.flag)


def propose(
    survey: Survey,
    *,
    name: str,
    roles: Mapping[str, str] | None = None,
    kind: str = "",
    time_zone: str = "",
    overrides: Mapping[str, str] | None = None,
) -> Proposal:
    """Guess what the tables and columns of a source mean; ``roles`` and ``said`` (setting -> column) are certain.

    Raises:
        UsageError: a table or a column that was said is not there, or times are not written like that.
    """  # fmt: skip
    given_roles = {role: find_table(survey, table) for role, table in (roles or {}).items() if table}
    if survey.format in ("recbole", "beir"):
        detected_roles = {role: role for role in ROLES if role in survey.tables}
    else:
        detected_roles = assign_roles(survey, given_roles)
    proposal = Proposal(survey, name, kind, detected_roles, {}, time_zone=time_zone)
    role_overrides = assign_overrides(proposal, overrides or {})
    if not kind:
        proposal.kind = infer_kind(proposal, role_overrides)
    for role in ROLES:
        if role in proposal.roles:
            proposal.column_mappings[role] = map_columns(proposal, role, role_overrides.get(role, {}))
    proposal.time_unit = _time_unit(proposal, (overrides or {}).get("timestamp_unit", ""))
    for role in ("items", "queries", "events"):
        if columns := [each.column for each in proposal.column_mappings.get(role, ()) if each.setting in TEXT_SETTINGS]:
            proposal.languages[role] = survey.language(proposal.roles[role], columns)
    return proposal


def _time_unit(proposal: Proposal, overrides: str) -> str:
    """What the events' times are written as; empty where that has to be asked."""
    column = proposal.column("events", "timestamp")
    if overrides or not column:
        return check_time_unit(overrides)
    times = proposal.stats("events", column).times
    return times[0] if len(times) == 1 else ""


def check_time_unit(unit: str) -> str:
    """What a person says that times are written as.

    Raises:
        UsageError: nothing is written like that.
    """
    if unit and unit != "iso" and unit not in UNITS and "%" not in unit:
        raise UsageError(
            "times cannot be written like that",
            expected=f"{', '.join(UNITS)} since 1970, iso, or a pattern such as %d.%m.%Y %H:%M",
            found=unit,
        )
    return unit
