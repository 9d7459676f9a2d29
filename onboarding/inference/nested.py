"""Logs whose items are inside a column: lists of objects as analytics and shops export them, or lists of ids."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from onboarding.inference.vocabulary import SUBJECT_WORDS, is_id, name_words
from onboarding.survey.statistics import ColumnStats
from onboarding.survey.survey import Survey, TableSurvey
from rankline.io.sql import identifier

SAMPLED_VALUES = 200
MAX_LISTS = 4  # inside of each other
MAX_OTHERS = 20  # further values of an element
MIN_SHARE = 0.9  # of the values that have to be lists of ids
MIN_SEVERAL = 0.3  # share of them that hold two ids or more
ID = r"""[^][(){}'",;|\s]+"""  # in a list of ids, however it is written
JUDGED = r"(\S+-[01]\s+)*\S+-[01]"  # N55-1 N35-0, as MIND writes what was clicked and what was not
LISTED_WORDS = frozenset(["basket", "cart", "bought", "purchased", "clicked", "viewed", "impressions", "aid", "goods"])

Keys = tuple[str, ...]  # from an object to a value inside it


class NestedItems(NamedTuple):
    """Where the ids of items are inside a column."""

    column: str
    writing: str  # typed (by the source), json (in a text), ids (a text with ids), judged (a text such as N55-1 N35-0)
    lists: tuple[Keys, ...] = ((),)  # to the first list from the column, to each further one from an element
    key: Keys = ()  # to the id from an element of the last list; none if the elements are ids
    parameter: str = ""  # the key that says so, where elements are pairs such as {"key": "item_id", "value": "i1"}
    others: tuple[tuple[int, Keys], ...] = ()  # further values: of the elements of which list, and the keys to it

    @property
    def description(self) -> str:
        """What the column holds, in words."""
        path = ".".join([self.column, *(".".join(keys) for keys in self.lists if keys)])
        return f"lists of {'objects' if self.key else 'ids'} ({path})"


def find_nested_items(survey: Survey, log: TableSurvey) -> NestedItems | None:
    """The column of a log whose lists name the items; None if there is none."""
    best: tuple[float, NestedItems | None] = (0.0, None)
    for name, stats in log.columns.items():
        if stats.times or stats.numbers > 0.5 or not stats.distinct or stats.characters > 50_000:
            continue
        texts = _sample(survey, log, stats)
        if stats.objects >= 0.5 or stats.kind in ("list", "object"):
            values = [_parsed(text) for text in texts]
            score, nested = _in_objects(name, "json" if stats.kind == "text" else "typed", values)
        else:
            score, nested = 0.0, None
        if not nested and (writing := _listed_ids(name, stats, texts)):
            score, nested = (1.0 if writing == "judged" else 0.4), NestedItems(name, writing)
        if score > best[0]:
            best = score, nested
    return best[1]


def _sample(survey: Survey, log: TableSurvey, stats: ColumnStats) -> list[str]:
    column = identifier(stats.name)
    value = column if stats.kind == "text" else f"CAST(to_json({column}) AS VARCHAR)"
    rows = survey.db.execute(
        f"SELECT {value} FROM {identifier(log.name)} WHERE {column} IS NOT NULL LIMIT {SAMPLED_VALUES}"
    ).fetchall()
    return [str(text) for (text,) in rows]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


class _Place(NamedTuple):
    """Where a plain value is: the lists around it, and the keys to it from an element of the last one."""

    lists: tuple[Keys, ...]
    key: Keys


def _in_objects(name: str, writing: str, values: list[Any]) -> tuple[float, NestedItems | None]:
    """Where objects in lists say the item, and how likely it is."""
    counts: Counter[_Place] = Counter()
    parameters: dict[tuple[_Place, str], int] = {}
    for value in values:
        for place, plain, pair in _plain_values(value):
            if pair and plain is not None:
                parameters[place, pair] = parameters.get((place, pair), 0) + 1
            counts[place] += plain is not None
    scores = {place: _item_score(place.key[-1]) for place in counts if place.key and place.lists}
    best = max(scores, key=lambda place: (scores[place], counts[place]), default=None)
    if best and scores[best] > 0:
        others = _others(best, counts)
        return scores[best], NestedItems(name, writing, best.lists, best.key, others=others)
    named = {each: _item_score(each[1]) for each in parameters}
    chosen = max(named, key=lambda each: (named[each], parameters[each]), default=None)
    if chosen and named[chosen] > 0:
        return named[chosen], NestedItems(name, writing, chosen[0].lists, chosen[0].key, parameter=chosen[1])
    return 0.0, None


def _others(item: _Place, counts: Counter[_Place]) -> tuple[tuple[int, Keys], ...]:
    """The plain values beside the item: of its own element, and of the elements around it."""
    others = []
    for place in counts:
        depth = len(place.lists)
        if depth and place.key and place != item and place.lists == item.lists[:depth]:
            others.append((depth, place.key))
    return tuple(others[:MAX_OTHERS])


def _plain_values(
    value: Any, lists: tuple[Keys, ...] = (), keys: Keys = (), pair: str = ""
) -> Iterator[tuple[_Place, Any, str]]:
    """The plain values inside a value, where they are, and the parameter whose value they are."""
    if isinstance(value, dict):
        named = value.get("key") if "value" in value else ""
        for key, each in value.items():
            is_value = key == "value" and isinstance(named, str)
            yield from _plain_values(each, lists, (*keys, key), str(named) if is_value else pair)
    elif isinstance(value, list):
        for each in value if len(lists) < MAX_LISTS else ():
            yield from _plain_values(each, (*lists, keys), (), pair)
    else:
        yield _Place(lists, keys), value, pair


def _item_score(key: str) -> float:
    """How likely a key of objects is the item's id; 0 if it is none."""
    words = name_words(key)
    if not is_id(key):
        return 0.6 if len(words) == 1 and words & (SUBJECT_WORDS["item"] | LISTED_WORDS) else 0.0
    return 1.0 if words & SUBJECT_WORDS["item"] else 0.5 if words <= {"id", "sku", "asin", "isbn"} else 0.0


def _listed_ids(name: str, stats: ColumnStats, texts: list[str]) -> str:
    """How a column writes lists of ids of items: typed, ids or judged; empty if it does not."""
    values = [text for text in texts if text.strip()]
    several = [text for text in values if len(re.findall(ID, text)) > 1]
    if len(several) < max(MIN_SEVERAL * len(values), 1):
        return ""
    if sum(re.fullmatch(JUDGED, text.strip()) is not None for text in values) > MIN_SHARE * len(values):
        return "judged"
    words = {word.removesuffix("s") for word in name_words(name)} | name_words(name)
    if not words & (SUBJECT_WORDS["item"] | LISTED_WORDS) or stats.objects > 0.5:
        return ""
    ids = [re.findall(ID, text) for text in values]
    are_ids = [all(re.search(r"\d", each) for each in row) or text[0] in "[({" for row, text in zip(ids, values)]
    if sum(are_ids) < MIN_SHARE * len(values) or not _recur_elsewhere(ids):
        return ""
    return "typed" if stats.kind == "list" else "ids"


def _recur_elsewhere(ids: list[list[str]]) -> bool:
    """Whether ids are in several places of lists, which parts of one id are not."""
    if len({len(row) for row in ids}) > 1:
        return True
    first, second = ({row[place] for row in ids} for place in (0, 1))
    return len(first & second) > 0.3 * min(len(first), len(second))
