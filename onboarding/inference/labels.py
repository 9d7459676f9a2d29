"""Labels: what the columns and kinds of events say about the items, and which of it makes a positive."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from components.ingest.expressions import BOOLEAN_WORDS, MISSING_WORDS, sql_list
from onboarding.inference.event_words import LABEL_WEIGHTS, NEITHER, event_label
from onboarding.inference.schema import SchemaMapping
from onboarding.inference.vocabulary import name_tokens
from onboarding.survey.statistics import ColumnStats
from rankline.io.sql import fetch_row, identifier
from rankline.labels import IMPRESSION, Label

# largest rating seen -> the scale it is of, and the rating from which an item counts as liked
RATING_SCALES = ((1, -1, 1), (5, 1, 4), (6, 1, 5), (7, 1, 5), (10, 1, 7), (100, 0, 70))
# negative label -> what an event is that does not have it, if the log names nothing else
OPPOSITES = {"skip": "play", "return": "purchase", "dislike": "like", "remove": "cart"}
AFTER = "click"  # what a purchase or a conversion may only follow
LATER = ("purchase", "conversion")
MANY_ZEROS = 0.3  # share of the ratings that a 0 below a scale from 1 has where it stands for none


@dataclass(frozen=True)
class EventLabels:
    """The labels to declare, their columns, and the label of each value of the column of event types."""

    labels: dict[str, Label]
    columns: dict[str, str]
    event_type: str = ""
    event_types: dict[str, str] = field(default_factory=dict)
    shown: str = ""  # the column of yes and no of which a yes is an impression

    def values(self, label: str) -> list[str]:
        """The kinds of events that have a label, that are impressions, or that say nothing ("")."""
        return [value for value, each in self.event_types.items() if each == label]


def event_labels(mapping: SchemaMapping) -> EventLabels:
    """The labels of a source's events. None are declared where every event is a positive, or a rating of 1 to 5."""
    columns = {
        each.setting.partition(".")[2]: each.column
        for each in mapping.column_mappings.get("events", ())
        if each.setting.startswith("labels.")
    }
    event_type = mapping.column("events", "event_type")
    types = _event_types(mapping, event_type) if event_type else {}
    shown = ""
    if _views_are_impressions(mapping, columns, types):
        shown = columns.pop("view", "")
        types = {value: IMPRESSION if label == "view" else label for value, label in types.items()}
    if mapping.kind == "labels" or _is_known_without(mapping, columns, types):
        return EventLabels({}, columns, event_type, types)
    if not types and len(columns) == 1 and (label := next(iter(columns))) in OPPOSITES:
        event_type, columns = columns[label], {}
        types = _opposite_types(mapping, event_type, label)
    labels = {label: _of_column(mapping, label, column) for label, column in columns.items()}
    labels |= {label: Label(weight=weight_of(label)) for label in types.values() if label not in ("", IMPRESSION)}
    labels = _with_positives(labels)
    if not labels:  # nothing makes a positive
        return EventLabels({}, {}, "", {})
    events = EventLabels(labels, columns, event_type, types, shown)
    return replace(events, labels=_in_order(mapping, labels, events))


def unrated_numbers(mapping: SchemaMapping) -> list[float]:
    """The numbers of the rating that stand for none: -1 where no other is below 0, and 0 below a scale from 1."""
    column = mapping.column("events", "labels.rating")
    if not column or (mapping.stats("events", column).high or 0) <= 1:
        return []
    unrated: list[float] = []
    stats = mapping.stats("events", column)
    if stats.low == -1 and _lowest(mapping, column, above=-1) >= 0:
        unrated.append(-1)
    number = _number(column)
    query = (
        f"SELECT avg(CAST({number} = 0 AS INTEGER)), min({number}) FILTER ({number} > 0), "
        f"bool_and({number} = floor({number})) FROM {identifier(mapping.roles['events'])} WHERE {number} >= 0"
    )
    zeros, least, are_whole = fetch_row(mapping.survey.db, query)
    if (stats.low or 0) >= -len(unrated) and are_whole and least == 1 and MANY_ZEROS < (zeros or 0) < 1:
        unrated.append(0)
    return unrated


def lowest_rating(mapping: SchemaMapping) -> float:
    """The lowest rating that stands for one."""
    column, unrated = mapping.column("events", "labels.rating"), unrated_numbers(mapping)
    return _lowest(mapping, column, above=max(unrated)) if unrated else mapping.stats("events", column).low or 0.0


