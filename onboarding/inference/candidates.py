"""Candidates: the settings that a column may stand for, by its name and values, each with a confidence and a reason.

Each rule looks at one column. For items, the first exclusive rule that applies decides; the others add up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from onboarding.inference.event_words import EVENT_WORDS, LABEL_WEIGHTS, event_label, named_label
from onboarding.inference.keys import find_history_key, find_key, id_score, valid_from
from onboarding.inference.recipe_kind import text_and_label_columns
from onboarding.inference.schema import KEY_SETTINGS, SchemaMapping
from onboarding.inference.vocabulary import SETTING_NAMES, SUBJECT_WORDS, is_id, name_score, name_tokens, name_words
from onboarding.survey.statistics import ColumnStats
from onboarding.survey.survey import TableSurvey

Candidate = tuple[str, float, str]  # setting, confidence, reason
PERSONAL = {
    "email", "phone", "mail", "address", "ssn", "password", "firstname", "lastname", "surname", "name", "ip",
}  # fmt: skip
AUXILIARY_WORDS = {
    "is", "was", "has", "did", "user", "item", "event", "verified", "num", "number", "n", "count", "cnt", "total", "of",
    "flag", "label",
}  # fmt: skip
WORD_OF_NAME = 0.6  # the score of a name of which only the last word fits
TARGET_NAMES = {"label", "target", "y", "outcome", "response", "标签"}  # of what a model of another kind has learned
FEW_VALUES = 4
MARKS = ("x", "*", "yes", "clicked", "bought")  # of what happened, where what did not is left empty
MAX_POSITION = 1_000
OTHER_NUMBERS = {
    "ticks": "numbers that are ticks of .NET", "filetime": "numbers that are file times of Windows",
    "excel": "numbers that are days of a sheet", "mixed": "numbers since 1970 beside times in ISO 8601",
}  # fmt: skip
SPLIT_NAMES = {"train", "valid", "validation", "dev", "test"}


@dataclass(frozen=True)
class Column:
    """A column with the table and the mapping it belongs to."""

    mapping: SchemaMapping
    table: TableSurvey
    name: str

    @property
    def stats(self) -> ColumnStats:
        """The statistics of its values."""
        return self.table.columns[self.name]

    @property
    def label_stats(self) -> ColumnStats:
        """The statistics of its values as those of a label: words for missing are none."""
        return self.mapping.stats("events", self.name)

    def score(self, setting: str) -> float:
        """How well its name fits a setting, from 0 to 1."""
        return name_score(self.name, setting)

    def values(self) -> dict[str, int]:
        """Its most frequent values and their rows."""
        return self.mapping.survey.values(self.table.name, self.name)


Rule = Callable[[Column], Iterable[Candidate]]


def column_candidates(mapping: SchemaMapping, role: str, name: str) -> list[Candidate]:
    """The candidates of a column of a role's table."""
    return list(_ROLE_RULES[role](Column(mapping, mapping.table(role), name)))


def _event_candidates(column: Column) -> Iterable[Candidate]:
    if column.mapping.kind == "labels" and (pair := text_and_label_columns(column.table)):
        return _text_or_label(column, pair)
    rules: tuple[Rule, ...] = (_ids, _references)
    rules += (_event_times,) if column.stats.times else _REST_OF_EVENTS
    return (candidate for rule in rules for candidate in rule(column))


def _text_or_label(column: Column, pair: tuple[str, str]) -> Iterator[Candidate]:
    stats = column.stats
    if column.name == pair[0]:
        yield "query_text", 0.9, f"texts of {stats.characters:.0f} characters on average"
    if column.name == pair[1]:
        yield "item_id", 0.9, f"{stats.distinct} distinct values beside texts: the labels"


def _ids(column: Column) -> Iterator[Candidate]:
    survey = column.mapping.survey
    for subject, role in (("user", "users"), ("item", "items"), ("query", "queries")):
        score = id_score(column.name, column.stats, subject)
        if not score:
            continue
        confidence, why = 0.65 * score, f"{column.stats.distinct:,} distinct values"
        if role in column.mapping.roles:
            other = column.mapping.table(role)
            if key := find_key(survey, column.table, other, column.name):
                share = survey.overlap(column.table.name, column.name, other.name, key)
                why = f"{share:.0%} of its {column.stats.distinct:,} values are in {other.name}.{key}"
                meeting = survey.meeting(column.table.name, column.name, other.name, key) if share < 0.5 else None
                if meeting and meeting.share > 0.9:
                    share = 0.9 * meeting.share
                    why += f" as they are; {meeting.left} is {meeting.right} ({', '.join(meeting.names)})"
                confidence += 0.34 * share
        elif score == 1.0:
            confidence += 0.2
        yield f"{subject}_id", confidence, why


