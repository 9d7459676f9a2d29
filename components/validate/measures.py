"""measures.json: the numbers of a validation that gates can name, as data.events_rows_change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MEASURES = "measures.json"


def measures(
    profile: Mapping[str, Any],
    summary: Mapping[str, Any],
    changes: Mapping[str, float],
    results: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Rows and the share that was set aside of every table, what changed, failed expectations; and the newest event.

    ``changes`` are those since the profile of the last good run; what cannot be compared with it is null.
    """
    numbers: dict[str, float | None] = {}
    for table, rows in profile["rows"].items():
        rejected = sum(summary.get("rejected", {}).get(table, {}).values())
        numbers[f"{table}_rows"] = float(rows)
        numbers[f"{table}_rejected_share"] = rejected / (rows + rejected) if rows + rejected else 0.0
    numbers["failed_expectations"] = float(sum(not result["success"] for result in results))
    drifting = [*profile["labels"], *(["price"] if "prices" in profile else [])]
    drifting += ["feedback"] if "feedback" in profile else []
    compared = [*(f"{table}_rows_change" for table in profile["rows"]), *(f"{name}_drift" for name in drifting)]
    return {"data": {**numbers, **dict.fromkeys(compared), **changes}, "newest_event": profile["event_time"]["last"]}
