"""Roles: which table is the event log, and which ones describe items, users and queries."""

from __future__ import annotations

from collections.abc import Mapping

from onboarding.inference.keys import best_id, could_reference, find_key, linked_key
from onboarding.inference.schema import ROLES
from onboarding.inference.vocabulary import SUBJECT_WORDS, is_id, name_words
from onboarding.survey.survey import Survey, TableSurvey
from rankline.errors import UsageError


def assign_roles(survey: Survey, given: Mapping[str, str]) -> dict[str, str]:
    """Role -> table: the event log first, then the tables whose keys it refers to."""
    roles = dict(given)
    free = [name for name in survey.tables if name not in roles.values()]
    if "events" not in roles:
        scores = {name: _event_score(survey, survey.tables[name]) for name in free}
        best = max(scores, key=lambda name: scores[name], default="")
        if not best:
            return roles
        roles["events"] = best
        free.remove(best)
    log = survey.tables[roles["events"]]
    scored = []
    for role, subject in (("items", "item"), ("users", "user"), ("queries", "query")):
        if role not in roles:
            scored += [(_description_score(survey, log, survey.tables[name], subject), role, name) for name in free]
    for score, role, name in sorted(scored, reverse=True):
        if score >= 1 and role not in roles and name not in roles.values():
            roles[role] = name
    for name in [name for name in free if name not in roles.values()]:
        # no name is a known one, but the log holds keys of this table
        table = survey.tables[name]
        if any(linked_key(survey, log, column, table) for column in log.columns):
            has_text = any(stats.is_text and stats.words > 2 for stats in table.columns.values())
            roles.setdefault("items" if has_text else "users", name)
    return {role: roles[role] for role in ROLES if role in roles}


def _event_score(survey: Survey, table: TableSurvey) -> float:
    """How much a table looks like an event log: repeated ids of users or queries and of items, with times."""
    score = 2.0 * bool(name_words(table.name) & SUBJECT_WORDS["event"])
    id_subjects = [subject for subject in ("user", "item", "query") if best_id(table, subject)[1] > 0.4]
    score += 1.5 * len(id_subjects) if len(id_subjects) > 1 else 0.0
    score += any(stats.times for stats in table.columns.values()) * 1.0
    if any(stats.is_unique and is_id(name) for name, stats in table.columns.items()):
        score -= 1.0  # events rarely have a key of their own
    for other in survey.tables.values():
        if other.name != table.name:
            keys = [key for key, stats in other.columns.items() if stats.is_unique]
            score += any(
                survey.overlap(table.name, column, other.name, key) > 0.5
                for key in keys[:3]
                for column, stats in table.columns.items()
                if not stats.is_unique and stats.distinct > 1 and could_reference(column, key)
            )
    return score


def _description_score(survey: Survey, log: TableSurvey, table: TableSurvey, subject: str) -> float:
    """How much a table looks like the description of the log's users, items or queries."""
    score = 2.0 * bool(name_words(table.name) & SUBJECT_WORDS[subject])
    column, confidence = best_id(log, subject)
    key = find_key(survey, log, table, column)
    if key and confidence > 0.4:
        shares = survey.overlap(log.name, column, table.name, key), survey.overlap(table.name, key, log.name, column)
        score += 2.5 * max(shares) * could_reference(column, key)
        score += 0.5 * table.columns[key].is_unique
    elif not key:
        score -= 1.5
    if subject == "user" and not name_words(table.name) & SUBJECT_WORDS["user"]:
        score -= 0.5
    return score


def find_table(survey: Survey, name_or_place: str) -> str:
    """The name of the table with this name or place.

    Raises:
        UsageError: there is none.
    """
    for name, table in survey.tables.items():
        if name_or_place in (name, table.place, table.place.rsplit("/", 1)[-1]):
            return name
    raise UsageError(
        f"the source has no table {name_or_place!r}",
        expected="one of " + ", ".join(table.place or name for name, table in survey.tables.items()),
        found=name_or_place,
        where=survey.source,
    )