def _references(column: Column) -> Iterator[Candidate]:
    """A column whose values are another table's keys refers to it, whatever its name."""
    stats, survey = column.stats, column.mapping.survey
    if stats.times or stats.is_unique or stats.distinct < 5:
        return
    for role in ("items", "users", "queries"):
        if role not in column.mapping.roles:
            continue
        other = column.mapping.table(role)
        key = find_key(survey, column.table, other, column.name)
        if key and (is_id(column.name) or stats.numbers < 0.5):
            share = survey.overlap(column.table.name, column.name, other.name, key)
            if share > 0.7:
                yield KEY_SETTINGS[role], 0.65 * share, f"{share:.0%} of its values are in {other.name}.{key}"


def _event_times(column: Column) -> Iterator[Candidate]:
    stats = column.stats
    named = 0.35 * bool(name_words(column.name) & SUBJECT_WORDS["time"])
    varied = 0.1 * (stats.distinct > 0.02 * stats.values)
    yield "timestamp", 0.5 + named + varied, describe_times(stats)
    if column.score("known_at") > 0.9:
        yield "known_at", 0.95, describe_times(stats)


def _time_of_day(column: Column) -> Iterator[Candidate]:
    if column.stats.clocks > 0.95:
        yield "time_of_day", 0.85 if name_words(column.name) & SUBJECT_WORDS["time"] else 0.6, "times of day"


def _ratings(column: Column) -> Iterator[Candidate]:
    """A number on a scale: users rate, queries have judgments."""
    if not (column.score("rating") or column.score("relevance")):
        return
    stats = column.stats
    steps = (stats.high or 0) - (stats.low or 0) + 1
    if stats.numbers <= 0.95 or stats.distinct > max(30, steps):
        return
    for label, of_queries in (("rating", False), ("relevance", True)):
        if score := column.score(label) * (1 if of_queries == (column.mapping.kind == "search") else 0.7):
            yield f"labels.{label}", 0.5 + 0.45 * score, f"{stats.distinct} distinct numbers{_range_text(stats)}"


def _amounts(column: Column) -> Iterator[Candidate]:
    """A time spent with the item, or a quantity of which those below zero are returns."""
    if not (column.score("dwell") or column.score("quantity")):
        return
    stats = column.stats
    if stats.numbers <= 0.95 or (stats.distinct <= 2 and (stats.low or 0) >= 0) or is_id(column.name):
        return
    if (stats.low or 0) >= 0 and (score := column.score("dwell")) > WORD_OF_NAME:
        yield "labels.dwell", 0.5 + 0.45 * score, f"amounts{_range_text(stats)}"
    if (stats.low or 0) < 0 and (score := column.score("quantity")) > WORD_OF_NAME:
        yield "labels.purchase", 0.5 + 0.4 * score, f"numbers{_range_text(stats)}: those below zero are returns"


def _happened(column: Column) -> Iterator[Candidate]:
    """Yes and no, or a count, of what may happen to an item: a click, a purchase, a dislike."""
    label = event_label(column.name)
    if label not in LABEL_WEIGHTS or is_id(column.name):
        return
    stats = column.stats
    tokens = name_tokens(column.name)
    is_whole = "_".join(word for word in tokens if word not in AUXILIARY_WORDS) in EVENT_WORDS[label].split()
    is_signed = stats.low == -1 and stats.high == 1 and stats.distinct <= 3
    is_mark = stats.filled < 1 and stats.distinct == 1
    if is_mark and is_whole and (stats.flags or stats.examples[0].lower() in MARKS):
        yield "event_type", 0.85, f"{stats.examples[0]} or nothing"
        return
    is_count = is_whole and stats.numbers > 0.95 and stats.is_integer and (stats.low or 0) >= 0
    if is_signed or (stats.distinct <= 2 and stats.flags > 0.9):
        kind = "yes and no" if stats.flags > 0.9 else f"{stats.distinct} distinct numbers{_range_text(stats)}"
        yield f"labels.{label}", 0.95 if is_whole else 0.7, kind
    elif is_count and (tokens[-1].endswith("s") or set(tokens) & AUXILIARY_WORDS or stats.distinct == 2):
        yield f"labels.{label}", 0.7, f"counts{_range_text(stats)}"


