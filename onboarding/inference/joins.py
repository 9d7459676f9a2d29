"""Logs in two tables: the lines of orders, and who ordered them."""

from __future__ import annotations

from typing import NamedTuple

from onboarding.inference.keys import MIN_DESCRIBES, best_id, could_reference, find_history_key, valid_from
from onboarding.inference.vocabulary import name_score
from onboarding.survey.survey import Survey, TableSurvey

SOME, MOST = 0.4, 0.5  # the confidence of an id's column; the share of the lines' orders that the other table has


class Join(NamedTuple):
    """The table with the items, that with the users, and the columns that join them."""

    lines: str
    lines_key: str
    orders: str
    orders_key: str


class History(NamedTuple):
    """The columns of a table of prices over time."""

    item: str
    price: str
    time: str


def find_history(survey: Survey, log: TableSurvey, table: TableSurvey, item: str) -> History | None:
    """The columns of a table with the prices of the log's items over time; None for other tables."""
    prices = [name for name in table.columns if name_score(name, "price") > MIN_DESCRIBES]
    key = find_history_key(survey, log, table, item) if prices else ""
    return History(key, prices[0], valid_from(table)) if key else None


def find_join(survey: Survey, log: TableSurvey) -> Join | None:
    """The two tables that make a log of users and items, of which ``log`` is one; None if it has both, or neither."""
    has_user, has_item = (best_id(log, subject)[1] > SOME for subject in ("user", "item"))
    if has_user == has_item:
        return None
    for other in survey.tables.values():
        lines, orders = (other, log) if has_user else (log, other)
        if other is log or best_id(lines, "user")[1] > SOME or best_id(orders, "item")[1] > SOME:
            continue
        item, user = best_id(lines, "item")[0], best_id(orders, "user")[0]
        if item and user and (keys := _shared_key(survey, lines, orders, {item, user})):
            return Join(lines.name, keys[0], orders.name, keys[1])
    return None


def _shared_key(survey: Survey, lines: TableSurvey, orders: TableSurvey, others: set[str]) -> tuple[str, str] | None:
    """The column of the lines that names an order, and the orders' key."""
    free = {name: stats for name, stats in orders.columns.items() if name not in others and not stats.times}
    keys = [name for name, stats in free.items() if stats.is_unique]
    columns = [name for name, stats in lines.columns.items() if not stats.is_unique and name not in others]
    pairs = [(column, key) for key in keys for column in columns if could_reference(column, key)]
    shares = {pair: survey.overlap(lines.name, pair[0], orders.name, pair[1]) for pair in pairs}
    best = max(shares, key=lambda pair: shares[pair], default=None)
    return best if best and shares[best] > MOST else None
