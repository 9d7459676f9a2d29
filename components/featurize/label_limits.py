"""Limits of labels that are quantiles, of the events that are trained on: no later event decides what counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from components.featurize.config import FeaturizeConfig
from components.featurize.feedback import Labels, label_column
from components.featurize.split import quantile_cuts
from rankline import label_sql
from rankline.errors import ValidationFailed
from rankline.labels import FEEDBACK, Label

HELD_OUT = 2  # events of each user, by leave_last_out


def fit(db: Any, labels: Labels, config: FeaturizeConfig) -> tuple[Labels, FeaturizeConfig]:
    """The labels with limits of training events, by which the feedback in `logged` is decided anew; and the settings.

    A cut in time that follows from the positives is found before, by ingest's limits, and stays.

    Raises:
        ValidationFailed: every value of a label counts.
    """
    if not labels.quantiles:
        return labels, config
    if config.split == "time_cut" and (config.cut is None or config.valid_until is None):
        config = config.model_copy(update=_cut(db, config))
    limits: dict[str, float] = {}
    for name, share in labels.quantiles.items():
        limit = label_sql.quantile_limit(
            db, name, share, value=label_column(name), rows=f"logged WHERE {_is_trained_on(config)}",
            error=ValidationFailed, where=" in training",
        )  # fmt: skip
        limits |= {name: limit} if limit is not None else {}
    fitted = replace(labels, declared=_limited(labels.declared, limits), effective=_limited(labels.effective, limits))
    db.execute(f"UPDATE logged SET {FEEDBACK} = {label_sql.feedback(fitted.effective, label_column)}")
    return fitted, config


def _limited(labels: Mapping[str, Label], limits: Mapping[str, float]) -> dict[str, Label]:
    return {
        name: label.model_copy(update={"at_least": limits[name]}) if name in limits else label
        for name, label in labels.items()
    }


def _cut(db: Any, config: FeaturizeConfig) -> dict[str, datetime]:
    """The times that split the positives of users, as settings."""
    rows = db.execute(f"SELECT at_us FROM logged WHERE {FEEDBACK} > 0 AND user_id IS NOT NULL").fetchnumpy()
    if not len(rows["at_us"]):
        return {}
    shares = {"train_share": config.train_share, "valid_share": config.valid_share}
    times = quantile_cuts(np.asarray(rows["at_us"]), **shares)
    names = ("cut", "valid_until", "test_until")
    return {name: datetime.fromtimestamp(us / 1e6, UTC) for name, us in zip(names, times, strict=True)}


def _is_trained_on(config: FeaturizeConfig) -> str:
    """SQL for whether a row of `logged` is before what the split holds out."""
    given = "coalesce(split, 'train') = 'train'"
    if config.split == "time_cut":
        until = f"epoch_us(TIMESTAMPTZ '{config.cut.isoformat()}')" if config.cut else "NULL"
        return f"{given} AND coalesce(greatest(at_us, known_us) < {until}, true)"
    latest = "row_number() OVER (PARTITION BY user_id ORDER BY at_us DESC, row DESC)"
    held_out = (
        f"SELECT user_id AS held_user, min(at_us) AS from_us FROM (SELECT user_id, at_us, {latest} AS latest FROM "
        f"logged WHERE {FEEDBACK} > 0 AND user_id IS NOT NULL) WHERE latest <= {HELD_OUT} GROUP BY user_id"
    )
    return f"{given} AND NOT EXISTS (FROM ({held_out}) WHERE held_user = user_id AND at_us >= from_us)"
