"""What the tables and columns of a source are taken for, and with what confidence."""

from __future__ import annotations

from dataclasses import dataclass, field

from onboarding.survey.statistics import ColumnStats
from onboarding.survey.survey import Survey, TableSurvey

ROLES = ("events", "items", "users", "queries")
KEY_SETTINGS = {"items": "item_id", "users": "user_id", "queries": "query_id"}
# settings whose columns hold natural language
TEXT_SETTINGS = ("title", "text", "query_text")
# settings that name any number of columns
LIST_SETTINGS = (
    "text", "item_attributes", "item_numbers", "item_vectors", "user_attributes", "user_numbers", "user_texts",
    "event_attributes", "event_numbers",
)  # fmt: skip
# setting of ingest's columns -> the roles whose tables may have such a column
SETTING_ROLES: dict[str, tuple[str, ...]] = {
    "user_id": ("events", "users"), "item_id": ("events", "items"), "query_id": ("events", "queries"),
    "user_key": ("users",), "item_key": ("items",), "query_key": ("queries",),
    "timestamp": ("events",), "time_of_day": ("events",), "known_at": ("events",), "labels": ("events",),
    "event_type": ("events",),
    "request_id": ("events",), "position": ("events",),
    "split": ("events",), "query_text": ("queries", "events"), "turns": ("queries", "events"), "title": ("items",),
    "text": ("items",), "category": ("items",), "created_year": ("items",), "created_at": ("items",),
    "valid_from": ("items",),
    "language": ("items",), "price": ("items",), "available": ("items",), "item_attributes": ("items",),
    "item_numbers": ("items",), "item_vectors": ("items",), "user_attributes": ("users",),
    "user_numbers": ("users",), "user_texts": ("users",), "user_time_zone": ("users",),
    "event_attributes": ("events",), "event_numbers": ("events",), "event_time_zone": ("events",),
}  # fmt: skip
SURE_ABOVE, LIKELY_ABOVE = 0.8, 0.55


@dataclass(frozen=True)
class ColumnMapping:
    """What one column is taken for: a setting of ingest's columns, with a confidence and a reason."""

    setting: str
    column: str
    confidence: float
    why: str

    @property
    def confidence_label(self) -> str:
        return "sure" if self.confidence >= SURE_ABOVE else "likely" if self.confidence >= LIKELY_ABOVE else "a guess"


@dataclass
class SchemaMapping:
    """What the tables of a source are (`roles`) and what their columns are (`column_mappings`), as far as known."""

    survey: Survey
    name: str
    kind: str
    roles: dict[str, str]  # role -> name of the table
    column_mappings: dict[str, list[ColumnMapping]]  # role -> what its columns are
    time_zone: str = ""
    time_unit: str = ""  # of the events' timestamps
    not_read: dict[tuple[str, str], str] = field(default_factory=dict)  # (role, column) -> why
    answered: frozenset[str] = frozenset()  # settings that were given
    languages: dict[str, str] = field(default_factory=dict)  # role -> language code

    def column(self, role: str, setting: str) -> str:
        """The column of a role that is mapped to a setting; empty if none is."""
        return next((each.column for each in self.column_mappings.get(role, ()) if each.setting == setting), "")

    @property
    def naive_times(self) -> list[tuple[str, str]]:
        """(role, column) of the times that do not name their zone."""
        times = (("events", "timestamp"), ("events", "known_at"), ("items", "created_at"))
        mapped = [(role, column) for role, setting in times if (column := self.column(role, setting))]
        return [(role, column) for role, column in mapped if self.stats(role, column).zoned not in (None, 1)]

    @property
    def resolved_time_zone(self) -> str:
        """The zone of the naive times: the one that was given, or UTC if they are only dates of items."""
        days = [role == "items" and self.stats(role, column).is_date for role, column in self.naive_times]
        return self.time_zone or "UTC" * (bool(days) and all(days))

    def table(self, role: str) -> TableSurvey:
        return self.survey.tables[self.roles[role]]

    def stats(self, role: str, column: str) -> ColumnStats:
        return self.table(role).columns[column]
