"""The templates, and how they write times, ids and numbers."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rankline.utc import parse_utc

TEMPLATES = Path(__file__).parent / "templates"
_ISO_TIME = re.compile(r"\b(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)")
STATIC = Path(__file__).parent / "static"


class Pages:
    """Renders templates for a console whose paths in the browser begin with ``base_path``."""

    def __init__(self, base_path: str) -> None:
        self._base = base_path
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
            lstrip_blocks=True,
        )  # fmt: skip
        self._templates.globals.update(link=self.link)
        self._templates.filters.update(when=when, short=short, dated=dated, number=number, words=words, percent=percent)

    def link(self, path: str, **query: Any) -> str:
        """The address of a page; parts of the query that are empty are left out."""
        given = {name: value for name, value in query.items() if value not in ("", None)}
        return self._base + quote(path) + (f"?{urlencode(given)}" if given else "")

    def render(self, template: str, context: dict[str, Any]) -> str:
        """The HTML of a page."""
        return self._templates.get_template(template).render(context)


def when(at: str) -> Markup:
    """An ISO time, to the second and in UTC."""
    try:
        parsed = parse_utc(at)
    except ValueError:
        return Markup.escape(at)
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M:%S} UTC</time>').format(parsed.isoformat(), parsed)


def dated(text: str) -> str:
    """A sentence whose ISO times in UTC are written as `when` writes them."""
    return _ISO_TIME.sub(r"\1 \2 UTC", text)


def short(identifier: str) -> str:
    """The beginning of an id or a digest."""
    return identifier[:12]


def number(value: object, signed: bool = False) -> str:
    """A number to four digits; a text as it is."""
    if value is None:
        return "—"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "not a number"
    return f"{value:+.4g}" if signed else f"{value:.4g}"


def percent(value: float | None) -> str:
    """A share as percent."""
    return "—" if value is None else f"{value:.1%}"


def words(kind: str) -> str:
    """A kind of event in words."""
    return kind.replace("_", " ")
