"""A proposal: what the tables and columns of a source mean, the map that says so, and a recipe on top of it.

Names speak first, values decide: a key has a value a row, the log's column of items holds the catalogue's keys,
a moment lies in our time. What only people know (the zone of clocks, which of two readings of a date) is asked.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.survey import MISSING, Facts, Seen, Survey
from rankline.errors import UsageError

ROLES = ("events", "items", "users", "queries")
KINDS = ("interactions", "search", "labels", "shop")
FEW_LABELS = 30
SURE, LIKELY = 0.8, 0.55

# words by which people call things; the first match of a name's words counts
WORDS: dict[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "user": """user users customer customers client clients member household visitor account reader person uid buyer
            reviewer viewer listener shopper subscriber patient student player consumer usr cust demographics profiles
            kunde kunden benutzer utilisateur cliente usuario""",
        "item": """item items product products movie movies film book books article articles sku asin isbn track song
            doc document corpus passage news recipe content listing iid pid good goods offer post video game restaurant
            business hotel answer material course joke podcast paper artist album artikel produkt produkte produit
            producto articulo""",
        "query": "query queries question questions topic qid search inquiry request",
        "time": """time timestamp date datetime ts at when moment day created added happened bought viewed occurred
            datum zeit zeitpunkt fecha heure""",
        "event": """event events interaction interactions inter rating ratings transaction transactions order orders
            log logs click clicks view views purchase purchases qrels judgments impressions history behaviors
            behaviours sessions plays feedback activity reviews actions sales likes""",
    }.items()
}
NAMES: dict[str, str] = {  # meaning -> names that mean it, as whole names
    "query_text": "query question search searched text keywords search_term search_terms term phrase q query_text "
    "utterance sentence review content",
    "title": "title name headline titel nombre nom product_name movie_title item_name subject label "
    "product_type product caption book_title song_name",
    "text": "description text body beschreibung descripcion content abstract summary overview plot "
    "details about answer short_description long_description notes story",
    "category": "category categories genre kategorie categoria genres class department tags shelf topic section "
    "product_category item_category cat type kind",
    "price": "price cost preis prix precio unit_price list_price amount",
    "available": "available verfügbar in_stock instock active is_active is_available enabled availability",
    "language": "language lang locale language_code",
    "created_year": "year release_year publication_year",
    "created_at": "release_date published published_at publish_date created created_at added date pubdate",
    "split": "split fold subset partition set",
    "event_type": "event event_type type action event_name interaction_type behavior activity verb",
    "turns": "turns conversation messages dialog dialogue history",
    "known_at": "known_at received_at ingested_at arrived_at logged_at",
    "label": "label sentiment class category target topic intent tag y polarity",
}
LABEL_NAMES: dict[str, str] = {
    "rating": "rating ratings stars star score overall rate",
    "relevance": "relevance grade rel relevancy judgment judgement score",
    "click": "click clicks clicked is_click is_clicked",
    "purchase": "purchase purchased bought is_purchase ordered converted buy",
}
EVENT_WORDS = {
    "purchase": "purchase purchased buy bought order ordered transaction checkout payment sale",
    "click": "click clicked view viewed open opened read play played listen watch watched cart addtocart add_to_cart "
    "add save like liked favorite favourite share visit detail",
    "": "impression impressions shown show display displayed remove removed search dislike skip skipped",
}
STEMMERS = {
    "en": "english", "de": "german", "fr": "french", "nl": "dutch", "it": "italian", "es": "spanish", "ru": "russian",
    "pt": "portuguese", "sv": "swedish", "no": "norwegian", "fi": "finnish", "hu": "hungarian", "tr": "turkish",
    "da": "danish", "ro": "romanian", "ar": "arabic", "el": "greek", "id": "indonesian",
}  # fmt: skip


@dataclass(frozen=True)
class Meaning:
    """What one column is taken for: a setting of ingest's columns, how sure that is, and why."""

    setting: str
    column: str
    sure: float
    why: str

    @property
    def surety(self) -> str:
        """How sure, in a word."""
        return "sure" if self.sure >= SURE else "likely" if self.sure >= LIKELY else "a guess"


@dataclass(frozen=True)
class Lack:
    """Something that a good model needs and the source has not, and what to do."""

    what: str
    do: str
    flag: str = ""  # the option that answers it; where there is one, nothing is written before it is answered


@dataclass
class Proposal:
    """What is proposed for a source; `settings` is what the map says, `lacks` what is missing."""

    survey: Survey
    name: str
    kind: str
    roles: dict[str, str]  # role -> name of the table
    meanings: dict[str, list[Meaning]]  # role -> what its columns are
    time_zone: str = ""
    unit: str = ""  # of the events' times
    languages: dict[str, str] = field(default_factory=dict)  # role -> code
    said: frozenset[str] = frozenset()  # settings that a person said

    def column(self, role: str, setting: str) -> str:
        """The column of a role that has a meaning; empty where none has."""
        return next((each.column for each in self.meanings.get(role, ()) if each.setting == setting), "")

    def facts(self, role: str, column: str) -> Facts:
        """What a column of a role looks like."""
        return self.survey.tables[self.roles[role]].columns[column]

    @property
    def settings(self) -> dict[str, Any]:
        """The map: ingest's own settings, without where the source is."""
        return _settings(self)

    @property
    def knobs(self) -> dict[str, Any]:
        """What the recipe changes, because the data asks for it."""
        return _knobs(self)

    @property
    def lacks(self) -> list[Lack]:
        """What is missing for a good model, the questions first."""
        return sorted(_lacks(self), key=lambda lack: not lack.flag)


