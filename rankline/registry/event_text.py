"""What may be in the free text of an event: who and why are printed by terminals and pages for as long as it exists."""

from __future__ import annotations

import unicodedata

from rankline.errors import UsageError

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SPACES = frozenset("\t\n\r")


def one_line(text: str) -> str:
    """The text with spaces in place of line breaks and of what terminals and browsers obey instead of showing it."""
    return "".join(" " if _is_control(each) else each for each in text)


def refuse_control_characters(field: str, text: str) -> None:
    """Refuse a text that a terminal or a browser would not show as it is.

    Raises:
        UsageError: it has a control character, a mark that reorders text, or half of a surrogate pair.
    """
    wrong = next((each for each in text if _is_control(each) and each not in _SPACES), None)
    if wrong is not None:
        raise UsageError(
            f"{field} has a character that cannot be shown",
            expected="text without control characters and marks that reorder it",
            found=f"U+{ord(wrong):04X}",
            hint="type the text instead of pasting it",
        )


def _is_control(character: str) -> bool:
    return character in _BIDI or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
