"""Files of one folder that are one table, though their names have nothing in common but what changes."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from components.ingest.config import IngestConfig
from components.ingest.readers.tables import file_part
from onboarding.inference.event_words import event_label
from rankline.errors import SourceError
from rankline.io import sources

MAX_GROUPS = 400  # whose columns are compared
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
