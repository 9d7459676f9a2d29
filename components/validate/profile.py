"""The profile of a data set, which the next run is compared with.

`validate` writes `profile.json` to its output. After success the component saves it in the workspace, together with the
previous one: a run over the same data is compared with the profile that the first run was compared with, so repeating a
run changes nothing and can be reused.
"""

import json
from datetime import datetime
from math import inf, isfinite
from pathlib import Path
from typing import Any

from components.validate.frames import DatasetInfo
from components.validate.labels import Scale
from rankline.io.files import read_json_object, write_bytes, write_json
from rankline.io.sql import identifier

BINS = 20
LOG_PRICE = "ln(1 + CASE WHEN price >= 0 THEN price END)"  # most prices are small, and some are not


def describe(
    db: Any,
    *,
    summary: dict[str, Any],
    dataset: DatasetInfo,
    columns: dict[str, dict[str, str]],
    before: dict[str, Any] | None,
) -> dict[str, Any]:
    """Rows and columns per table, a histogram per label and one of prices, from the DuckDB views of the tables.

    A label without a largest or smallest value is measured on the scale of ``before``, or else on that of the data.
    """
    earlier = before or {}
    histograms = {
        label: _histogram(db, "events", identifier(label), scale, before=earlier.get("labels", {}).get(label))
        for label, scale in dataset.labels.items()
    }
    described = {
        "data_digest": summary["data_digest"],
        "rows": {table: db.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in dataset.tables},
        "columns": columns,
        "event_time": summary["event_time"],
        "labels": histograms,
    }
    if dataset.feedback:
        described["feedback"] = [summary["feedback"][group] for group in ("positives", "negatives", "neither")]
    prices = _histogram(db, "items", LOG_PRICE, (-inf, inf), before=earlier.get("prices"))
    if any(prices["counts"]):
        described["prices"] = prices
    return described


def _histogram(db: Any, table: str, value: str, scale: Scale, *, before: dict[str, Any] | None) -> dict[str, Any]:
    """The counts of a column, or another expression, in bins of equal width on a scale."""
    is_open = not all(map(isfinite, scale))
    low, high = _open_scale(db, table, value, before) if is_open else scale
    bin_index = f"least({BINS - 1}, floor(({value} - {low}) / {high - low} * {BINS}))"
    if is_open:
        bin_index = f"greatest(0, {bin_index})"
    rows = f"FROM {table} WHERE {value} {'IS NOT NULL' if is_open else f'BETWEEN {low} AND {high}'} GROUP BY 1"
    counts = dict(db.execute(f"SELECT CAST({bin_index} AS INTEGER), count(*) {rows}").fetchall())
    return {"scale": [low, high], "counts": [counts.get(bin, 0) for bin in range(BINS)]}


def _open_scale(db: Any, table: str, value: str, before: dict[str, Any] | None) -> Scale:
    """The scale of values without bounds."""
    if before:
        return before["scale"][0], before["scale"][1]
    low, high = db.execute(f"SELECT min({value}), max({value}) FROM {table}").fetchall()[0]
    return (low, high) if low is not None and low < high else (low or 0.0, (low or 0.0) + 1.0)


def changes(current: dict[str, Any], before: dict[str, Any] | None) -> dict[str, float]:
    """`<table>_rows_change` (share of the earlier rows), `<label>_drift`, `price_drift` (share of values moved)."""
    if before is None:
        return {}
    numbers = {
        f"{table}_rows_change": round((current["rows"][table] - rows) / max(rows, 1), 6)
        for table, rows in before["rows"].items()
        if table in current["rows"]
    }
    pairs = [(label, past, current["labels"].get(label)) for label, past in before["labels"].items()]
    if "prices" in before:
        pairs.append(("price", before["prices"], current.get("prices")))
    for name, past, present in pairs:
        histogram = present or {"scale": past["scale"], "counts": [0] * BINS}
        if histogram["scale"] == past["scale"]:
            numbers[f"{name}_drift"] = round(_total_variation(histogram["counts"], past["counts"]), 6)
    if "feedback" in current and "feedback" in before:
        numbers["feedback_drift"] = round(_total_variation(current["feedback"], before["feedback"]), 6)
    return numbers


def clock_behind(before: dict[str, Any] | None, clock: datetime) -> dict[str, float]:
    """`clock_behind_days`: how far a run's clock is behind the newest event of the last good run."""
    last = (before or {}).get("event_time", {}).get("last")
    if last is None:
        return {}
    return {"clock_behind_days": round((datetime.fromisoformat(last) - clock).total_seconds() / 86_400, 6)}


def _total_variation(current: list[int], before: list[int]) -> float:
    """Total variation: the share of one histogram that differs from the other; 1 if one is empty."""
    if not sum(current) or not sum(before):
        return float(bool(sum(current)) != bool(sum(before)))
    return sum(abs(a / sum(current) - b / sum(before)) for a, b in zip(current, before)) / 2


def data_digest(summary: bytes) -> str | None:
    """The digest of ingested data by its summary.json; None where that cannot be read."""
    try:
        value = json.loads(summary)["data_digest"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(value)


def previous_profile_for(workspace: Path, name: str, data: str | None) -> Path | None:
    """The saved profile to compare data of this digest with; none on the first run."""
    for path in _profile_paths(workspace, name):
        if _read(path).get("data_digest", data) != data:
            return path
    return None


def save(workspace: Path, name: str, profile: bytes, *, flow: str = "") -> None:
    """Save a run's profile for later runs; a features run, whose window may be an hour, saves none."""
    if flow == "features":
        return
    latest, before = _profile_paths(workspace, name)
    value = json.loads(profile)
    if _read(latest).get("data_digest", value["data_digest"]) != value["data_digest"]:
        write_bytes(before, latest.read_bytes())
    write_json(latest, value)


def _profile_paths(workspace: Path, name: str) -> tuple[Path, Path]:
    folder = workspace / "profiles"
    return folder / f"{name}.json", folder / f"{name}.before.json"


def _read(path: Path) -> dict[str, Any]:
    return read_json_object(path) or {}