def unmapped_label(log: TableSurvey, name: str) -> str:
    """What a column of the log that no rule maps may say: a label, or `event_type`; empty if neither."""
    stats, label = log.columns[name], named_label(name)
    others = {word for word in AUXILIARY_WORDS | SUBJECT_WORDS["time"] if event_label(word) not in LABEL_WEIGHTS}
    tokens = [word for word in name_tokens(name) if word not in others]
    if is_id(name) or not stats.distinct:
        return ""
    if label in LABEL_WEIGHTS:
        is_whole = "_".join(tokens) in EVENT_WORDS[label].split()
        may_say = stats.filled < 1 if stats.times else is_whole or stats.distinct <= FEW_VALUES
        return label if may_say and (is_whole or not stats.times) else ""
    if stats.times:
        return ""
    if "_".join(name_tokens(name)) in SETTING_NAMES["event_type"].split():
        return "event_type"
    if scale := next((each for each in ("rating", "dwell") if name_score(name, each) > WORD_OF_NAME), ""):
        return scale
    is_target = name.lower() in TARGET_NAMES and stats.distinct <= FEW_VALUES
    return "click" if is_target else ""


def _event_type(column: Column) -> Iterator[Candidate]:
    stats = column.stats
    if not 2 <= stats.distinct <= 30 or stats.numbers >= 0.5:
        return
    score, values = column.score("event_type"), column.values()
    known = [value for value in values if event_label(value) is not None]
    all_known = len(known) == len(values) and any(map(event_label, values))  # then the name does not matter
    if known and (score or all_known):
        yield "event_type", 0.4 + 0.2 * score + 0.39 * len(known) / len(values), f"values such as {known[0]}"


def _request(column: Column) -> Iterator[Candidate]:
    """The id of what was shown together, and the place of an item in it."""
    stats, mapping = column.stats, column.mapping
    if (
        not stats.is_unique
        and (score := column.score("request_id")) > WORD_OF_NAME
        and not mapping.roles.get("queries")
    ):
        yield "request_id", 0.5 + 0.45 * score, f"{stats.values / max(stats.distinct, 1):.1f} events each"
    is_place = stats.numbers > 0.95 and stats.is_integer and (stats.low or 0) >= 0 and (stats.high or 0) <= MAX_POSITION
    if is_place and (score := column.score("position")) >= WORD_OF_NAME:
        yield "position", 0.5 + 0.45 * score, f"numbers{_range_text(stats)}"


def _event_text(column: Column) -> Iterator[Candidate]:
    stats, score = column.stats, column.score("query_text")
    if "queries" not in column.mapping.roles and stats.is_text and score > 0.9:
        yield "query_text", 0.5 + 0.3 * score, f"texts of {stats.words:.0f} words on average"


def _split(column: Column) -> Iterator[Candidate]:
    if column.score("split") and column.stats.distinct <= 3:
        values = set(column.values())
        if {value.lower() for value in values} <= SPLIT_NAMES:
            yield "split", 0.95, "its values are " + ", ".join(sorted(values))


def _turns(column: Column) -> Iterator[Candidate]:
    if column.score("turns") and (column.stats.kind == "list" or column.stats.arrays > 0.9):
        yield "turns", 0.9, "lists of texts"


def _item_candidates(column: Column) -> Iterable[Candidate]:
    for rule in (_vectors, _valid_from, _created_at, _named_item_column, _price):
        if candidates := list(rule(column)):
            return candidates
    return [*_category(column), *_item_text(column)]


def _vectors(column: Column) -> Iterator[Candidate]:
    stats = column.stats
    is_long = stats.kind in ("list", "float_seq") or (stats.kind == "text" and stats.characters > 20)
    if stats.vectors > 0.9 and is_long:
        yield "item_vectors", 0.85, "lists of numbers"


def _valid_from(column: Column) -> Iterator[Candidate]:
    """The time from which a row holds, in a table with several rows of one item."""
    mapping, log = column.mapping, column.mapping.survey.tables.get(column.mapping.roles.get("events", ""))
    if log and valid_from(column.table) == column.name:
        item = mapping.column("events", "item_id")
        key = mapping.column("items", "item_id") or mapping.column("items", "item_key")
        if find_history_key(mapping.survey, log, column.table, item) and not (
            key and column.table.columns[key].is_unique
        ):
            yield "valid_from", 0.85, "several rows of one item: the newest counts"


def _created_at(column: Column) -> Iterator[Candidate]:
    if column.stats.times and (score := column.score("created_at")):
        yield "created_at", 0.45 + 0.5 * score, describe_times(column.stats)
    elif column.stats.times and column.stats.numbers <= 0.9:
        yield "created_at", 0.4, describe_times(column.stats)