def propose(
    survey: Survey,
    *,
    name: str,
    roles: Mapping[str, str] | None = None,
    kind: str = "",
    time_zone: str = "",
    said: Mapping[str, str] | None = None,
) -> Proposal:
    """Guess what the tables and columns of a source mean; ``roles`` and ``said`` (setting -> column) are certain.

    Raises:
        UsageError: a table or a column that was said is not there.
    """  # fmt: skip
    given = {role: _table(survey, table) for role, table in (roles or {}).items() if table}
    if survey.format in ("recbole", "beir"):
        found = {role: role for role in ROLES if role in survey.tables}
    else:
        found = _roles(survey, given)
    made = Proposal(survey, name, kind, found, {}, time_zone=time_zone)
    told = _placed(made, said or {})
    if not kind:
        made.kind = _kind(made, told)
    for role in ROLES:
        if survey.format == "beir" and role in made.roles:
            there = survey.tables[role].columns
            made.meanings[role] = [
                Meaning(setting, column, 1.0, "as BEIR says")
                for column, setting in BEIR[role].items()
                if column in there
            ]
        elif role in made.roles:
            made.meanings[role] = _meanings(made, role, told.get(role, {}))
    made.said = frozenset(said or {})
    made.unit = _unit(made, (said or {}).get("timestamp_unit", ""))
    for role in ("items", "queries", "events"):
        if columns := [each.column for each in made.meanings.get(role, ()) if each.setting in WORDY]:
            made.languages[role] = survey.language(made.roles[role], columns)
    return made


BEIR = {
    "events": {"query-id": "query_id", "corpus-id": "item_id", "score": "labels.relevance"},
    "items": {"_id": "item_key", "title": "title", "text": "text"},
    "queries": {"_id": "query_key", "text": "query_text"},
    "users": {},
}
WORDY = ("title", "text", "query_text")
MANY = ("text", "item_attributes", "item_numbers", "item_vectors", "user_attributes", "user_numbers",
        "event_attributes", "event_numbers")  # fmt: skip
KEYS = {"items": "item_id", "users": "user_id", "queries": "query_id"}


def _table(survey: Survey, told: str) -> str:
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


