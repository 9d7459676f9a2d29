"""How long a name or a text may be on a cluster. Everything is checked before anything is created.

The API server refuses a long name of a pipeline, a version or an experiment, in bytes. The other texts are columns of
its database, in characters: one that is too long is found out only after Kubernetes has been given the object, which
then runs without being listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from rankline.errors import UsageError


class Limit(NamedTuple):
    """The largest size of a text."""

    most: int
    unit: Literal["bytes", "characters"]
    may_be_empty: bool = False
    hint: str = ""

    def size(self, text: str) -> int:
        """The size of a text in this unit."""
        return len(text.encode()) if self.unit == "bytes" else len(text)


COLUMN = 255  # characters of a column without a size of its own (varchar(255) on MySQL)
LIMITS = {
    "pipeline name": Limit(128, "bytes"),
    "pipeline version name": Limit(127, "bytes"),
    "experiment name": Limit(128, "bytes"),
    "namespace": Limit(63, "bytes", may_be_empty=True),
    "run name": Limit(COLUMN, "characters"),
    "recurring run name": Limit(COLUMN, "characters"),
    "description": Limit(COLUMN, "characters", may_be_empty=True),  # of a run, a recurring run, an experiment
    "pipeline description": Limit(65_535, "bytes", may_be_empty=True),
    "cron expression": Limit(COLUMN, "characters"),
    "service account": Limit(253, "bytes", may_be_empty=True),
    # Kubernetes keeps it in the object of each run
    "package": Limit(700_000, "bytes", hint="fewer or shorter settings: the package repeats those of each step"),
}


def check_limits(texts: Mapping[str, str]) -> None:
    """Refuse texts that a cluster cannot store; each is named by its entry in LIMITS.

    Raises:
        UsageError: naming the first of them.
    """
    for name, text in texts.items():
        limit = LIMITS[name]
        size = limit.size(text)
        if size > limit.most:
            raise UsageError(
                f"a cluster cannot store this {name}",
                expected=f"at most {limit.most} {limit.unit}",
                found=f"{size} {limit.unit}" + ("" if "\n" in text else f": {shorten(text, 80)}"),
                hint=limit.hint or f"shorten the {name}",
            )
        if not text and not limit.may_be_empty:
            raise UsageError(f"the {name} is empty", expected=f"1 to {limit.most} {limit.unit}", found="nothing")


def shorten(text: str, most: int = COLUMN) -> str:
    """The beginning of a text, with an ellipsis where it has been cut."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
