"""The ids of users to erase, in every form in which files may hold them."""

from __future__ import annotations

import functools
import html
import json
import re
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

ERASED = "[erased]"
MIN_WORD = 3  # shorter ones are in any free text
MIN_BINARY_BYTES = 8  # shorter ones are in any large file of weights by chance
_BEFORE, _AFTER = r"(?<![\w@-])(?<!\w\.)", r"(?![\w@-])(?!\.\w)"  # what is no part of a longer id
_REQUEST = re.compile(r"(?:train|valid|test):(?P<user>.*):[^:]*", re.DOTALL)
_USER_COLUMN = re.compile(r"(.*[_. ])?(user([_ ]?(id|key|name))?|uid)s?", re.IGNORECASE)
# what tells a number or a letter that is a user from one that is not
_NAMED_USER = r"""(?:(?i:\busers?[\s_-]*(?:ids?\b)?["']?\s*[:=]?\s*["'\[(]*)|\b(?:train|valid|test):)"""


@dataclass(frozen=True)
class UserIds:
    """Some users, by each form of their ids: as given, normalised, hashed; and what columns of users are called."""

    forms: frozenset[str]
    columns: frozenset[str] = frozenset()  # besides those that say so themselves
    normalisations: frozenset[tuple[str, ...]] = frozenset()  # of ids, as the recipes declare them

    def are_in_column(self, name: str) -> bool:
        """Whether the values of a column are users; RecBole names columns with their types."""
        plain = name.partition(":")[0]
        return plain in self.columns or _USER_COLUMN.fullmatch(plain) is not None

    def among(self, values: Iterable[Any]) -> set[Any]:
        """Those of some values that are one of the users, as ingest reads them: trimmed, 7.0 as 7, normalised."""
        texts = {
            value: _as_ingested(value) for value in values if isinstance(value, str | bytes | int | float | Decimal)
        }
        matches = {value for value, text in texts.items() if text in self.forms}
        for names in self.normalisations:
            matches |= {value for value, text in zip(texts, _normalised(texts.values(), names)) if text in self.forms}
        return {value for value in matches if _as_ingested(value)}

    def is_mentioned(self, text: str) -> bool:
        """Whether free text has one of the users as a word, which may be anything else."""
        pattern = self._mention
        return pattern is not None and pattern.search(text) is not None

    def is_clear(self, value: Any) -> bool:
        """Whether a value can be nothing but a user."""
        text = _as_ingested(value)
        return len(text) >= MIN_WORD and not _is_ambiguous(text)

    @functools.cached_property
    def _mention(self) -> re.Pattern[str] | None:
        words = [form for form in self.forms if len(form) >= MIN_WORD and not _is_number(form)]
        return re.compile(f"{_BEFORE}(?:{_alternatives(words)}){_AFTER}") if words else None

    def is_in_request(self, request_id: str) -> bool:
        """Whether the id of a request is that of a user's: split:user:number."""
        match = _REQUEST.fullmatch(request_id)
        return match is not None and match["user"] in self.forms

    def is_in(self, text: str) -> bool:
        """Whether a text names one of the users."""
        return any(pattern.search(text) for pattern in self._patterns)

    def redact(self, text: str) -> str:
        """A text without the users."""
        for pattern in self._patterns:
            text = pattern.sub(lambda match: match[0][: match.start("id") - match.start()] + ERASED, text)
        return text

    def is_in_bytes(self, content: bytes) -> bool:
        """Whether bytes that are no text hold an id that is too long to be there by chance."""
        return self._binary is not None and self._binary.search(content) is not None

    @functools.cached_property
    def _binary(self) -> re.Pattern[bytes] | None:
        encoded = [form.encode() for form in self.forms]
        long = sorted(re.escape(form) for form in encoded if len(form) >= MIN_BINARY_BYTES)
        return re.compile(rb"(?<![\w@-])(?:" + b"|".join(long) + rb")(?![\w@-])") if long else None

    @functools.cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        """One for ids that stand for themselves, one for those that only mean a user where a text says so."""
        plain = [form for form in self.forms if not _is_ambiguous(form)]
        named = [form for form in self.forms if _is_ambiguous(form)]
        patterns = []
        if plain:
            patterns.append(re.compile(f"{_BEFORE}(?P<id>{_alternatives(plain)}){_AFTER}"))
        if words := [form for form in named if len(form) >= MIN_WORD and _is_word(form)]:  # alone in a cell of a report
            patterns.append(re.compile(f"<td[^>]*>\\s*(?P<id>{_alternatives(words)})(?=\\s*</td>)"))
        if named:
            patterns.append(re.compile(f"{_NAMED_USER}(?P<id>{_alternatives(named)}){_AFTER}"))
        return patterns


def _is_ambiguous(form: str) -> bool:
    """Whether a word of a text with this id need not be a user: it is a small number, a letter, or a plain word."""
    return len(form) < 2 or _is_number(form) or _is_word(form)


def _is_word(form: str) -> bool:
    return form.isascii() and form.isalpha()  # max, which programs write as well


def _is_number(form: str) -> bool:
    return len(form) < 9 and re.fullmatch(r"[\d.,+-]+", form) is not None


def _as_ingested(value: Any) -> str:
    """An id as ingest reads it; empty for what is none."""
    if isinstance(value, bool) or value is None:
        return ""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text.strip())


def _normalised(texts: Iterable[str], names: tuple[str, ...]) -> list[str]:
    import duckdb

    from components.ingest.ids import normalised

    query = f"SELECT list_transform($1::VARCHAR[], lambda each: {normalised('each', names)})"
    with duckdb.connect() as db:
        return list(db.execute(query, [list(texts)]).fetchall()[0][0])


def _alternatives(forms: Iterable[str]) -> str:
    """The forms as they are written in text, JSON, HTML and URLs, the longest first."""
    written = {each for form in forms for each in (form, *_escaped(form))}
    return "|".join(re.escape(each) for each in sorted(written, key=lambda each: (-len(each), each)))


def _escaped(form: str) -> tuple[str, ...]:
    by_templates = html.escape(form).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")  # as Jinja writes quotes
    in_json = [json.dumps(form, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
    return *in_json, html.escape(form), by_templates, urllib.parse.quote(form, safe="")