def _named_item_column(column: Column) -> Iterator[Candidate]:
    """The first setting that fits both the name and the values."""
    stats = column.stats
    is_year = stats.low is not None and stats.high is not None and stats.low >= 1000 and stats.high < 2200
    numbers = f"numbers{_range_text(stats)}"
    for setting, fits, why in (
        ("created_year", is_year, numbers),
        ("price", max(stats.numbers, stats.money) > 0.9 and (stats.low or 0) >= 0, numbers),
        ("available", stats.flags > 0.95, "yes or no"),
        ("language", stats.characters < 8 and stats.distinct < 200, f"{stats.distinct} codes"),
    ):
        if fits and (score := column.score(setting)):
            if setting == "price" and stats.grouped:
                score, why = min(score, 0.5), f"{why}; {stats.examples[0]} may be thousands: then --files decimal=,"
            yield setting, 0.45 + 0.5 * score, why
            return


def _price(column: Column) -> Iterator[Candidate]:
    """A number with a currency is a price, whatever its column is called."""
    if column.stats.money > 0.9:
        yield "price", 0.6, f"prices{_range_text(column.stats)}"


def _category(column: Column) -> Iterator[Candidate]:
    stats, score = column.stats, column.score("category")
    is_list = stats.kind in ("list", "token_seq") or stats.arrays > 0.9 or bool(stats.separator)
    if score and stats.distinct > 1 and (stats.distinct < 0.5 * stats.values or is_list):
        fits = 0.1 * (stats.distinct > 8 or score == 1)  # an exact name needs no other evidence
        yield "category", 0.4 + 0.45 * score + fits, f"{stats.distinct:,} distinct values" + " in lists" * is_list
        yield "text", 0.46, f"{stats.distinct:,} distinct values"


def _item_text(column: Column) -> Iterator[Candidate]:
    stats = column.stats
    if not stats.is_text or stats.urls:
        if stats.numbers > 0.95 and not is_id(column.name) and stats.distinct > 1:
            yield "item_numbers", 0.45, f"numbers{_range_text(stats)}"
        return
    if score := column.score("title"):
        fits = stats.words < 25 and stats.distinct > min(50, 0.02 * stats.values)
        yield "title", (0.4 + 0.5 * score) * (1 if fits else 0.5), f"texts of {stats.words:.0f} words"
    if score := column.score("text"):
        yield "text", 0.4 + 0.5 * score, f"texts of {stats.words:.0f} words"
    if stats.words > 4:
        yield "text", 0.5, f"texts of {stats.words:.0f} words"
    if stats.distinct > 1 and not is_id(column.name):
        is_attribute = stats.distinct <= 200 and stats.distinct < 0.5 * stats.values
        setting, confidence = ("item_attributes", 0.45) if is_attribute else ("text", 0.4)
        yield setting, confidence, f"{stats.distinct:,} distinct values"


def _user_candidates(column: Column) -> Iterator[Candidate]:
    stats = column.stats
    is_personal = bool(name_words(column.name) & PERSONAL)
    if is_personal or is_id(column.name) or stats.times or stats.urls > 0.5 or stats.distinct < 2:
        return
    if stats.numbers > 0.95:
        yield "user_numbers" if stats.distinct > 10 else "user_attributes", 0.6, f"numbers{_range_text(stats)}"
    elif stats.distinct <= max(50, 0.05 * stats.values):
        yield "user_attributes", 0.6, f"{stats.distinct} distinct values"


def _query_candidates(column: Column) -> Iterator[Candidate]:
    stats = column.stats
    if stats.kind == "list" or stats.arrays > 0.9:
        yield "turns", 0.5 + 0.4 * bool(column.score("turns")), "lists of texts"
    elif stats.is_text:
        yield "query_text", 0.45 + 0.5 * column.score("query_text"), f"texts of {stats.words:.0f} words"


_REST_OF_EVENTS: tuple[Rule, ...] = (
    _time_of_day, _ratings, _amounts, _happened, _event_type, _request, _event_text, _split, _turns,
)  # fmt: skip
_ROLE_RULES: dict[str, Rule] = {
    "events": _event_candidates, "items": _item_candidates, "users": _user_candidates, "queries": _query_candidates,
}  # fmt: skip


def _range_text(stats: ColumnStats) -> str:
    return "" if stats.low is None or stats.high is None else f" from {stats.low:g} to {stats.high:g}"


def describe_times(stats: ColumnStats) -> str:
    """How a column's times are written, in words."""
    if not stats.times:
        return ""
    if unit := OTHER_NUMBERS.get(stats.times[0]):
        return unit
    if stats.zoned is None:
        return f"numbers that are {stats.times[0]} since 1970"
    zone = "with a zone" if stats.zoned == 1 else "without a zone" if stats.zoned == 0 else "some without a zone"
    is_typed = stats.kind in ("naive", "instant")
    return f"times {zone}" + ("" if is_typed else f", written as {' or '.join(stats.times)}")