def _lowest(mapping: SchemaMapping, column: str, *, above: float) -> float:
    number = _number(column)
    query = f"SELECT min({number}) FROM {identifier(mapping.roles['events'])} WHERE {number} > {above}"
    return float(fetch_row(mapping.survey.db, query)[0])


def _number(column: str) -> str:
    return f"TRY_CAST(CAST({identifier(column)} AS VARCHAR) AS DOUBLE)"


def weight_of(label: str) -> float:
    """The weight of a label in learning; 1 if its name says nothing."""
    return LABEL_WEIGHTS.get(label, 1.0)


def _is_known_without(mapping: SchemaMapping, columns: dict[str, str], types: dict[str, str]) -> bool:
    """Whether the labels need no declaration: none, judgments, or ratings from 1 to 5 alone."""
    if types or set(columns) - {"rating", "relevance"} or len(columns) > 1:
        return False
    if "rating" not in columns:
        return True
    stats = mapping.stats("events", columns["rating"])
    if unrated_numbers(mapping):
        return (stats.high or 0) <= 5
    return stats.low is None or stats.high is None or (stats.low >= 1 and 2 <= stats.high <= 5)


def _event_types(mapping: SchemaMapping, column: str) -> dict[str, str]:
    """Value of the event type -> its label, impression, or "" where it says nothing of an item or is not known."""
    rows = mapping.survey.values(mapping.roles["events"], column)
    types = {value: event_label(value) or NEITHER for value in rows}
    name, marks = event_label(column), [value for value in rows if value not in MISSING_WORDS]
    if len(marks) == 1 and name in LABEL_WEIGHTS and mapping.stats("events", column).filled < 1:  # a mark, or nothing
        return {marks[0]: name, "": IMPRESSION}
    return types


def _views_are_impressions(mapping: SchemaMapping, columns: dict[str, str], types: dict[str, str]) -> bool:
    """Whether a view is no more than that the item was shown, as in logs of ads and lists: most are not clicked."""
    names = {*columns, *types.values()}
    if not {"view", "click"} <= names or {IMPRESSION, "cart", "purchase"} & names:
        return False
    log = identifier(mapping.roles["events"])

    def rows(label: str) -> int:
        conditions = [_is_true(columns[label])] if label in columns else []
        if values := [value for value, each in types.items() if each == label]:
            event_type = identifier(mapping.column("events", "event_type"))
            conditions.append(f"coalesce(trim(CAST({event_type} AS VARCHAR)) IN {sql_list(values)}, false)")
        return int(fetch_row(mapping.survey.db, f"SELECT count(*) FILTER ({' OR '.join(conditions)}) FROM {log}")[0])

    return rows("view") > rows("click")


def _opposite_types(mapping: SchemaMapping, column: str, label: str) -> dict[str, str]:
    """The yes and no of a negative label as two kinds of events: of plays that were skipped, the others are plays."""
    values = [value.strip() for value in mapping.survey.values(mapping.roles["events"], column)]
    if mapping.stats("events", column).kind == "number":
        values = [value.removesuffix(".0") for value in values]  # as ingest reads them
    labels = dict.fromkeys(BOOLEAN_WORDS["true"], label) | dict.fromkeys(BOOLEAN_WORDS["false"], OPPOSITES[label])
    return {value: labels.get(value.lower(), NEITHER) for value in values}


def _of_column(mapping: SchemaMapping, label: str, column: str) -> Label:
    """The label of a column, by its values."""
    stats = mapping.stats("events", column)
    if label == "rating":
        return _rating(replace(stats, low=lowest_rating(mapping)) if unrated_numbers(mapping) else stats)
    if label == "relevance":
        return Label(type="graded")
    if label == "dwell":
        return Label(type="continuous", weight=0)
    # who reviews without a verified purchase says no less of the item
    weight = 0 if "verified" in name_tokens(column) else weight_of(label)
    if stats.low == -1 and stats.high == 1:
        return Label(type="graded", weight=weight, at_least=1, scale=(-1, 1))
    return Label(type=_value_type(stats), weight=weight)


