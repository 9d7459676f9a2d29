"""Which values of a label count, the same in training, serving and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.labels import Label

RATING = "rating"
LIKED_WITHOUT_LABEL = 4.0  # the smallest rating that counts as liked where no label says so


def smallest_value(label: Label, values_N: npt.ArrayLike = ()) -> float | None:
    """The smallest value that counts; None where any value above 0 does. ``values_N`` are all values of the label."""
    if label.at_quantile is None:
        return label.at_least
    known_N = np.asarray(values_N, np.float64)
    known_N = known_N[~np.isnan(known_N)]
    return float(np.quantile(known_N, label.at_quantile)) if len(known_N) else None


def reached(label: Label, values_N: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """[N] whether each value counts; an unknown value (NaN) does not."""
    smallest, values = smallest_value(label, values_N), np.asarray(values_N, np.float64)
    return np.asarray(values > 0 if smallest is None else values >= smallest)


def liked_from(summary: Mapping[str, Any], ratings_N: npt.ArrayLike = ()) -> float:
    """The smallest rating that counts as liked, by the summary of the features: that of the declared label `rating`.

    ``ratings_N`` are all ratings, of which a declared quantile is taken; 0 stands for none.
    """
    settings = (summary.get("labels") or {}).get(RATING)
    if settings is None:
        return LIKED_WITHOUT_LABEL
    ratings = np.asarray(ratings_N, np.float64)
    smallest = smallest_value(Label(**settings), np.where(ratings == 0, np.nan, ratings))
    return LIKED_WITHOUT_LABEL if smallest is None else smallest
