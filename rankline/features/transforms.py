"""The features of a ranker and their transforms, the same in training, evaluation and serving.

Shapes: I items, C categories, F features. Missing values are always 0.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SERVICE = "ranking_v1"
HISTORY_SERVICE = "history_v1"  # read apart from the rest: it is pushed with every event, the rest is computed daily
DAY_S = 86_400
MAX_TIME_S = 253_402_214_400.0  # the last day of the year 9999, the last that a calendar has

USER = ("user_events_1d", "user_events_7d", "user_events_30d", "user_events_total", "user_rating_mean")
ITEM = (
    "item_events_1d",
    "item_events_7d",
    "item_events_30d",
    "item_events_total",
    "item_rating_mean",
    "item_trend",
    "item_price",
    "item_text_length",
    "item_category_count",
)
CONTEXT = ("ctx_hour_sin", "ctx_hour_cos", "ctx_weekend", "ctx_log_hours_since_last", "ctx_log_history")
CROSS = ("affinity_sum", "affinity_max")

# Counts and sizes span orders of magnitude, so the model gets their logarithm.
_LOGGED = ("_events_", "_price", "_text_length")


def stars(ratings: Any) -> npt.NDArray[np.int64]:
    """Ratings as the towers read them: integers from 1 to 5, and 0 for none."""
    return np.clip(np.rint(np.asarray(ratings, np.float64)), 0, 5).astype(np.int64)


def matrix(columns: Mapping[str, Any], names: Sequence[str], rows: int) -> Floats:
    """[rows, F] float32 in the order of ``names``; absent columns and nulls are 0, counts become log1p."""
    out_FN = np.zeros((len(names), rows), np.float32)
    for f, name in enumerate(names):
        if name in columns:
            out_FN[f] = np.asarray(columns[name], np.float32)
    np.nan_to_num(out_FN, copy=False)
    logged = [f for f, name in enumerate(names) if any(part in name for part in _LOGGED)]
    out_FN[logged] = np.log1p(np.maximum(out_FN[logged], 0))
    return np.ascontiguousarray(out_FN.T)


def item_rows(columns: Mapping[str, Sequence[Any]], index: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """[n] the row in the catalogue of each item of some columns; -1 for an item that is not in it."""
    ids = columns.get("item_id", ())
    return np.fromiter((index.get(item, -1) for item in ids), np.int64, len(ids))


def item_matrix(columns: Mapping[str, Sequence[Any]], names: Sequence[str], index: Mapping[str, int]) -> Floats:
    """[I, F] for the whole catalogue from columns of some items; the other items have zeros."""
    out = np.zeros((len(index), len(names)), np.float32)
    rows = item_rows(columns, index)
    out[rows[rows >= 0]] = matrix(columns, names, len(rows))[rows >= 0]
    return out


def category_matrix(categories: Sequence[Sequence[str] | None], vocabulary: Sequence[str]) -> Floats:
    """[I, C] of 0 and 1: the categories of each item."""
    position = {name: c for c, name in enumerate(vocabulary)}
    out = np.zeros((len(categories), len(vocabulary)), np.float32)
    for i, names in enumerate(categories):
        for name in names if names is not None else ():
            if name in position:
                out[i, position[name]] = 1.0
    return out


def cross_matrix(affinity: Mapping[str, float], vocabulary: Sequence[str], categories_NC: Floats) -> Floats:
    """[N, 2]: the sum and the maximum of the user's shares of each item's categories."""
    shares_C = np.array([affinity.get(name, 0.0) for name in vocabulary], np.float32)
    if not shares_C.size:
        return np.zeros((len(categories_NC), len(CROSS)), np.float32)
    weighted_NC = categories_NC * shares_C
    return np.stack([weighted_NC.sum(1), weighted_NC.max(1)], axis=1)


def fresh_popularity(columns: Mapping[str, Sequence[Any]], index: Mapping[str, int]) -> Floats:
    """[I] events of the last week; ties are broken by those of the last month, then by all."""
    counts_IF = np.zeros((len(index), 3), np.float32)
    rows = item_rows(columns, index)
    for f, name in enumerate(("item_events_7d", "item_events_30d", "item_events_total")):
        if name in columns:
            counts_IF[rows[rows >= 0], f] = np.nan_to_num(np.asarray(columns[name], np.float32))[rows >= 0]
    return counts_IF @ np.array([1.0, 0.1, 0.001], np.float32)


def utc_offsets(times: npt.NDArray[np.float64], time_zones: Sequence[str]) -> npt.NDArray[np.float64]:
    """[n] seconds by which the clock of each zone is ahead of UTC at a time; 0 for a name that is no zone."""
    offsets = np.zeros(len(times))
    for row, (time, name) in enumerate(zip(np.clip(times, 0, MAX_TIME_S).tolist(), time_zones)):
        if name and (zone := _zone(name)) is not None:
            offset = datetime.fromtimestamp(time, zone).utcoffset()
            offsets[row] = offset.total_seconds() if offset else 0.0
    return offsets


@functools.cache
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return None


def request_context(
    *,
    request_time: npt.NDArray[Any],
    last_event_time: npt.NDArray[Any],
    history_length: npt.NDArray[Any],
    time_zones: Sequence[str] = (),
) -> dict[str, npt.NDArray[np.float64]]:
    """Features of a request's time, each [n]; times in unix seconds (UTC), ``last_event_time`` 0 if none.

    Hours and weekdays are those of the clock in ``time_zones``, of UTC where there is none. Feast's on-demand view
    `request_context` and snapshot requests both use it.
    """
    request_time = np.asarray(request_time, np.float64)
    last_event_time = np.asarray(last_event_time, np.float64)
    clock = request_time + utc_offsets(request_time, time_zones) if any(time_zones) else request_time
    angle = 2 * np.pi * (clock % DAY_S) / DAY_S
    weekday = (clock // DAY_S + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    hours = np.maximum(request_time - last_event_time, 0) / 3600
    return {
        "ctx_hour_sin": np.sin(angle),
        "ctx_hour_cos": np.cos(angle),
        "ctx_weekend": (weekday >= 5).astype(np.float64),
        "ctx_log_hours_since_last": np.where(last_event_time > 0, np.log1p(hours), 0.0),
        "ctx_log_history": np.log1p(np.asarray(history_length, np.float64)),
    }
