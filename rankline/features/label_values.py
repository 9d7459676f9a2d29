"""Which values of a label count, the same in training, serving and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.features import rating_scale
from rankline.labels import Label

Doubles = npt.NDArray[np.float64]
LIKED_WITHOUT_LABEL = 4.0  # the smallest rating that counts as liked where no label says so


def declared_labels(summary: Mapping[str, Any]) -> dict[str, Label]:
    """The labels that a summary of features or raw data declares; ingest put values for quantiles and scales."""
    return {name: Label(**settings) for name, settings in (summary.get("labels") or {}).items()}


def reached(label: Label, values_N: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """[N] whether each value counts; an unknown value (NaN) does not."""
    values = np.asarray(values_N, np.float64)
    return np.asarray(values > 0 if label.at_least is None else values >= label.at_least)


def outcomes(labels: Mapping[str, Label], values: Mapping[str, npt.ArrayLike]) -> dict[str, Doubles]:
    """Label -> [N] what its head is to predict; NaN where it is unknown.

    Of a binary label 1 where it counts, else 0; of another one its value, where the label before it happened.
    """
    columns = {name: np.asarray(values[name], np.float64) for name in labels}
    happened = {name: reached(label, columns[name]) for name, label in labels.items()}
    return {
        name: np.where(np.isnan(columns[name]), np.nan, happened[name])
        if label.type == "binary"
        else np.where(happened[label.after], columns[name], np.nan)
        if label.after
        else columns[name]
        for name, label in labels.items()
    }


def liked_from(summary: Mapping[str, Any]) -> float:
    """The smallest rating of a target that counts as liked, on its own scale: the limit of the declared rating."""
    labels = declared_labels(summary)
    name = rating_scale.history_label(labels)
    if not name:
        return LIKED_WITHOUT_LABEL
    at_least = labels[name].at_least
    return float(np.nextafter(0, 1)) if at_least is None else at_least  # by default every rating