def _placed(made: Proposal, said: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Role -> setting -> column, of what a person said.

    Raises:
        UsageError: no such setting, or no table of that role has such a column.
    """
    told: dict[str, dict[str, str]] = {}
    for setting, column in said.items():
        if setting == "timestamp_unit":
            continue
        roles = SETTINGS.get(setting.partition(".")[0])
        if roles is None:
            raise UsageError(
                f"columns have no meaning {setting!r}",
                expected="one of " + ", ".join(SETTINGS) + "; a label as labels.rating",
                found=f"{setting}={column}",
            )
        there = [role for role in roles if role in made.roles]
        having = [
            role
            for role in there
            if not column or all(one in made.survey.tables[made.roles[role]].columns for one in column.split(","))
        ]
        if not having:
            columns = [name for role in there for name in made.survey.tables[made.roles[role]].columns]
            raise UsageError(
                f"no table of {' or '.join(roles)} has a column {column!r}",
                expected="one of " + ", ".join(columns),
                found=f"{setting}={column}",
                where=made.survey.source,
            )
        for role in having if setting in KEYS.values() else having[:1]:
            told.setdefault(role, {})[setting] = column
    return told


SETTINGS: dict[str, tuple[str, ...]] = {
    "user_id": ("events", "users"), "item_id": ("events", "items"), "query_id": ("events", "queries"),
    "user_key": ("users",), "item_key": ("items",), "query_key": ("queries",),
    "timestamp": ("events",), "known_at": ("events",), "labels": ("events",), "event_type": ("events",),
    "split": ("events",), "query_text": ("queries", "events"), "turns": ("queries", "events"), "title": ("items",),
    "text": ("items",), "category": ("items",), "created_year": ("items",), "created_at": ("items",),
    "language": ("items",), "price": ("items",), "available": ("items",), "item_attributes": ("items",),
    "item_numbers": ("items",), "item_vectors": ("items",), "user_attributes": ("users",),
    "user_numbers": ("users",), "event_attributes": ("events",), "event_numbers": ("events",),
}  # fmt: skip


# --- which table is what -----------------------------------------------------------------------------------------


def _roles(survey: Survey, given: Mapping[str, str]) -> dict[str, str]:
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
        if any(_linked(survey, log, column, table) for column in log.columns):
            wordy = any(_is_text(facts) and facts.words > 2 for facts in table.columns.values())
            role = "items" if wordy else "users"
            if role not in roles:
                roles[role] = name
    return {role: roles[role] for role in ROLES if role in roles}


def _linked(survey: Survey, log: Seen, column: str, table: Seen) -> str:
    """The key of a table that a column of the log plainly holds; small whole numbers are plain nothing."""
    facts = log.columns[column]
    if facts.times or facts.unique or facts.distinct < 20 or (facts.numbers > 0.5 and not _is_id(column)):
        return ""
    key = _key(survey, log, table, column)
    return key if key and survey.overlap(log.name, column, table.name, key) > 0.9 else ""


def _eventful(survey: Survey, table: Seen) -> float:
    """How much a table looks like a log: it names people or queries and things, at moments, again and again."""
    score = 2.0 * bool(_words(table.name) & WORDS["event"])
    named = [subject for subject in ("user", "item", "query") if _best_id(table, subject)[1] > 0.4]
    score += 1.5 * len(named) if len(named) > 1 else 0.0
    score += any(facts.times for facts in table.columns.values()) * 1.0
    if any(facts.unique and _is_id(name) for name, facts in table.columns.items()):
        score -= 1.0  # events have no key of their own, or one that nobody needs
    for other in survey.tables.values():
        if other.name != table.name:
            keys = [key for key, facts in other.columns.items() if facts.unique]
            score += any(
                survey.overlap(table.name, column, other.name, key) > 0.5
                for key in keys[:3]
                for column, facts in table.columns.items()
                if not facts.unique and facts.distinct > 1 and _like(column, key)
            )
    return score


def _like(column: str, key: str) -> bool:
    """Could a column name another table's key? By a word in common, or as both are names of something."""
    return column == key or bool(_words(column) & _words(key)) or _is_id(column)


def _descriptive(survey: Survey, log: Seen, table: Seen, subject: str) -> float:
    """How much a table describes what the log calls a user, an item or a query."""
    score = 2.0 * bool(_words(table.name) & WORDS[subject])
    column, sure = _best_id(log, subject)
    key = _key(survey, log, table, column)
    if key and sure > 0.4:
        shares = survey.overlap(log.name, column, table.name, key), survey.overlap(table.name, key, log.name, column)
        score += 2.5 * max(shares) * _like(column, key)
        score += 0.5 * table.columns[key].unique
    elif not key:
        score -= 1.5
    if subject == "user" and "user" not in {s for s in WORDS if _words(table.name) & WORDS[s]}:
        score -= 0.5
    return score


def _key(survey: Survey, log: Seen, table: Seen, column: str) -> str:
    """The column of a table that names its rows: its values are the log's, each once."""
    best, found = 0.0, ""
    for name, facts in table.columns.items():
        if facts.characters > 80 or facts.distinct < 2 or (facts.numbers > 0.9 and not facts.whole) or facts.times:
            continue
        score = facts.distinct / max(facts.values, 1) * facts.filled
        if score < 0.9:
            continue
        score += 0.3 * (name == column) + 0.2 * _is_id(name)
        score += survey.overlap(log.name, column, table.name, name) if column else 0.0
        if score > best:
            best, found = score, name
    return found


def _tokens(name: str) -> list[str]:
    """The words of a name, in lower case: userID, user_id and user.id have the same."""
    spaced = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3 \2\4", name)
    return [word for word in re.split(r"[^A-Za-z0-9]+", spaced.lower()) if word]


def _words(name: str) -> set[str]:
    """The words of a name, and what is left of one that ends in id."""
    told = set(_tokens(name))
    return told | {word[:-2] for word in told if word.endswith("id") and len(word) > 3}


def _is_id(name: str) -> bool:
    told = _tokens(name)
    return bool(told) and (told[-1] in ("id", "key", "code", "no", "nr", "number", "sku", "isbn", "asin") or (
        told[-1].endswith("id") and any(told[-1][:-2] in WORDS[subject] for subject in ("user", "item", "query"))
    ))  # fmt: skip


def _id_score(name: str, facts: Facts, subject: str) -> float:
    """How much a column looks like it names a user, an item or a query."""
    words = _words(name)
    if not words & WORDS[subject] or facts.times or facts.distinct < 2 or facts.characters > 80:
        return 0.0
    if facts.numbers > 0.95 and not facts.whole:
        return 0.0
    plain = _tokens(name)
    if _is_id(name):
        return 1.0
    if len(plain) == 1:
        return 0.7 if facts.words < 3 else 0.3
    return 0.35


def _best_id(table: Seen, subject: str) -> tuple[str, float]:
    """The column of a table that most likely names a user, an item or a query, and how likely."""
    scores = {name: _id_score(name, facts, subject) for name, facts in table.columns.items()}
    if (most := max(scores.values(), default=0.0)) <= 0:
        return "", 0.0
    return next(name for name, score in scores.items() if score == most), most


# --- what kind of task it is -------------------------------------------------------------------------------------


def _kind(made: Proposal, told: Mapping[str, Mapping[str, str]]) -> str:
    """Which recipe fits: by who or what asks."""
    if made.survey.format == "beir":
        return "search"
    if "events" not in made.roles:
        return "interactions"
    log = made.survey.tables[made.roles["events"]]
    said = told.get("events", {})
    user = "user_id" in said or _best_id(log, "user")[1] > 0.4
    item = "item_id" in said or _best_id(log, "item")[1] > 0.4
    asked = "queries" in made.roles or "query_text" in said or _best_id(log, "query")[1] > 0.4 or bool(
        [name for name, facts in log.columns.items() if _named(name, "query_text") > 0.9 and _is_text(facts)]
    )  # fmt: skip
    if not user and not item and _labelled(log):
        return "labels"
    if user and asked and "items" in made.roles:
        return "shop"
    return "search" if asked and not user else "interactions"


def _labelled(table: Seen) -> tuple[str, str] | None:
    """(column of texts, column of labels), where a table is texts with few distinct labels."""
    texts = [name for name, facts in table.columns.items() if _is_text(facts) and facts.distinct > 0.5 * facts.values]
    labels = [
        (_named(name, "label"), -facts.distinct, name)
        for name, facts in table.columns.items()
        if 1 <= facts.distinct <= FEW_LABELS and facts.distinct < 0.2 * facts.values and name not in texts
        and not facts.times
    ]  # fmt: skip
    if not texts or not labels:
        return None
    text = max(texts, key=lambda name: (_named(name, "query_text"), table.columns[name].characters))
    return text, max(labels)[2]


def _is_text(facts: Facts) -> bool:
    words = facts.numbers < 0.5 and not facts.times and facts.urls < 0.5 and facts.flags < 0.9
    return words and facts.kind in ("text", "token", "token_seq", "other") and facts.characters > 2


def _named(name: str, meaning: str) -> float:
    """How well a name fits a meaning: 1 the very name, less where only a word of it does."""
    names = NAMES.get(meaning, LABEL_NAMES.get(meaning, "")).split()
    told = "_".join(_tokens(name))
    if told in names:
        return 1.0 - 0.01 * names.index(told)
    tokens = _tokens(name)
    return 0.6 if tokens and tokens[-1] in names else 0.45 if set(tokens) & set(names) else 0.0


# --- what each column is -----------------------------------------------------------------------------------------


def _meanings(made: Proposal, role: str, said: Mapping[str, str]) -> list[Meaning]:
    """What the columns of a table are: what was said first, then the likeliest, each column once."""
    table = made.survey.tables[made.roles[role]]
    taken: dict[str, Meaning] = {}
    settled = set(said)
    for setting, columns in said.items():
        for column in columns.split(",") if columns else ():
            taken[column] = Meaning(setting, column, 1.0, "as you said")
    # what follows from a key that was said or found in another table
    if role in KEYS and not settled & {KEYS[role], KEYS[role].replace("_id", "_key")}:
        log = made.survey.tables.get(made.roles.get("events", ""))
        named = made.column("events", KEYS[role])
        if log and (key := _key(made.survey, log, table, named)):
            share = made.survey.overlap(log.name, named, table.name, key) if named else 0.0
            setting = KEYS[role] if key == named else KEYS[role].replace("_id", "_key")
            why = f"one value a row; it holds {share:.0%} of what the {log.name} name" if named else "one value a row"
            taken[key] = Meaning(setting, key, min(0.99, 0.5 + 0.5 * share), why)
            settled |= {KEYS[role], KEYS[role].replace("_id", "_key")}
    scored = []
    for name, facts in table.columns.items():
        if name not in taken and facts.distinct:
            scored += [(sure, why, setting, name) for setting, sure, why in GUESSES[role](made, table, name, facts)]
    for sure, why, setting, name in sorted(scored, key=lambda each: -each[0]):
        if name not in taken and setting not in settled and sure > 0.3:
            taken[name] = Meaning(setting, name, min(sure, 0.99), why)
            if setting not in MANY:
                settled.add(setting)
    if role == "events" and made.kind == "interactions" and not settled & {"user_id", "query_id", "query_text"}:
        left = [
            each for name, each in table.columns.items() if name not in taken and not each.times and not each.unique
        ]
        if named := [each for each in left if _is_id(each.name) and each.distinct > 20]:
            most = max(named, key=lambda each: each.distinct)
            taken[most.name] = Meaning("user_id", most.name, 0.4, "names something, and the items are named already")
    order = list(table.columns)
    told = sorted(taken.values(), key=lambda each: order.index(each.column) if each.column in order else -1)
    if role == "items" and not any(each.setting == "title" for each in told):  # the shortest text is the title
        texts = [each for each in told if each.setting == "text"]
        if texts and "title" not in said:
            short = min(texts, key=lambda each: table.columns[each.column].characters)
            swapped = Meaning("title", short.column, 0.5, "the shortest of its texts, as no column is named so")
            told = [swapped if each is short else each for each in told]
    return told


Guess = tuple[str, float, str]  # setting, how sure, why


def _of_events(made: Proposal, table: Seen, name: str, facts: Facts) -> Iterable[Guess]:
    if made.kind == "labels" and (pair := _labelled(table)):
        if name == pair[0]:
            yield "query_text", 0.9, f"texts of {facts.characters:.0f} characters on average"
        if name == pair[1]:
            yield "item_id", 0.9, f"{facts.distinct} distinct values beside texts: the labels"
        return
    for subject in ("user", "item", "query"):
        if score := _id_score(name, facts, subject):
            yield from _known(made, table, name, facts, subject, score)
    if subject_free := [role for role in ("items", "users", "queries") if role in made.roles]:
        for role in subject_free:  # a column whose values are another table's keys names them, whatever it is called
            other = made.survey.tables[made.roles[role]]
            if facts.times or facts.unique or facts.distinct < 5:
                continue
            key = _key(made.survey, table, other, name)
            if (
                key
                and (_is_id(name) or facts.numbers < 0.5)
                and (share := made.survey.overlap(table.name, name, other.name, key)) > 0.7
            ):
                yield KEYS[role], 0.65 * share, f"{share:.0%} of its values are among {other.name}.{key}"
    if facts.times:
        named = 0.35 * bool(_words(name) & WORDS["time"])
        late = 0.1 * (facts.distinct > 0.02 * facts.values)
        yield "timestamp", 0.5 + named + late, _told_time(facts)
        if _named(name, "known_at") > 0.9:
            yield "known_at", 0.95, _told_time(facts)
        return
    for label in LABEL_NAMES:
        if score := _named(name, label):
            binary = facts.distinct <= 2 and facts.flags > 0.9
            few = facts.numbers > 0.95 and facts.distinct <= 30
            fits = binary if label in ("click", "purchase") else few
            if label == ("relevance" if made.kind != "search" else "rating"):
                score *= 0.7  # people rate, queries have judgments
            if fits:
                yield f"labels.{label}", 0.5 + 0.45 * score, f"{facts.distinct} distinct numbers{_range(facts)}"
    if (score := _named(name, "event_type")) and 2 <= facts.distinct <= 30 and facts.numbers < 0.5:
        values = made.survey.values(table.name, name)
        known = [value for value in values if _event_label(value) is not None]
        if known:
            yield "event_type", 0.4 + 0.2 * score + 0.39 * len(known) / len(values), f"values such as {known[0]}"
    if "queries" not in made.roles and _is_text(facts) and (score := _named(name, "query_text")) > 0.9:
        yield "query_text", 0.5 + 0.3 * score, f"texts of {facts.words:.0f} words on average"
    if _named(name, "split") and facts.distinct <= 3:
        values = set(made.survey.values(table.name, name))
        if {value.lower() for value in values} <= {"train", "valid", "validation", "dev", "test"}:
            yield "split", 0.95, "its values are " + ", ".join(sorted(values))
    if _named(name, "turns") and (facts.kind == "list" or facts.arrays > 0.9):
        yield "turns", 0.9, "lists of texts"


def _known(
    made: Proposal, table: Seen, name: str, facts: Facts, subject: str, score: float
) -> Iterable[Guess]:  # fmt: skip
    role = {"user": "users", "item": "items", "query": "queries"}[subject]
    setting, sure, why = f"{subject}_id", 0.65 * score, f"{facts.distinct:,} distinct values"
    if role in made.roles:
        other = made.survey.tables[made.roles[role]]
        if key := _key(made.survey, table, other, name):
            share = made.survey.overlap(table.name, name, other.name, key)
            sure += 0.34 * share
            why = f"{share:.0%} of its {facts.distinct:,} values are among {other.name}.{key}"
    elif score == 1.0:
        sure += 0.2
    yield setting, sure, why


def _of_items(made: Proposal, table: Seen, name: str, facts: Facts) -> Iterable[Guess]:
    if facts.vectors > 0.9 and (
        facts.kind in ("list", "float_seq") or (facts.kind == "text" and facts.characters > 20)
    ):
        yield "item_vectors", 0.85, "lists of numbers"
        return
    if facts.times and (score := _named(name, "created_at")):
        yield "created_at", 0.45 + 0.5 * score, _told_time(facts)
        return
    if facts.times and not (facts.numbers > 0.9):
        yield "created_at", 0.4, _told_time(facts)
        return
    if score := _named(name, "created_year"):  # noqa: SIM102
        if facts.low is not None and facts.high is not None and facts.low >= 1000 and facts.high < 2200:
            yield "created_year", 0.45 + 0.5 * score, f"numbers{_range(facts)}"
            return
    if (score := _named(name, "price")) and facts.numbers > 0.9 and (facts.low or 0) >= 0:
        yield "price", 0.45 + 0.5 * score, f"numbers{_range(facts)}"
        return
    if (score := _named(name, "available")) and facts.flags > 0.95:
        yield "available", 0.45 + 0.5 * score, "yes or no"
        return
    if (score := _named(name, "language")) and facts.characters < 8 and facts.distinct < 200:
        yield "language", 0.45 + 0.5 * score, f"{facts.distinct} codes"
        return
    listed = facts.kind in ("list", "token_seq") or facts.arrays > 0.9 or bool(facts.separator)
    if (score := _named(name, "category")) and facts.distinct > 1 and (facts.distinct < 0.5 * facts.values or listed):
        few = 0.1 * (facts.distinct > 8)
        yield "category", 0.4 + 0.45 * score + few, f"{facts.distinct:,} distinct values" + " in lists" * listed
        yield "text", 0.46, f"{facts.distinct:,} distinct values"
    if _is_text(facts) and not facts.urls:
        if score := _named(name, "title"):
            fits = facts.words < 25 and facts.distinct > min(50, 0.02 * facts.values)
            yield "title", (0.4 + 0.5 * score) * (1 if fits else 0.5), f"texts of {facts.words:.0f} words"
        if score := _named(name, "text"):
            yield "text", 0.4 + 0.5 * score, f"texts of {facts.words:.0f} words"
        if facts.words > 4:
            yield "text", 0.5, f"texts of {facts.words:.0f} words"
        if facts.distinct > 1 and not _is_id(name):
            few = facts.distinct <= 200 and facts.distinct < 0.5 * facts.values
            yield "item_attributes" if few else "text", 0.45 if few else 0.4, f"{facts.distinct:,} distinct values"
        return
    if facts.numbers > 0.95 and not _is_id(name) and facts.distinct > 1:
        yield "item_numbers", 0.45, f"numbers{_range(facts)}"


def _of_users(made: Proposal, table: Seen, name: str, facts: Facts) -> Iterable[Guess]:
    private = {"email", "phone", "mail", "address", "ssn", "password", "firstname", "lastname", "surname", "name", "ip"}
    if _words(name) & private or _is_id(name) or facts.times or facts.urls > 0.5 or facts.distinct < 2:
        return
    if facts.numbers > 0.95:
        yield "user_numbers" if facts.distinct > 10 else "user_attributes", 0.6, f"numbers{_range(facts)}"
    elif facts.distinct <= max(50, 0.05 * facts.values):
        yield "user_attributes", 0.6, f"{facts.distinct} distinct values"


def _of_queries(made: Proposal, table: Seen, name: str, facts: Facts) -> Iterable[Guess]:
    if facts.kind == "list" or facts.arrays > 0.9:
        yield "turns", 0.5 + 0.4 * bool(_named(name, "turns")), "lists of texts"
    elif _is_text(facts):
        yield "query_text", 0.45 + 0.5 * _named(name, "query_text"), f"texts of {facts.words:.0f} words"


GUESSES: dict[str, Callable[[Proposal, Seen, str, Facts], Iterable[Guess]]] = {
    "events": _of_events, "items": _of_items, "users": _of_users, "queries": _of_queries,
}  # fmt: skip


def _range(facts: Facts) -> str:
    if facts.low is None or facts.high is None:
        return ""
    return f" from {facts.low:g} to {facts.high:g}"


def _told_time(facts: Facts) -> str:
    if facts.zoned is None:
        return f"numbers that are {facts.times[0]} since 1970" if facts.times else ""
    zone = "with a zone" if facts.zoned == 1 else "without a zone" if facts.zoned == 0 else "some without a zone"
    typed = facts.kind in ("naive", "moment")
    return f"times {zone}" + ("" if typed else f", written as {' or '.join(facts.times)}")


def _event_label(value: str) -> str | None:
    """The label that a kind of event sets; empty for one that means nothing, None where that is not known."""
    told = "_".join(_tokens(value))
    for label, names in EVENT_WORDS.items():
        if told in names.split() or set(_tokens(value)) & set(names.split()):
            return label
    return None


def _unit(made: Proposal, said: str) -> str:
    """What the events' times are written as; empty where that has to be asked."""
    column = made.column("events", "timestamp")
    if said or not column:
        return said
    times = made.facts("events", column).times
    return times[0] if len(times) == 1 else ""


# --- the map and the recipe --------------------------------------------------------------------------------------


def _settings(made: Proposal) -> dict[str, Any]:
    survey = made.survey
    told: dict[str, Any] = {"format": survey.format}
    if survey.name:
        told["name"] = survey.name
    if survey.connection:
        told["connection"] = survey.connection
    if survey.format == "beir":
        return told
    if "items" not in made.roles:
        told["items_from_events"] = True
    if survey.format in ("tables", "sql"):
        places = {role: survey.tables[table].place for role, table in made.roles.items()}
        told["tables"] = places
    if files := _files(made):
        told["files"] = files
    columns: dict[str, Any] = {"user_id": "", "item_id": "", "timestamp": "", "labels": {}}
    for role in ROLES:
        for meaning in made.meanings.get(role, ()):
            if meaning.setting.startswith("labels."):
                columns["labels"][meaning.setting.partition(".")[2]] = meaning.column
            elif meaning.setting in MANY:
                columns.setdefault(meaning.setting, []).append(meaning.column)
            elif role == "events" or meaning.setting not in columns or not columns[meaning.setting]:
                columns[meaning.setting] = meaning.column
    if made.unit and columns["timestamp"]:
        columns["timestamp_unit"] = made.unit
    if made.time_zone:
        columns["time_zone"] = made.time_zone
    if columns.get("event_type"):
        values = survey.values(made.roles["events"], columns["event_type"])
        columns["event_types"] = {value: _event_label(value) or "" for value in values}
    if (category := made.column("items", "category")) and (mark := made.facts("items", category).separator):
        columns["category_separator"] = mark.strip()
    if created := made.column("items", "created_at"):
        times = made.facts("items", created).times
        columns["created_at_unit"] = times[0]
    told["columns"] = columns
    return told


def _files(made: Proposal) -> dict[str, Any]:
    """How the text files are written, where that is not the usual way."""
    told: dict[str, Any] = {}
    if made.survey.format != "tables":
        return told
    if made.survey.files.encoding not in ("utf-8", "ascii"):
        told["encoding"] = made.survey.files.encoding
    if made.survey.files.decimal == ",":
        told["decimal"] = ","
    missing = set()
    for role, table in made.roles.items():
        for meaning in made.meanings.get(role, ()):
            facts = made.facts(role, meaning.column)
            if facts.kind != "text" or (0 < facts.numbers < 0.2):
                continue
            values = made.survey.values(table, meaning.column, most=200)
            sure = ("NULL", "\\N") if meaning.setting in WORDY else MISSING
            missing |= {word for word in sure if word in values and (facts.numbers > 0.3 or word in ("NULL", "\\N"))}
    if missing:
        told["missing"] = sorted(missing)
    return told


def _knobs(made: Proposal) -> dict[str, Any]:
    """The recipe's changes: its name, the scale of its labels, the language of its words."""
    name = made.name.replace("_", "-")
    told: dict[str, Any] = {
        "name": name, "validate.profile_name": name, "export.recipe": name, "export.catalogue": name,
    }  # fmt: skip
    usual = {"click": (0, 1), "purchase": (0, 1), "rating": (1, 5), "relevance": (0, 3)}
    scales = dict(usual)
    for meaning in made.meanings.get("events", ()):
        label = meaning.setting.partition("labels.")[2]
        if label and (facts := made.facts("events", meaning.column)).low is not None and facts.high is not None:
            low, high = usual[label]
            scales[label] = (min(low, math.floor(facts.low)), max(high, math.ceil(facts.high)))
    if scales != usual:
        told["validate.scales"] = {label: list(scale) for label, scale in scales.items()}
    language = next((code for code in made.languages.values() if code), "en")
    if made.kind in ("search", "shop") and STEMMERS.get(language, "") != "english":
        told |= {f"{step}.stemmer": STEMMERS.get(language, "") for step in ("finetune", "distill", "evaluate")}
    return told


def map_text(made: Proposal) -> str:
    """The map as TOML, with what it is in front."""
    from rankline.raw import masked

    return (
        f"# How to read {masked(made.survey.source)}. Written by `rankline init`; it is yours to change.\n"
        "# Every setting: rankline recipes show movielens (section ingest).\n" + toml(made.settings)
    )


def toml(settings: Mapping[str, Any]) -> str:
    """Settings and their sections as TOML."""
    lines, sections = [], []
    for name, value in settings.items():
        if isinstance(value, dict):
            sections += ["", f"[{name}]", *(f"{_name(key)} = {_toml(each)}" for key, each in value.items())]
        else:
            lines.append(f"{_name(name)} = {_toml(value)}")
    return "\n".join([*lines, *sections]) + "\n"


def _name(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_name(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)


BASES = {
    "interactions": ("interactions", "interactions(path, map)"),
    "search": ("interactions, search", "dataclasses.replace(search(path), ingest=interactions(path, map).ingest)"),
    "labels": ("interactions, labels", "dataclasses.replace(labels(path), ingest=interactions(path, map).ingest)"),
    # the settings of personalised search, the reading of search: real words deserve a real encoder
    "shop": (
        "interactions, search, shop",
        "dataclasses.replace(\n        shop(path),\n        material=(\"minilm\",),\n"
        "        ingest=interactions(path, map).ingest,\n        finetune=search(path).finetune,\n"
        "        distill=search(path).distill,\n    )",
    ),
}  # fmt: skip


def recipe_text(made: Proposal, *, map_name: str) -> str:
    """The recipe as a Python module of one function."""
    from rankline.raw import masked

    imports, base = BASES[made.kind]
    settings = "\n".join(
        f"            {json.dumps(f'{knob}={value if isinstance(value, str) else json.dumps(value)}')},"
        for knob, value in made.knobs.items()
    )
    module = made.name
    return (
        f'"""The recipe of {module}: rankline run --recipe {module}:{module} -w .rankline-{module}"""\n\n'
        + ("import dataclasses\n" if "dataclasses" in base else "")
        + "from pathlib import Path\n\n"
        f"from pipelines.recipes import Recipe, change, {imports}\n\n"
        f'MAP = str(Path(__file__).resolve().with_name("{map_name}"))\n\n\n'
        f"def {module}(path: str = {json.dumps(masked(made.survey.source))}, map: str = MAP) -> Recipe:\n"
        f'    """{SENTENCES[made.kind]}"""\n'
        f"    base = {base}\n"
        "    return change(\n        base,\n        [\n" + settings + "\n        ],\n    )\n"
    )


SENTENCES = {
    "interactions": "What a user may want next, learnt from a log of events.",
    "search": "Documents for queries, learnt from judgments.",
    "labels": "The label of a text, with a calibrated chance.",
    "shop": "Products for a query, for the user who asks.",
}


# --- what is missing ---------------------------------------------------------------------------------------------


def _lacks(made: Proposal) -> Iterable[Lack]:
    if made.survey.format == "beir":
        return
    if "events" not in made.roles:
        yield Lack("no table says what happened", "name it: a log, ratings, purchases, judgments", "--events")
        return
    log = made.survey.tables[made.roles["events"]]
    if not made.column("events", "item_id"):
        yield Lack(
            "which column of events names the item is not clear",
            f"say it; there are {', '.join(log.columns)}", "--column item_id=…",
        )  # fmt: skip
    asks = [made.column("events", name) for name in ("user_id", "query_id", "query_text", "turns")]
    if not any(asks):
        yield Lack(
            "no column of events says who or what asks",
            f"say it; there are {', '.join(log.columns)}", "--column user_id=… or --column query_text=…",
        )  # fmt: skip
    yield from _lacks_of_time(made, log)
    if "items" not in made.roles and made.kind != "labels":
        yield Lack(
            "there is no table of items, so they have no words: a language model has nothing to read, and an item "
            "without events cannot be found",
            "give one with --items, if there is one",
        )
    elif made.kind != "labels":
        words = [each.column for each in made.meanings["items"] if each.setting in ("title", "text")]
        if not words:
            yield Lack("the items have no words", "name their texts: --column title=… --column text=…,…")
        else:
            filled = max(made.facts("items", column).filled for column in words)
            if filled < 0.9:
                yield Lack(f"{1 - filled:.0%} of the items have no words", "add titles or descriptions to them")
        if not made.column("items", "item_id") and not made.column("items", "item_key"):
            columns = ", ".join(made.survey.tables[made.roles["items"]].columns)
            yield Lack("which column names the items is not clear", f"say it; there are {columns}",
                       "--column item_key=…")  # fmt: skip
    for meaning in made.meanings.get("events", ()):
        if meaning.setting.startswith("labels.") and made.facts("events", meaning.column).distinct < 2:
            yield Lack(
                f"every event has the same {meaning.column}: there is nothing to learn from it",
                "bring events of the other kind, too; without them every event counts as wanted",
            )
        facts = made.facts("events", meaning.column)
        if meaning.setting == "labels.rating" and facts.high is not None and not 4 <= facts.high <= 5:
            yield Lack(
                f"ratings reach {facts.high:g}; the head that learns what is liked takes 4 or more for liked",
                "scale them to 1 to 5 where they are made, or set finetune.like_weight=0",
            )
    if made.kind == "labels" and (label := made.column("events", "item_id")):
        values = made.survey.values(log.name, label)
        if len(values) < 2:
            yield Lack("all texts have one label", "bring texts of another, too")
        elif min(values.values()) < 20:
            rare = min(values, key=lambda value: values[value])
            yield Lack(f"label {rare} has only {values[rare]} texts", "bring more of it, or join it to another")
    if kind := made.column("events", "event_type"):
        values = made.survey.values(log.name, kind)
        if unknown := [value for value in values if _event_label(value) is None]:
            yield Lack(
                f"what these values of {kind} mean is not known, so they count for nothing: {', '.join(unknown)}",
                "say it in [columns] event_types of the map: click, purchase, or nothing",
            )
    if user := made.column("events", "user_id"):
        users = made.facts("events", user).distinct
        if users < 200 and log.whole:
            yield Lack(f"only {users} users have events: scores will say little", "a few hundred are needed to judge")
        per_user = made.facts("events", user).values / max(users, 1)
        if per_user < 3 and log.whole:
            yield Lack(
                f"a user has {per_user:.1f} events: there is little history to learn from",
                "bring a longer time, or more kinds of events",
            )
    for role in ("queries",):
        if role not in made.roles and made.column("events", "query_id") and not made.column("events", "query_text"):
            yield Lack("nothing says the words of the queries", "give a table with them", "--queries")


def _lacks_of_time(made: Proposal, log: Seen) -> Iterable[Lack]:
    column = made.column("events", "timestamp")
    if not column:
        if made.kind in ("interactions", "shop"):
            times = [name for name, facts in log.columns.items() if facts.times]
            yield Lack(
                "the events have no times: what came first is not known, and the split cannot be causal",
                f"say which: --column timestamp={times[0]}" if times else "log the moment of every event",
            )
        return
    facts = made.facts("events", column)
    if not made.unit:
        yield Lack(
            f"{column} can be read in more than one way ({', '.join(facts.times) or 'none that is known'})"
            + f", such as {facts.examples[0]}" * bool(facts.examples),
            "say how it is written", "--column timestamp_unit=…",
        )  # fmt: skip
    zoneless = facts.zoned is not None and facts.zoned < 1
    created = made.column("items", "created_at")
    if created and (told := made.facts("items", created)).zoned is not None and told.zoned < 1:
        zoneless = True
    if zoneless and not made.time_zone:
        yield Lack(
            f"{column} does not tell its zone, and it cannot be guessed",
            "say where those clocks were: UTC, Europe/Berlin, America/New_York…", "--time-zone",
        )  # fmt: skip
