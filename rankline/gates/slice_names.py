"""The slices that a policy may name: those of the report, and those that had no request this time."""

from __future__ import annotations

import re

from rankline.evaluation.report import Report
from rankline.gates.evidence import Evidence
from rankline.gates.measures import refuse_unknown

# evaluations of earlier versions left out those with few requests
FIXED = (
    "user: new", "user: established", "query: short", "query: long", "item: new", "item: head", "item: tail",
    "day: weekday", "day: weekend", "visit: same day", "visit: after a day or more",
)  # fmt: skip
_ATTRIBUTE = re.compile(r"(category: |[^=]+=)(.+)")  # "item.category=Drama"


def refuse_unknown_slice(name: str, report: Report, evidence: Evidence, *, gate: str) -> None:
    """Refuse a slice that no evaluation of this recipe has; a value of a known attribute may be absent for once.

    Raises:
        UsageError: the slice is unknown; with those that are like it.
    """
    known = {*FIXED, *report.slices, *evidence.slices}
    attribute = _ATTRIBUTE.fullmatch(name)
    if attribute and any(each.startswith(attribute[1]) for each in known):
        return
    refuse_unknown(name, known, what="slice", gate=gate)
