"""Roles: which table is the log, and which describe its items, users and queries."""

from __future__ import annotations

from collections.abc import Mapping

from onboarding.inference.interpretation import ROLES
from onboarding.inference.keys import alike, best_id, key_of, linked
from onboarding.inference.names import WORDS, is_id, words_of
from onboarding.survey import Seen, Survey
from rankline.errors import UsageError


def roles_of(survey: Survey, given: Mapping[str, str]) -> dict[str, str]:
    """Role -> table: the log first, then the tables whose keys it names."""
    roles = dict(given)
    free = [name for name in survey.tables if name not in roles.values()]
    if "events" not in roles:
        scores = {name: _eventful(survey, survey.tables[name]) for name in free}
        best = max(scores, key=lambda name: scores[name], default="")
        if not best:
            return roles
        roles["events"] = best
        free.remove(best)
    log = survey.tables[roles["events"]]
    scored = []
    for role, subject in (("items", "item"), ("users", "user"), ("queries", "query")):
        if role not in roles:
            scored += [(_descriptive(survey, log, survey.tables[name], subject), role, name) for name in free]
    for score, role, name in sorted(scored, reverse=True):
        if score >= 1 and role not in roles and name not in roles.values():
            roles[role] = name
    for name in [name for name in free if name not in roles.values()]:
        table = survey.tables[name]  # nothing is called as we know it, but the log's values are this table's keys
        if any(linked(survey, log, column, table) for column in log.columns):
            wordy = any(facts.is_text and facts.words > 2 for facts in table.columns.values())
            role = "items" if wordy else "users"
            if role not in roles:
                roles[role] = name
    return {role: roles[role] for role in ROLES if role in roles}


def _eventful(survey: Survey, table: Seen) -> float:
    """How much a table looks like a log: it names people or queries and things, at moments, again and again."""
    score = 2.0 * bool(words_of(table.name) & WORDS["event"])
    named = [subject for subject in ("user", "item", "query") if best_id(table, subject)[1] > 0.4]
    score += 1.5 * len(named) if len(named) > 1 else 0.0
    score += any(facts.times for facts in table.columns.values()) * 1.0
    if any(facts.unique and is_id(name) for name, facts in table.columns.items()):
        score -= 1.0  # events have no key of their own, or one that nobody needs
    for other in survey.tables.values():
        if other.name != table.name:
            keys = [key for key, facts in other.columns.items() if facts.unique]
            score += any(
                survey.overlap(table.name, column, other.name, key) > 0.5
                for key in keys[:3]
                for column, facts in table.columns.items()
                if not facts.unique and facts.distinct > 1 and alike(column, key)
            )
    return score


def _descriptive(survey: Survey, log: Seen, table: Seen, subject: str) -> float:
    """How much a table describes what the log calls a user, an item or a query."""
    score = 2.0 * bool(words_of(table.name) & WORDS[subject])
    column, sure = best_id(log, subject)
    key = key_of(survey, log, table, column)
    if key and sure > 0.4:
        shares = survey.overlap(log.name, column, table.name, key), survey.overlap(table.name, key, log.name, column)
        score += 2.5 * max(shares) * alike(column, key)
        score += 0.5 * table.columns[key].unique
    elif not key:
        score -= 1.5
    if subject == "user" and "user" not in {s for s in WORDS if words_of(table.name) & WORDS[s]}:
        score -= 0.5
    return score


def table_named(survey: Survey, told: str) -> str:
    """The name of the table that a person names by its name or place.

    Raises:
        UsageError: there is none.
    """
    for name, table in survey.tables.items():
        if told in (name, table.place, table.place.rsplit("/", 1)[-1]):
            return name
    raise UsageError(
        f"the source has no table {told!r}",
        expected="one of " + ", ".join(table.place or name for name, table in survey.tables.items()),
        found=told,
        where=survey.source,
    )
