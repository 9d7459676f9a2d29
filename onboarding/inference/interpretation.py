"""A reading: what the tables and columns of a source are taken for, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, field

from onboarding.survey import Seen, Survey
from onboarding.survey.statistics import Facts

ROLES = ("events", "items", "users", "queries")
KEYS = {"items": "item_id", "users": "user_id", "queries": "query_id"}
# settings whose columns hold words of people
WORDY = ("title", "text", "query_text")
# settings that name any number of columns
MANY = ("text", "item_attributes", "item_numbers", "item_vectors", "user_attributes", "user_numbers",
        "event_attributes", "event_numbers")  # fmt: skip
# setting of ingest's columns -> the tables that may have such a column
SETTINGS: dict[str, tuple[str, ...]] = {
    "user_id": ("events", "users"), "item_id": ("events", "items"), "query_id": ("events", "queries"),
    "user_key": ("users",), "item_key": ("items",), "query_key": ("queries",),
    "timestamp": ("events",), "known_at": ("events",), "labels": ("events",), "event_type": ("events",),
    "split": ("events",), "query_text": ("queries", "events"), "turns": ("queries", "events"), "title": ("items",),
    "text": ("items",), "category": ("items",), "created_year": ("items",), "created_at": ("items",),
    "language": ("items",), "price": ("items",), "available": ("items",), "item_attributes": ("items",),
    "item_numbers": ("items",), "item_vectors": ("items",), "user_attributes": ("users",),
    "user_numbers": ("users",), "event_attributes": ("events",), "event_numbers": ("events",),
}  # fmt: skip
SURE, LIKELY = 0.8, 0.55


@dataclass(frozen=True)
class Meaning:
    """What one column is taken for: a setting of ingest's columns, how sure that is, and why."""

    setting: str
    column: str
    sure: float
    why: str

    @property
    def surety(self) -> str:
        """How sure, in a word."""
        return "sure" if self.sure >= SURE else "likely" if self.sure >= LIKELY else "a guess"


@dataclass
class Reading:
    """What the tables of a source are (`roles`), and their columns (`meanings`), as far as is known yet."""

    survey: Survey
    name: str
    kind: str
    roles: dict[str, str]  # role -> name of the table
    meanings: dict[str, list[Meaning]]  # role -> what its columns are
    time_zone: str = ""
    unit: str = ""  # of the events' times
    languages: dict[str, str] = field(default_factory=dict)  # role -> code

    def column(self, role: str, setting: str) -> str:
        """The column of a role that has a meaning; empty where none has."""
        return next((each.column for each in self.meanings.get(role, ()) if each.setting == setting), "")

    @property
    def zoneless(self) -> list[tuple[str, str]]:
        """(role, column) of the times that do not tell their zone."""
        times = (("events", "timestamp"), ("events", "known_at"), ("items", "created_at"))
        there = [(role, column) for role, setting in times if (column := self.column(role, setting))]
        return [(role, column) for role, column in there if self.facts(role, column).zoned not in (None, 1)]

    @property
    def zone(self) -> str:
        """The zone of those: what was said, or UTC where only the days of items are meant."""
        days = [role == "items" and self.facts(role, column).days for role, column in self.zoneless]
        return self.time_zone or "UTC" * (bool(days) and all(days))

    def table(self, role: str) -> Seen:
        """The table that has a role."""
        return self.survey.tables[self.roles[role]]

    def facts(self, role: str, column: str) -> Facts:
        """What a column of a role looks like."""
        return self.table(role).columns[column]
