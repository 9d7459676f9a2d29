"""One page of a long list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")
Shown = TypeVar("Shown")
ROWS = 50


@dataclass(frozen=True)
class Page(Generic[Row]):
    """The rows of a page, and where in the list they are."""

    rows: Sequence[Row]
    number: int
    pages: int
    total: int

    @property
    def first(self) -> int:
        """The place of the first row, from 1; 0 in an empty list."""
        return (self.number - 1) * ROWS + 1 if self.rows else 0

    def showing(self, rows: Sequence[Shown]) -> Page[Shown]:
        """The same page with other rows, such as those that are shown of these."""
        return Page(rows, self.number, self.pages, self.total)


def page_of(rows: Sequence[Row], number: int) -> Page[Row]:
    """A page of some rows, from 1; a number beyond the last page is the last page."""
    pages = max(1, -(-len(rows) // ROWS))
    number = min(max(number, 1), pages)
    return Page(rows[(number - 1) * ROWS : number * ROWS], number, pages, len(rows))
