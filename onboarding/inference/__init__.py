"""A proposal: what the tables and columns of a source mean, the map that says so, and a recipe on top of it.

Names speak first, values decide: a key has a value a row, the log's column of items holds the catalogue's keys,
a moment lies in our time. What only people know (the zone of clocks, which of two readings of a date) is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.ingest.config import UNITS
from onboarding.inference.gaps import Lack, lacks_of
from onboarding.inference.interpretation import ROLES, WORDY, Reading
from onboarding.inference.kinds import kind_of
from onboarding.inference.mapping import meanings_of
from onboarding.inference.roles import roles_of, table_named
from onboarding.inference.settings import knobs_of, settings_of
from onboarding.inference.stated import placed
from onboarding.survey import Survey
from rankline.errors import UsageError


class Proposal(Reading):
    """What is proposed for a source: a reading of it, and what follows."""

    @property
    def settings(self) -> dict[str, Any]:
        """The map: ingest's own settings, without where the source is."""
        return settings_of(self)

    @property
    def knobs(self) -> dict[str, Any]:
        """What the recipe changes, because the data asks for it."""
        return knobs_of(self)

    @property
    def lacks(self) -> list[Lack]:
        """What is missing for a good model, the questions first."""
        return sorted(lacks_of(self), key=lambda lack: not lack.flag)


def propose(
    survey: Survey,
    *,
    name: str,
    roles: Mapping[str, str] | None = None,
    kind: str = "",
    time_zone: str = "",
    said: Mapping[str, str] | None = None,
) -> Proposal:
    """Guess what the tables and columns of a source mean; ``roles`` and ``said`` (setting -> column) are certain.

    Raises:
        UsageError: a table or a column that was said is not there, or times are not written like that.
    """  # fmt: skip
    given = {role: table_named(survey, table) for role, table in (roles or {}).items() if table}
    if survey.format in ("recbole", "beir"):
        found = {role: role for role in ROLES if role in survey.tables}
    else:
        found = roles_of(survey, given)
    made = Proposal(survey, name, kind, found, {}, time_zone=time_zone)
    told = placed(made, said or {})
    if not kind:
        made.kind = kind_of(made, told)
    for role in ROLES:
        if role in made.roles:
            made.meanings[role] = meanings_of(made, role, told.get(role, {}))
    made.unit = _unit(made, (said or {}).get("timestamp_unit", ""))
    for role in ("items", "queries", "events"):
        if columns := [each.column for each in made.meanings.get(role, ()) if each.setting in WORDY]:
            made.languages[role] = survey.language(made.roles[role], columns)
    return made


def _unit(made: Proposal, said: str) -> str:
    """What the events' times are written as; empty where that has to be asked."""
    column = made.column("events", "timestamp")
    if said or not column:
        return checked_unit(said)
    times = made.facts("events", column).times
    return times[0] if len(times) == 1 else ""


def checked_unit(said: str) -> str:
    """What a person says that times are written as.

    Raises:
        UsageError: nothing is written like that.
    """
    if said and said != "iso" and said not in UNITS and "%" not in said:
        raise UsageError(
            "times cannot be written like that",
            expected=f"{', '.join(UNITS)} since 1970, iso, or a pattern such as %d.%m.%Y %H:%M",
            found=said,
        )
    return said
