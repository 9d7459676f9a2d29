"""The ratings of a history on the scale that the towers read: 1 to 5, and 0 for none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.labels import Label

STARS = (1.0, 5.0)  # of the towers


def history_label(labels: Mapping[str, Label]) -> str:
    """The declared label whose values are the ratings of histories: `rating`, or the first that is graded; or none."""
    graded = [name for name, label in labels.items() if label.type == "graded" and label.weight > 0]
    return "rating" if "rating" in graded else next(iter(graded), "")


def history_scale(labels: Mapping[str, Label]) -> tuple[float, float] | None:
    """The scale of a history's ratings; none if they are on the towers' own, as they are without declared labels."""
    name = history_label(labels)
    return labels[name].scale if name else None


def to_stars(ratings: Any, scale: tuple[float, float] | None) -> npt.NDArray[np.float64]:
    """Ratings of a history, 0 where there is none, from their scale to 1 to 5; unchanged without a scale."""
    values = np.asarray(ratings, np.float64)
    if scale is None:
        return values
    low, high = scale
    stars = np.clip(STARS[0] + (values - low) / (high - low) * (STARS[1] - STARS[0]), *STARS)
    return np.where(values == 0, 0.0, stars)


def stars_sql(column: str, scale: tuple[float, float] | None) -> str:
    """`to_stars` as SQL over a column, null where there is no rating."""
    if scale is None:
        return column
    low, high = scale
    stars = f"{STARS[0]} + ({column} - {low!r}) / {high - low!r} * {STARS[1] - STARS[0]}"
    return f"CASE WHEN {column} <> 0 THEN greatest({STARS[0]}, least({STARS[1]}, {stars})) END"
