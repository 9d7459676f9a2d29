"""The profile of a data set: what the next run's drift check compares against.

`validate` writes `profile.json` into its output. After success the door keeps it in the workspace, together
with the one before it: a run over the very same data is compared with what its first run was compared with,
so repeating a run changes nothing and can be reused.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.validate.config import ValidateConfig
from rankline.io import digest
from rankline.runtime import ledger

BINS = 20


def describe(
    db: Any,
    *,
    summary: dict[str, Any],
    present: list[str],
    labels: list[str],
    scales: dict[str, tuple[float, float]],
    columns: dict[str, dict[str, str]],
) -> dict[str, Any]:
    """Rows and columns a table and a histogram a label, from the DuckDB views of the tables."""
    histograms = {}
    for label in labels:
        low, high = scales[label]
        bin_index = f"least({BINS - 1}, floor(({label} - {low}) / {high - low} * {BINS}))"
        query = f"SELECT CAST({bin_index} AS INTEGER), count(*) FROM events WHERE {label} BETWEEN {low} AND {high} GROUP BY 1"
        counts = dict(db.execute(query).fetchall())
        histograms[label] = {"scale": [low, high], "counts": [counts.get(bin, 0) for bin in range(BINS)]}
    return {
        "data_digest": summary["data_digest"],
        "rows": {table: db.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in present},
        "columns": columns,
        "event_time": summary["event_time"],
        "labels": histograms,
    }


def changes(now: dict[str, Any], before: dict[str, Any] | None) -> dict[str, float]:
    """`<table>_rows_change` (share of the rows before) and `<label>_drift` (share of values that moved)."""
    if before is None:
        return {}
    numbers = {
        f"{table}_rows_change": round((now["rows"][table] - rows) / max(rows, 1), 6)
        for table, rows in before["rows"].items()
        if table in now["rows"]
    }
    for label, past in before["labels"].items():
        current = now["labels"].get(label, {"scale": past["scale"], "counts": [0] * BINS})
        if current["scale"] == past["scale"]:
            numbers[f"{label}_drift"] = round(_total_variation(current["counts"], past["counts"]), 6)
    return numbers


def clock_behind(before: dict[str, Any] | None, clock: datetime) -> dict[str, float]:
    """`clock_behind_days`: by how much a run's clock is behind what the last good run already knew."""
    last = (before or {}).get("event_time", {}).get("last")
    if last is None:
        return {}
    return {"clock_behind_days": round((datetime.fromisoformat(last) - clock).total_seconds() / 86_400, 6)}


def _total_variation(now: list[int], before: list[int]) -> float:
    """Total variation: the share of one histogram that moves to make the other; 1 where one is empty."""
    if not sum(now) or not sum(before):
        return float(bool(sum(now)) != bool(sum(before)))
    return sum(abs(a / sum(now) - b / sum(before)) for a, b in zip(now, before)) / 2


def previous_profile(workspace: Path, name: str, raw: Path) -> Path | None:
    """The kept profile that data in ``raw`` is to be compared with; none on the first run."""
    return previous_profile_for(workspace, name, data_digest(raw))


def data_digest(raw: Path) -> str | None:
    """The digest of ingested data; None where its summary cannot be read."""
    return _read_json(raw / "summary.json").get("data_digest")


def previous_profile_for(workspace: Path, name: str, data: str | None) -> Path | None:
    """The kept profile that data of this digest is to be compared with."""
    for path in _profile_paths(workspace, name):
        if _read_json(path).get("data_digest", data) != data:
            return path
    return None


def lineage(profile: Path | None, config: ValidateConfig) -> dict[str, str]:
    """What decides the outcome beside tables and settings: the comparison, and the day if age counts."""
    reasons = {"previous profile": digest.file_digest(profile) if profile else ""}
    if config.max_age_days is not None and config.now is None:
        reasons["day"] = datetime.now(UTC).date().isoformat()
    return reasons


def save(workspace: Path, name: str, profile: Path, *, flow: str = "") -> None:
    """Make a run's profile the one that later runs are compared with; a run of features alone leaves none.

    Those look at the data of an hour ago; trainings are compared with trainings.
    """
    if flow == "features":
        return
    latest, before = _profile_paths(workspace, name)
    value = json.loads(profile.read_text())
    if _read_json(latest).get("data_digest", value["data_digest"]) != value["data_digest"]:
        os.replace(latest, before)
    ledger.write_json(latest, value)


def _profile_paths(workspace: Path, name: str) -> tuple[Path, Path]:
    folder = workspace / "profiles"
    return folder / f"{name}.json", folder / f"{name}.before.json"


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
