"""Files of one folder that are one table, though their names have nothing in common but what changes."""

from __future__ import annotations

import itertools
import re
from fnmatch import fnmatchcase

from components.ingest.config import IngestConfig
from components.ingest.readers.tables import file_part
from onboarding.inference.event_words import event_label
from onboarding.inference.vocabulary import SUBJECT_WORDS, is_id, name_tokens, name_words
from rankline.errors import SourceError
from rankline.io import sources

MAX_GROUPS = 400  # whose columns are compared
COPIES = {"copy", "backup", "bak", "old", "orig", "original", "sample", "tmp", "temp", "raw", "clean", "processed"}
Groups = dict[str, list[str]]  # place -> its files


def merge_same_columns(source: str, groups: Groups) -> Groups:
    """The groups, with those of one folder that have the same columns as one.

    Names that differ in words are tables of their own at the top of a source, and wherever a word says a split (train,
    test) or what happened (clicks, purchases).
    """
    merged: Groups = {}
    siblings: dict[tuple[str, str, str], Groups] = {}
    for place, paths in groups.items():
        parent, _, name = place.rpartition("/")
        if "=" in place or "**" in place or not sources.File(name).kind or len(groups) > MAX_GROUPS:
            merged[place] = paths
            continue
        words = "" if parent and _says_nothing(name) else _changing_parts(name)
        siblings.setdefault((parent, sources.File(name).kind, words), {})[place] = paths
    for (parent, _, words), alike in siblings.items():
        if len(alike) == 1:
            merged |= alike
            continue
        by_columns: dict[tuple[str, ...], Groups] = {}
        for place, paths in alike.items():
            by_columns.setdefault(_columns(source, paths[0]) or (place,), {})[place] = paths
        for same in by_columns.values():
            pattern = f"{parent}/{words or '*'}".lstrip("/")
            files = sorted(path for paths in same.values() for path in paths)
            others = {path for place, paths in groups.items() if place not in same for path in paths}
            suffix = "".join(re.findall(r"[.][a-z0-9]+$", files[0]))
            pattern = pattern if words else f"{pattern}{suffix}"
            if len(same) > 1 and not any(fnmatchcase(path, pattern) for path in others):
                merged[pattern] = files
            else:
                merged |= same
    return merged


def join_places(source: str, groups: Groups) -> Groups:
    """The groups, with those that are one table in several places as one.

    These are logs that are named after what happened (clicks, impressions) and share their keys, and tables of one
    folder with the same columns, whose names say no split.
    """
    columns = {place: _columns(source, paths[0]) for place, paths in groups.items() if _is_free(place)}
    joined = {place: [place] for place in groups}
    for first, second in itertools.combinations(columns, 2):
        if joined[first] is not joined[second] and _are_one_table(first, second, columns):
            together = joined[first] + joined[second]
            joined |= dict.fromkeys(together, together)
    merged: Groups = {}
    for places in {id(each): each for each in joined.values()}.values():
        paths = sorted(path for place in places for path in groups[place])
        others = {path for place, each in groups.items() if place not in places for path in each}
        merged[_place_of(places, others) if len(places) > 1 else places[0]] = paths
    return merged


def _is_free(place: str) -> bool:
    return "=" not in place and "**" not in place and bool(sources.File(place).kind)


def _are_one_table(first: str, second: str, columns: dict[str, tuple[str, ...]]) -> bool:
    """Whether two places are parts of one table."""
    (home, name), (other_home, other_name) = _home(first), _home(second)
    words = set(name_tokens(name)) | set(name_tokens(other_name))
    if home != other_home or not words.isdisjoint(COPIES | set(sources.SPLIT_NAMES)):
        return False
    shared = set(columns[first]) & set(columns[second])
    subjects = [{key for key in shared if name_words(key) & SUBJECT_WORDS[each]} for each in ("user", "item")]
    labels = event_label(name), event_label(other_name)
    if all(labels):
        return all(subjects)
    has_key = any(is_id(key) for keys in subjects for key in keys)
    return labels == (None, None) and has_key and columns[first] == columns[second]


def _home(place: str) -> tuple[str, str]:
    """The folder of a table, in which numbers are alike, and its name; files that are called part are the folder's."""
    parent, _, name = place.rpartition("/")
    name = name.split(".")[0]
    if parent and re.fullmatch(r"(part|data|file)?[-_*\d]*", name):
        parent, _, name = parent.rpartition("/")
    return re.sub(r"\d+", "*", parent), name


def _place_of(places: list[str], others: set[str]) -> str:
    """The place of a table in several: a pattern if its files begin alike and differ in what says nothing."""
    prefix = re.match(r"(.*[-_./ ])?", _common_start(places))
    suffix = places[0].rpartition("/")[2].partition(".")[2]
    pattern = f"{prefix[0] if prefix else ''}*.{suffix}"
    is_plain = not any("*" in place or event_label(_home(place)[1]) for place in places)
    alike = pattern[0] != "*" and all("/" not in place[len(pattern) - len(suffix) - 2 :] for place in places)
    fits = all(fnmatchcase(place, pattern) for place in places)
    if is_plain and alike and fits and not any(fnmatchcase(path, pattern) for path in others):
        return pattern
    return sources.BETWEEN_PLACES.join(sorted(places))


def _common_start(places: list[str]) -> str:
    """What all places begin with."""
    alike = itertools.takewhile(lambda signs: len(set(signs)) == 1, zip(*places, strict=False))
    return "".join(signs[0] for signs in alike)


def _changing_parts(name: str) -> str:
    """A name with * for each part that has a digit, or looks like one of a random id."""
    parts = re.split(r"([-_.])", name)
    return "".join("*" if re.search(r"[\d*]", part) or re.fullmatch(r"[a-f]{4,}", part) else part for part in parts)


def _says_nothing(name: str) -> bool:
    """Whether a name says neither a split nor what happened."""
    parts = re.split(r"[-_\s]+", name.partition(".")[0].lower())
    words = [word for part in parts if not _is_id(part) for word in re.findall(r"[^\W\d_]+", part)]
    return not any(word in sources.SPLIT_NAMES or event_label(word.removesuffix("s")) is not None for word in words)


def _is_id(part: str) -> bool:
    """Whether a part of a name is an id, whose letters are no words: 01ARZ3NDEKTSV4RRFFQ69G5FAV."""
    return len(part) >= 16 and re.search(r"[\d*]", part) is not None  # * stands for digits


def _columns(source: str, path: str) -> tuple[str, ...]:
    """The names of a file's columns; empty if they cannot be read."""
    place = path if "://" in path else f"{source.rstrip('/')}/{path}"
    config = IngestConfig(source=source, format="tables", items_from_events=True)
    try:
        part = file_part("events", sources.File(place), config)
    except (SourceError, ValueError):
        return ()
    return tuple(sorted(part.columns))
