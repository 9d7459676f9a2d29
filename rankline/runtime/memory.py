"""Out of memory: whether an error means that, and one message that names settings that need less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from rankline.errors import OutOfMemory, RanklineError

# what torch, DuckDB, Arrow and ONNX Runtime say in exceptions of their own
_PHRASES = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "bad allocation")
MEMORY_LIMIT = "memory_limit_mb"  # the setting for DuckDB's own limit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out."""
    if isinstance(error, RanklineError):
        return False
    return isinstance(error, MemoryError) or any(phrase in str(error).lower() for phrase in _PHRASES)


@contextmanager
def explain_out_of_memory(step: str, config: BaseModel) -> Iterator[None]:
    """Turn running out of memory into one message, with the settings that ``config.smaller()`` names.

    Raises:
        OutOfMemory: memory ran out.
    """
    try:
        yield
    except Exception as error:  # every library has exceptions of its own
        if not is_out_of_memory(error):
            raise
        cause = (str(error).strip().splitlines() or ["no memory for another object"])[0]
        reductions: dict[str, tuple[Any, Any]] = getattr(config, "smaller", dict)()
        limit = getattr(config, MEMORY_LIMIT, 0)
        if limit and cause.endswith(" used)"):  # DuckDB's own limit, not the machine's
            reductions = {**reductions, MEMORY_LIMIT: (limit, 2 * limit)}
        settings = "; ".join(f"{step}.{name}={smaller} (now {now})" for name, (now, smaller) in reductions.items())
        raise OutOfMemory(
            f"{step} ran out of memory",
            expected="a step that fits into memory",
            found=cause,
            hint=f"smaller settings, the most effective first: {settings}" if settings else "give the step more memory",
        ) from error


def halved_settings(config: BaseModel, *names: str, minimum: int = 1) -> dict[str, tuple[Any, Any]]:
    """Setting -> (its value, half of it), without those whose half is below ``minimum``."""
    now = {name: getattr(config, name) for name in names}
    return {name: (value, value // 2) for name, value in now.items() if value // 2 >= minimum}
