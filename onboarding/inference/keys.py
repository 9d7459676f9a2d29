"""Keys: the columns by which one table names the rows of another."""

from __future__ import annotations

from onboarding.inference.names import WORDS, is_id, tokens_of, words_of
from onboarding.survey import Seen, Survey
from onboarding.survey.statistics import Facts


def key_of(survey: Survey, log: Seen, table: Seen, column: str) -> str:
    """The column of a table that names its rows: its values are the log's, each once."""
    best, found = 0.0, ""
    for name, facts in table.columns.items():
        if facts.characters > 80 or facts.distinct < 2 or (facts.numbers > 0.9 and not facts.whole) or facts.times:
            continue
        score = facts.distinct / max(facts.values, 1) * facts.filled
        if score < 0.9:
            continue
        score += 0.3 * (name == column) + 0.2 * is_id(name)
        score += survey.overlap(log.name, column, table.name, name) if column else 0.0
        if score > best:
            best, found = score, name
    return found


def linked(survey: Survey, log: Seen, column: str, table: Seen) -> str:
    """The key of a table that a column of the log plainly holds; small whole numbers are plain nothing."""
    facts = log.columns[column]
    if facts.times or facts.unique or facts.distinct < 20 or (facts.numbers > 0.5 and not is_id(column)):
        return ""
    key = key_of(survey, log, table, column)
    return key if key and survey.overlap(log.name, column, table.name, key) > 0.9 else ""


def alike(column: str, key: str) -> bool:
    """Could a column name another table's key? By a word in common, or as both are names of something."""
    return column == key or bool(words_of(column) & words_of(key)) or is_id(column)


def id_score(name: str, facts: Facts, subject: str) -> float:
    """How much a column looks like it names a user, an item or a query."""
    words = words_of(name)
    if not words & WORDS[subject] or facts.times or facts.distinct < 2 or facts.characters > 80:
        return 0.0
    if facts.numbers > 0.95 and not facts.whole:
        return 0.0
    plain = tokens_of(name)
    if is_id(name):
        return 1.0
    if len(plain) == 1:
        return 0.7 if facts.words < 3 else 0.3
    return 0.35


def best_id(table: Seen, subject: str) -> tuple[str, float]:
    """The column of a table that most likely names a user, an item or a query, and how likely."""
    scores = {name: id_score(name, facts, subject) for name, facts in table.columns.items()}
    if (most := max(scores.values(), default=0.0)) <= 0:
        return "", 0.0
    return next(name for name, score in scores.items() if score == most), most
