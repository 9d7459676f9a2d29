"""Keys: the columns by which one table identifies the rows of another."""

from __future__ import annotations

from onboarding.inference.vocabulary import SUBJECT_WORDS, is_id, name_score, name_tokens, name_words
from onboarding.survey.statistics import ColumnStats
from onboarding.survey.survey import Survey, TableSurvey
from rankline.io.sql import fetch_row, identifier

MAX_KEY_CHARACTERS = 80
MIN_DESCRIBES = 0.7  # score of a name that stands for a setting as a whole


def find_key(survey: Survey, log: TableSurvey, table: TableSurvey, column: str) -> str:
    """The column of a table that identifies its rows: unique, and with the values of the log's ``column``."""
    best, best_column = 0.0, ""
    for name, stats in table.columns.items():
        is_fraction = stats.numbers > 0.9 and not stats.is_integer
        if stats.characters > MAX_KEY_CHARACTERS or stats.distinct < 2 or is_fraction or stats.times:
            continue
        score = stats.distinct / max(stats.values, 1) * stats.filled
        if score < 0.9:
            continue
        score += 0.3 * (name == column) + 0.2 * is_id(name)
        score += survey.overlap(log.name, column, table.name, name) if column else 0.0
        if score > best:
            best, best_column = score, name
    return best_column or find_history_key(survey, log, table, column)


def find_history_key(survey: Survey, log: TableSurvey, table: TableSurvey, column: str) -> str:
    """The key of items of which a table has a row for each price or version; empty for other tables."""
    time, describes = valid_from(table), ("price", "title", "text", "category")
    is_described = any(name_score(name, setting) > MIN_DESCRIBES for name in table.columns for setting in describes)
    if not column or not time or not is_described or best_id(table, "user")[1] > 0:
        return ""
    for name, stats in table.columns.items():
        repeats = name != time and stats.filled == 1 and 1 < stats.distinct < stats.values and not stats.times
        if repeats and could_reference(column, name) and survey.overlap(log.name, column, table.name, name) > 0.5:
            pair = f"{identifier(name)}, {identifier(time)}"
            (count,) = fetch_row(
                survey.db, f"SELECT count(*) FROM (SELECT DISTINCT {pair} FROM {identifier(table.name)})"
            )
            if count > 0.95 * stats.values:
                return name
    return ""


def valid_from(table: TableSurvey) -> str:
    """The column of a table that says from when a row holds; empty without one."""
    named = [
        name
        for name, stats in table.columns.items()
        if name_score(name, "valid_from") > MIN_DESCRIBES and (stats.times or stats.numbers > 0.95)
    ]
    return max(named, key=lambda name: name_score(name, "valid_from"), default="")


def linked_key(survey: Survey, log: TableSurvey, column: str, table: TableSurvey) -> str:
    """The key of a table that a column of the log refers to; numbers count only in a column named like an id."""
    stats = log.columns[column]
    if stats.times or stats.is_unique or stats.distinct < 20 or (stats.numbers > 0.5 and not is_id(column)):
        return ""
    key = find_key(survey, log, table, column)
    return key if key and survey.overlap(log.name, column, table.name, key) > 0.9 else ""


def could_reference(column: str, key: str) -> bool:
    """Whether a column may refer to another table's key: they share a word, or the column is named like an id."""
    return column == key or bool(name_words(column) & name_words(key)) or is_id(column)


def id_score(name: str, stats: ColumnStats, subject: str) -> float:
    """How likely a column identifies a user, an item or a query, from 0 to 1."""
    words = name_words(name)
    if not words & SUBJECT_WORDS[subject] or stats.times or stats.distinct < 2:
        return 0.0
    is_number = stats.numbers > 0.95 and not stats.is_integer
    if is_number and is_id(name) and stats.kind == "text" and stats.characters > 14:
        is_number = False  # two numbers with a point between them, such as the client of web analytics
    if stats.characters > MAX_KEY_CHARACTERS or is_number or stats.objects > 0.5 or stats.kind == "list":
        return 0.0
    if is_id(name):
        return 1.0
    if len(name_tokens(name)) == 1:
        return 0.7 if stats.words < 3 else 0.3
    return 0.35


def best_id(table: TableSurvey, subject: str) -> tuple[str, float]:
    """The column of a table that most likely identifies a user, an item or a query, and its score."""
    scores = {name: id_score(name, stats, subject) for name, stats in table.columns.items()}
    best = max(scores, key=lambda name: scores[name], default="")
    return (best, scores[best]) if best and scores[best] > 0 else ("", 0.0)
