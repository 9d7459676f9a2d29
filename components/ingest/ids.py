"""Ids that two tables write in two ways, and how to write them in one."""

import re
from collections.abc import Collection
from itertools import combinations
from typing import Any, NamedTuple

from rankline.io.sql import literal

BLANKS = r"[\s\x{00A0}\x{00AD}\x{200B}-\x{200F}\x{2007}\x{202F}\x{2060}\x{3000}\x{FEFF}]+"
_HEX = "[0-9a-f]"
GUID = rf"(?i)^(?:urn:uuid:)?[{{(]?({_HEX}{{8}})-?({_HEX}{{4}})-?({_HEX}{{4}})-?({_HEX}{{4}})-?({_HEX}{{12}})[)}}]?$"
MAX_IDS = 5_000  # that are compared
# normalisation -> SQL of a text, in the order in which they are applied
NORMALISATIONS = {
    "accents": "nfc_normalize({text})",  # é as one character or as two
    "blanks": f"regexp_replace({{text}}, {literal(BLANKS)}, '', 'g')",
    "guid": f"CASE WHEN regexp_matches({{text}}, {literal(GUID)}) "
    rf"THEN lower(regexp_replace({{text}}, {literal(GUID)}, '\1-\2-\3-\4-\5')) ELSE {{text}} END",
    "case": "lower({text})",
    # gid://shop/Product/123 and product-123 are 123
    "prefix": r"regexp_replace(regexp_extract({text}, '[^/:#|]+[/:#|]*$'), '^[a-zA-Z]+[-_ ]?(\d+)$|[/:#|]+$', '\1')",
    "fraction": r"regexp_replace({text}, '^([+-]?\d+)[.,]0+$', '\1')",
    "zeros": r"regexp_replace({text}, '^0+([0-9a-zA-Z])', '\1')",
}


class Meeting(NamedTuple):
    """The normalisations with which ids of one table are those of another, their share, and one of each."""

    names: tuple[str, ...]
    share: float
    left: str
    right: str


def whole(text: str) -> str:
    """SQL for an id in text files: pandas writes a whole number beside missing ones as 1037.0."""
    return rf"regexp_replace({text}, '^(-?\d+)\.0$', '\1')"


def normalised(text: str, names: Collection[str]) -> str:
    """SQL for an id with these normalisations."""
    for name, sql in NORMALISATIONS.items():
        if name in names:
            text = sql.replace("{text}", text)
    return text


def tag(names: Collection[str]) -> str:
    """What stands before an id with these normalisations on the list of erased users."""
    return ",".join(sorted(names)) + "\x1f"


def plain_forms(ids: Collection[str]) -> set[str]:
    """Ids as given and as ingest always reads them: trimmed, and 7.0 as 7."""
    trimmed = {each.strip() for each in ids}
    return ({*ids} | trimmed | {re.sub(r"^(-?\d+)\.0$", r"\1", each) for each in trimmed}) - {""}


def tagged_forms(ids: Collection[str]) -> set[str]:
    """Ids with every choice of normalisations, whichever a recipe declares later."""
    every = [names for size in range(1, len(NORMALISATIONS) + 1) for names in combinations(NORMALISATIONS, size)]
    return set().union(*({tag(names) + form for form in forms} for names, forms in zip(every, _written(ids, every))))


def _written(ids: Collection[str], choices: Collection[tuple[str, ...]]) -> list[set[str]]:
    """Ids with each of some choices of normalisations, without empty ones."""
    import duckdb

    with duckdb.connect() as db:
        db.execute("CREATE TABLE ids AS SELECT unnest($1::VARCHAR[]) AS id", [sorted(ids)])
        return [
            {form for (form,) in db.execute(f"SELECT {normalised('id', names)} FROM ids").fetchall() if form}
            for names in choices
        ]


def find_meeting(db: Any, left: str, right: str) -> Meeting:
    """The fewest normalisations with which the most ids of one query are among those of another; none if none helps.

    Both queries have one column `id`.
    """
    sample = f"SELECT DISTINCT id FROM ({left}) WHERE id IS NOT NULL ORDER BY id LIMIT {MAX_IDS}"

    def share(names: Collection[str]) -> float:
        keys = f"SELECT {normalised('id', names)} FROM ({right}) WHERE id IS NOT NULL"
        query = f"SELECT avg(CAST({normalised('id', names)} IN ({keys}) AS INTEGER)) FROM ({sample})"
        return float(db.execute(query).fetchall()[0][0] or 0)

    names = list(NORMALISATIONS)
    best = share(names)
    # what changes an id most goes first
    for name in ("prefix", "zeros", "fraction", "case", "guid", "blanks", "accents"):
        if share(fewer := [each for each in names if each != name]) >= 0.99 * best:
            names = fewer
    if not best:
        names = []
    same = f"{normalised('other.id', names)} = {normalised('sampled.id', names)}" if best else "true"
    pairs = db.execute(
        f"SELECT sampled.id, other.id FROM ({sample}) AS sampled JOIN ({right}) AS other ON {same} "
        "WHERE other.id IS NOT NULL ORDER BY ALL LIMIT 1"
    ).fetchall()
    left_id, right_id = pairs[0] if pairs else ("", "")
    return Meeting(tuple(names), best, left_id, right_id)
