"""Slices: groups of requests whose means an overall mean would hide.

Shapes: R requests, I items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from components.evaluate.baselines import TrainingItems
from components.evaluate.config import EvaluateConfig
from rankline.evaluation.snapshot_requests import SnapshotRequest
from rankline.features.transforms import DAY_S, request_context
from rankline.text import lexemes

Bools = npt.NDArray[np.bool_]


def slices(
    requests: Sequence[SnapshotRequest],
    items: TrainingItems,
    categories: Mapping[str, Sequence[str]],
    *,
    config: EvaluateConfig,
) -> dict[str, Bools]:
    """Slice -> which requests are in it, [R]; slices with too few requests are left out.

    The head is the ``head_share`` of the catalogue with the most training events. A request with several targets is in
    every slice of a target.
    """
    order = np.argsort(-items.counts_I, kind="stable")
    head_I = np.zeros(len(order), np.bool_)
    head_I[order[: max(1, round(config.head_share * len(order)))]] = True
    targets = [items.rows(request.targets) for request in requests]

    def has_target_in(chosen_I: Bools) -> Bools:
        return np.array([chosen_I[rows].any() for rows in targets])

    history_length_R = np.array([len(request.state.seen) for request in requests])
    at_R = np.array([request.state.at for request in requests])
    last_R = np.array([request.state.history.times[-1] if request.state.history.times else 0.0 for request in requests])
    context = request_context(
        request_time=at_R,
        last_event_time=last_R,
        history_length=history_length_R,
        time_zones=[request.state.time_zone for request in requests],
    )
    weekend_R = context["ctx_weekend"] > 0
    returning_R = at_R - last_R >= DAY_S

    query_length_R = np.array([len(lexemes(request.query or "")) for request in requests])
    has_user_R = np.array([request.user_id is not None for request in requests])
    masks = {
        "user: new": has_user_R & (history_length_R <= config.new_user_events),
        "user: established": has_user_R & (history_length_R > config.new_user_events),
        "query: short": (query_length_R > 0) & (query_length_R <= config.short_query_words),
        "query: long": query_length_R > config.short_query_words,
        "item: new": has_target_in(items.counts_I <= config.new_item_events),
        "item: head": has_target_in(head_I),
        "item: tail": has_target_in(~head_I),
        "day: weekday": ~weekend_R,
        "day: weekend": weekend_R,
        "visit: same day": has_user_R & ~returning_R,
        "visit: after a day or more": has_user_R & returning_R,
    }
    target_counts = Counter(
        name for request in requests for item in request.targets for name in categories.get(item, ())
    )
    # equal counts are ordered by name
    for name, _ in sorted(target_counts.items(), key=lambda entry: (-entry[1], entry[0]))[: config.slice_categories]:
        in_category_I = np.array([name in categories.get(item, ()) for item in items.item_ids])
        masks[f"category: {name}"] = has_target_in(in_category_I)
    return {name: mask_R for name, mask_R in masks.items() if mask_R.sum() >= config.slice_minimum}
