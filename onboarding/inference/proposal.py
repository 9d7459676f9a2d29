"""A proposal for a source: what its tables and columns mean, the map, the recipe's changes, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from components.ingest.config import stored_name
from components.ingest.times import OTHER_UNITS, UNITS
from onboarding.inference.columns import assign_overrides, map_columns
from onboarding.inference.gaps import Gap, find_gaps
from onboarding.inference.map_settings import map_settings, recipe_settings
from onboarding.inference.recipe_kind import infer_kind
from onboarding.inference.roles import assign_roles, find_table
from onboarding.inference.schema import ROLES, TEXT_SETTINGS, SchemaMapping
from onboarding.inference.trial import without_unreadable
from onboarding.survey.statistics import ColumnStats
from onboarding.survey.survey import Survey
from rankline.errors import UsageError


class Proposal(SchemaMapping):
    """A mapping of a source's tables and columns, and what follows from it."""

    @property
    def settings(self) -> dict[str, Any]:
        """The map: ingest's own settings, without the source."""
        return map_settings(self)

    @property
    def recipe_settings(self) -> dict[str, Any]:
        """What the recipe changes because of the data."""
        return recipe_settings(self)

    @property
    def user_features_setting(self) -> str:
        """The setting that makes the model read the proposed attributes of users; empty without any."""
        declared = ("user_attributes", "user_numbers", "user_texts")
        users = self.column_mappings.get("users", ())
        names = [stored_name(each.column) for each in users if each.setting in declared]
        return f"featurize.user_features={json.dumps(names, ensure_ascii=False)}" if names else ""

    @property
    def gaps(self) -> list[Gap]:
        """What is missing for a good model, open questions first."""
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
    """Infer what the tables and columns of a source mean; ``roles`` and ``overrides`` (setting -> column) are given.

    Raises:
        UsageError: a given table or column does not exist, or there is no such time unit.
    """  # fmt: skip
    given_roles = {role: find_table(survey, table) for role, table in (roles or {}).items() if table}
    if survey.format in ("recbole", "beir"):
        inferred_roles = {role: role for role in ROLES if role in survey.tables}
    else:
        inferred_roles = assign_roles(survey, given_roles)
    answered = frozenset([*(overrides or {}), *given_roles])
    proposal = Proposal(survey, name, kind, inferred_roles, {}, time_zone=time_zone, answered=answered)
    role_overrides = assign_overrides(proposal, overrides or {})
    if not kind:
        proposal.kind = infer_kind(proposal, role_overrides)
    for role in ROLES:
        if role in proposal.roles:
            proposal.column_mappings[role] = map_columns(proposal, role, role_overrides.get(role, {}))
    proposal.time_unit = _time_unit(proposal, (overrides or {}).get("timestamp_unit", ""))
    if "events" in proposal.roles and "time_of_day" not in answered and not _is_date(proposal):
        of_events = proposal.column_mappings["events"]
        proposal.column_mappings["events"] = [each for each in of_events if each.setting != "time_of_day"]
    if survey.format != "beir":
        for role in proposal.roles:
            proposal.column_mappings[role] = without_unreadable(proposal, role)
    for role in ("items", "queries", "events"):
        if columns := [each.column for each in proposal.column_mappings.get(role, ()) if each.setting in TEXT_SETTINGS]:
            proposal.languages[role] = survey.language(proposal.roles[role], columns)
    return proposal


def _time_unit(proposal: Proposal, override: str) -> str:
    """The unit or pattern of the events' timestamps; empty if it is not clear."""
    column = proposal.column("events", "timestamp")
    if override or not column:
        return check_time_unit(override)
    times = proposal.stats("events", column).times
    unit = times[0] if len(times) == 1 else ""
    clock = proposal.column("events", "time_of_day")
    return _with_clock(unit, proposal.stats("events", clock)) if unit and clock and _is_date(proposal) else unit


def _is_date(proposal: Proposal) -> bool:
    """Whether the times of the events are days without hours."""
    column = proposal.column("events", "timestamp")
    return bool(column) and proposal.stats("events", column).is_date


def _with_clock(unit: str, clock: ColumnStats) -> str:
    """The pattern of a date and a time of day with a blank between them."""
    example = clock.examples[0]
    hours = "%I:%M" if example[-1] in "mM" else "%H:%M"
    if unit == "iso" and hours == "%H:%M":
        return unit
    seconds = ":%S" * (example.count(":") == 2) + ".%f" * ("." in example)
    half = (" " * (" " in example) + "%p") * (hours == "%I:%M")
    return f"{'%Y-%m-%d' if unit == 'iso' else unit} {hours}{seconds}{half}"


def check_time_unit(unit: str) -> str:
    """The unit or pattern itself, if times can be written like that.

    Raises:
        UsageError: they cannot.
    """
    if unit and unit not in (*UNITS, *OTHER_UNITS) and "%" not in unit:
        raise UsageError(
            "there is no such unit or pattern of times",
            expected=f"{', '.join(UNITS)} since 1970, {', '.join(OTHER_UNITS)}, or a pattern such as %d.%m.%Y %H:%M",
            found=unit,
        )
    return unit
