"""How numbers and tables are printed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence


def format_bytes(count: float) -> str:
    """A size in bytes: 512 B, 1.3 kB, 2.0 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_duration(seconds: float) -> str:
    """A duration as it is measured: 8.3 s, 1:12."""
    return f"{seconds:.1f} s" if seconds < 59.95 else f"{round(seconds) // 60}:{round(seconds) % 60:02d}"


def format_age(seconds: float) -> str:
    """A long duration in one unit: 45 s, 12 min, 3.5 h, 12 d."""
    if seconds < 0:
        return f"{format_age(-seconds)} ahead"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"


def aligned_lines(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows as lines with aligned columns; ``right`` are the numbers of the columns aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{'>' if n in right else '<'}{widths[n]}}" for n, cell in enumerate(row)).rstrip()
        for row in rows
    ]


def fitted(lines: Sequence[str]) -> list[str]:
    """Lines cut to the width of the terminal; without a terminal they keep their length."""
    width = shutil.get_terminal_size((1000, 24)).columns
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]
