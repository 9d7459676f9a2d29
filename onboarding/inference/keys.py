"""Keys: the columns by which one table names the rows of another."""

from __future__ import annotations

from onboarding.inference.names import SUBJECT_WORDS, is_id, name_tokens, name_words
from onboarding.survey import Survey, TableSurvey
from onboarding.survey.statistics import ColumnStats


def find_key(survey: Survey, log: TableSurvey, table: TableSurvey, column: str) -> str:
    """The column of a table that names its rows: its values are the log's, each once."""
    best, best_column = 0.0, ""
    for name, stats in table.columns.items():
        if stats.characters > 80 or stats.distinct < 2 or (stats.numbers > 0.9 and not stats.is_integer) or stats.times:
            continue
        score = stats.distinct / max(stats.values, 1) * stats.filled
        if score < 0.9:
            continue
        score += 0.3 * (name == column) + 0.2 * is_id(name)
        score += survey.overlap(log.name, column, table.name, name) if column else 0.0
        if score > best:
            best, best_column = score, name
    return best_column


def linked_key(survey: Survey, log: TableSurvey, column: str, table: TableSurvey) -> str:
    """The key of a table that a column of the log plainly holds; small whole numbers are plain nothing."""
    stats = log.columns[column]
    if stats.times or stats.is_unique or stats.distinct < 20 or (stats.numbers > 0.5 and not is_id(column)):
        return ""
    key = find_key(survey, log, table, column)
    return key if key and survey.overlap(log.name, column, table.name, key) > 0.9 else ""


def could_reference(column: str, key: str) -> bool:
    """Could a column name another table's key? By a word in common, or as both are names of something."""
    return column == key or bool(name_words(column) & name_words(key)) or is_id(column)


def id_score(name: str, stats: ColumnStats, subject: str) -> float:
    """How much a column looks like it names a user, an item or a query."""
    words = name_words(name)
    if not words & SUBJECT_WORDS[subject] or stats.times or stats.distinct < 2 or stats.characters > 80:
        return 0.0
    if stats.numbers > 0.95 and not stats.is_integer:
        return 0.0
    tokens = name_tokens(name)
    if is_id(name):
        return 1.0
    if len(tokens) == 1:
        return 0.7 if stats.words < 3 else 0.3
    return 0.35


def best_id(table: TableSurvey, subject: str) -> tuple[str, float]:
    """The column of a table that most likely names a user, an item or a query, and how likely."""
    scores = {name: id_score(name, stats, subject) for name, stats in table.columns.items()}
    if (most := max(scores.values(), default=0.0)) <= 0:
        return "", 0.0
    return next(name for name, score in scores.items() if score == most), most
