"""What may be in the free text of an event: who and why are printed by terminals and pages for as long as it exists."""

from __future__ import annotations

import re

from rankline.errors import UsageError

# control characters, line and paragraph separators, marks that reorder text, halves of surrogate pairs
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_REFUSED = re.compile(rf"(?![\t\n\r]){_CONTROL.pattern}")


def one_line(text: str) -> str:
    """The text with spaces in place of line breaks and of what terminals and browsers obey instead of showing it."""
    return _CONTROL.sub(" ", text)


def refuse_control_characters(field: str, text: str) -> None:
    """Refuse a text that a terminal or a browser would not show as it is.

    Raises:
        UsageError: it has a control character, a mark that reorders text, or half of a surrogate pair.
    """
    if wrong := _REFUSED.search(text):
        raise UsageError(
            f"{field} has a character that cannot be shown",
            expected="text without control characters and marks that reorder it",
            found=f"U+{ord(wrong[0]):04X}",
            hint="type the text instead of pasting it",
        )
