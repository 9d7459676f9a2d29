"""Quantities of CPU and memory in the notation of Kubernetes: 500m, 2, 8Gi, or a plain number of bytes."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

CPU = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)[numk]?$"
MEMORY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([numkKMGTPE]|[KMGTPE]i|[eE][0-9]+)?$"
_UNITS = {"": Decimal(1), "k": Decimal(1000), "m": Decimal("1e-3"), "u": Decimal("1e-6"), "n": Decimal("1e-9")} | {
    f"{letter}{binary}": Decimal(1024 if binary else 1000) ** power
    for power, letter in enumerate("KMGTPE", 1)
    for binary in ("", "i")
}
# what kfp accepts of it, and Kubernetes, too: kfp knows no fractions, Kubernetes no K
_PORTABLE = re.compile(r"^[0-9]+([MGTPE]|[KMGTPE]i)?$")
_PORTABLE_CPU = re.compile(r"^([0-9]*\.)?[0-9]+m?$")


def parse_quantity(quantity: str) -> Decimal:
    """The CPUs or bytes of a quantity.

    Raises:
        ValueError: it is none.
    """
    if not (re.match(CPU, quantity) or re.match(MEMORY, quantity)):
        raise ValueError(f"{quantity!r} is no quantity")
    if re.search("[eE][0-9]", quantity):
        return Decimal(quantity)
    number = quantity.rstrip("numkKMGTPEi")
    return Decimal(number) * _UNITS[quantity[len(number) :]]


def cpu_text(value: Any) -> Any:
    """A number of CPUs as text.

    Raises:
        ValueError: it is none that Kubernetes understands.
    """
    return _text(value, CPU, "a number of CPUs such as 2, 0.5 or 500m")


def memory_text(value: Any) -> Any:
    """An amount of memory as text.

    Raises:
        ValueError: it is none that Kubernetes understands.
    """
    return _text(value, MEMORY, "an amount of memory such as 8Gi, 512Mi or a number of bytes")


def portable_memory(quantity: str) -> str:
    """The quantity as both kfp and Kubernetes read it: in bytes where they do not share its notation."""
    return quantity if _PORTABLE.match(quantity) else str(math.ceil(parse_quantity(quantity)))


def portable_cpu(quantity: str) -> str:
    """The quantity of CPUs as both read it: in thousandths, rounded up, where they do not share its notation."""
    return quantity if _PORTABLE_CPU.match(quantity) else f"{math.ceil(parse_quantity(quantity) * 1000)}m"


def _text(value: Any, pattern: str, expected: str) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and value and (not re.match(pattern, value) or not parse_quantity(value)):
        raise ValueError(f"{expected}, more than 0")
    return value
