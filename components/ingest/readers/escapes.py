r"""Escaped characters in text files, such as \" and \, of MySQL and Spark.

While a file is split into records, an escaped character is a character of Unicode's private use area, which neither
quotes nor separates. Afterwards it becomes what it stands for.
"""

import re
from typing import Any

from components.ingest.readers.stream import ConvertedStream
from rankline.io.sql import literal

PRIVATE = 0xE000  # an escaped character is this much further up
CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "0": " ", "b": " ", "Z": " "}
NULL = chr(PRIVATE + ord("N"))  # \N alone is a missing value
_ESCAPED = "".join(chr(PRIVATE + code) for code in range(128))
_PLAIN = "".join(CONTROLS.get(chr(code), chr(code) if code else " ") for code in range(128))
_TO_PLAIN = str.maketrans(_ESCAPED, _PLAIN)


class EscapedStream(ConvertedStream):
    """A stream of UTF-8 in which every escaped ASCII character is replaced by its private one."""

    def __init__(self, stream: Any, escape: str) -> None:
        super().__init__(stream)
        self._pattern = re.compile(re.escape(escape.encode()) + rb"([\x00-\x7f])")
        self._escape, self._rest = escape.encode(), b""

    def convert(self, block: bytes) -> bytes:
        text = self._rest + block
        trailing = len(text) - len(text.rstrip(self._escape))
        # the last escape sign belongs to the next block's first character
        cut = len(text) - (trailing % 2 if block else 0)
        self._rest = text[cut:]
        return self._pattern.sub(lambda match: chr(PRIVATE + match[1][0]).encode(), text[:cut])


def plain(text: str) -> str:
    """A text with the characters that its escaped ones stand for."""
    return text.translate(_TO_PLAIN)


def unescaped(cell: str) -> str:
    """The same in SQL; null for an escaped N alone."""
    return f"translate(nullif({cell}, {literal(NULL)}), {literal(_ESCAPED)}, {literal(_PLAIN)})"
