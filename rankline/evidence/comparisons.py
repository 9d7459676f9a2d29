"""Single requests on which the candidate won or lost most: `comparisons.json` of an evaluation.

It names users: an erasure removes their requests from it, and from the pages that show them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from rankline.contracts import FrozenModel

COMPARISONS = "comparisons.json"
# each request of a page; its text is escaped, so it holds no tag of this name
_ARTICLE = re.compile(r"<article\b.*?</article>\s*", re.DOTALL)


class ListedItem(FrozenModel):
    """An item of a list; ``features`` are those that the scorer read, of the candidate's first items only."""

    item_id: str
    title: str
    hit: bool = Field(description="whether it is a target of the request")
    categories: list[str] = Field(default=[])
    features: dict[str, float] = Field(default={})


class Compared(FrozenModel):
    """One request, and what both systems answered."""

    request_id: str
    user_id: str | None = None
    query: str | None = None
    at: float = Field(description="time of the request, in unix seconds")
    history: list[str] = Field(description="titles of the last items of the history, oldest first")
    history_length: int
    targets: list[str] = Field(description="titles")
    candidate_score: float
    other_score: float
    candidate: list[ListedItem]
    other: list[ListedItem]

    @property
    def label(self) -> str:
        """The user, the query, or both."""
        user = f"user {self.user_id}" if self.user_id is not None else ""
        return ": ".join(part for part in (user, self.query) if part) or f"request {self.request_id}"


class Comparisons(FrozenModel):
    """The biggest wins and losses of the candidate against another system, the biggest first."""

    metric: str
    other: str = Field(description="the system: the champion, or the strongest baseline")
    requests: int
    better: int
    worse: int
    wins: list[Compared]
    losses: list[Compared]


def one_line(text: str, limit: int) -> str:
    """A text of the data in one line of at most ``limit`` characters, without those that cannot be printed."""
    plain = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return plain if len(plain) <= limit else plain[: limit - 1].rstrip() + "…"


def write_comparisons(folder: Path, comparisons: Comparisons | None) -> None:
    """Write ``comparisons.json``; nothing where there was no system to compare with."""
    if comparisons is not None:
        (folder / COMPARISONS).write_text(comparisons.model_dump_json(indent=1) + "\n")


def read_comparisons(folder: Path) -> Comparisons | None:
    """The comparisons of an evaluation; None for one of another version."""
    try:
        return Comparisons.model_validate_json((folder / COMPARISONS).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def without_users(text: str, names_user: Callable[[str], bool]) -> str:
    """The text of ``comparisons.json`` without the requests whose text names one of some users."""
    try:
        content = json.loads(text)
        for side in ("wins", "losses"):
            content[side] = [each for each in content[side] if not names_user(json.dumps(each))]
    except (ValueError, KeyError, TypeError):
        return text
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def page_without_users(html: str, names_user: Callable[[str], bool]) -> str:
    """A page without the requests that name one of some users."""
    return _ARTICLE.sub(lambda match: "" if names_user(match[0]) else match[0], html)