def _value_type(stats: ColumnStats) -> Literal["binary", "count", "continuous"]:
    if stats.distinct <= 2 and (stats.flags > 0.9 or stats.kind == "flag"):
        return "binary"
    return "count" if stats.is_integer else "continuous"


def _rating(stats: ColumnStats) -> Label:
    """A rating with its scale; the best one weighs 1."""
    low, high = stats.low or 0.0, stats.high or 0.0
    for most, least, liked in RATING_SCALES:
        if high <= most and low >= -most:
            if low >= 0 and high <= 1:
                return Label(type=_value_type(stats))
            bottom = float(-most if low < 0 else min(least, low))
            liked_from = None if low < 0 and most > 1 else float(liked)
            return Label(type="graded", weight=round(1 / most, 3), at_least=liked_from, scale=(bottom, float(most)))
    return Label(type="continuous", at_quantile=0.5)


def _with_positives(labels: dict[str, Label]) -> dict[str, Label]:
    """The labels, the strongest positive of weight 1 or more; none if there is no positive among them."""
    strongest = max((label.weight for label in labels.values() if label.type != "graded"), default=0.0)
    if not any(label.weight > 0 for label in labels.values()):
        undecided = {name: label for name, label in labels.items() if label.weight == 0}
        changes = {name: _deciding(label) for name, label in undecided.items()}
        return {**labels, **changes} if changes else {}
    if 0 < strongest < 1 and not any(label.type == "graded" for label in labels.values()):
        factor = 1 / strongest
        scaled = {name: max(label.weight, label.weight * factor) for name, label in labels.items()}
        return {name: label.model_copy(update={"weight": scaled[name]}) for name, label in labels.items()}
    return labels


def _deciding(label: Label) -> Label:
    """A label that decides what a positive is, as nothing else does: of an amount, its larger half."""
    limit = 0.5 if label.type == "continuous" else None
    return label.model_copy(update={"weight": 1.0, "at_quantile": limit})


def _in_order(mapping: SchemaMapping, labels: dict[str, Label], events: EventLabels) -> dict[str, Label]:
    """The labels, with what has to happen first where the sample never shows one without the other."""
    columns, kinds = events.columns, set(events.event_types.values())
    follows = set[str]()
    if AFTER in columns:
        follows = {
            label for label in LATER if label in columns and _only_after(mapping, columns[label], columns[AFTER])
        }
    elif {AFTER, IMPRESSION} <= kinds:
        follows = {label for label in LATER if label in kinds and _in_clicked_requests(mapping, events, label)}
    return {
        name: label.model_copy(update={"after": AFTER}) if name in follows else label for name, label in labels.items()
    }


def _in_clicked_requests(mapping: SchemaMapping, events: EventLabels, label: str) -> bool:
    """Whether a kind of event is of items that were clicked in the same request, as far as the sample knows them."""
    request, item = mapping.column("events", "request_id"), mapping.column("events", "item_id")
    if not request or not item:
        return False
    has = {
        each: f"trim(CAST({identifier(events.event_type)} AS VARCHAR)) IN {sql_list(events.values(each))}"
        for each in (IMPRESSION, AFTER, label)
    }
    query = (
        "SELECT count(*), count(*) FILTER (NOT clicked) FROM ("
        f"SELECT bool_or({has[label]}) AS late, bool_or({has[AFTER]}) AS clicked, bool_or({has[IMPRESSION]}) AS shown "
        f"FROM {identifier(mapping.roles['events'])} WHERE {identifier(request)} IS NOT NULL "
        f"GROUP BY {identifier(request)}, {identifier(item)}) WHERE late AND shown"
    )
    both, alone = fetch_row(mapping.survey.db, query)
    return bool(both) and not alone


def _only_after(mapping: SchemaMapping, later: str, first: str) -> bool:
    """Whether the sample has the one, and never without the other."""
    has_later, has_first = _is_true(later), _is_true(first)
    query = (
        f"SELECT count(*) FILTER ({has_later}), count(*) FILTER ({has_later} AND NOT {has_first}) "
        f"FROM {identifier(mapping.roles['events'])}"
    )
    both, alone = fetch_row(mapping.survey.db, query)
    return bool(both) and not alone


def _is_true(column: str) -> str:
    text = f"lower(trim(CAST({identifier(column)} AS VARCHAR)))"
    return f"coalesce({text} IN {sql_list(BOOLEAN_WORDS['true'])}, false)"
