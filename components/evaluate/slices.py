"""Which requests belong to which slice: where a mean over all of them would hide something.

Shapes: R requests, I items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from components.evaluate.baselines import Catalogue
from components.evaluate.config import EvaluateConfig
from rankline.evaluation.snapshot_requests import SnapshotRequest
from rankline.features.transforms import DAY_S, request_context
from rankline.text import lexemes

Bools = npt.NDArray[np.bool_]


def slices(
    requests: Sequence[SnapshotRequest],
    catalogue: Catalogue,
    categories: Mapping[str, Sequence[str]],
    *,
    config: EvaluateConfig,
) -> dict[str, Bools]:
    """Slice -> which requests are in it, [R]; slices with too few requests are left out.

    The head is the most wanted ``head_share`` of the catalogue in training. A request with several targets
    is in every slice that one of them is in.
    """
    order = np.argsort(-catalogue.counts_I, kind="stable")
    head_I = np.zeros(len(order), np.bool_)
    head_I[order[: max(1, round(config.head_share * len(order)))]] = True
    targets = [catalogue.rows(one.targets) for one in requests]

    def has_target_in(chosen_I: Bools) -> Bools:
        return np.array([chosen_I[rows].any() for rows in targets])

    history_length_R = np.array([len(one.state.seen) for one in requests])
    at_R = np.array([one.state.at for one in requests])
    last_R = np.array([one.state.history.times[-1] if one.state.history.times else 0.0 for one in requests])
    context = request_context(request_time=at_R, last_event_time=last_R, history_length=history_length_R)
    weekend_R = context["ctx_weekend"] > 0
    returning_R = at_R - last_R >= DAY_S

    query_length_R = np.array([len(lexemes(one.query or "")) for one in requests])
    has_user_R = np.array([one.user_id is not None for one in requests])
    masks = {
        "user: new": has_user_R & (history_length_R <= config.new_user_events),
        "user: established": has_user_R & (history_length_R > config.new_user_events),
        "query: short": (query_length_R > 0) & (query_length_R <= config.short_query_words),
        "query: long": query_length_R > config.short_query_words,
        "item: new": has_target_in(catalogue.counts_I <= config.new_item_events),
        "item: head": has_target_in(head_I),
        "item: tail": has_target_in(~head_I),
        "day: weekday": ~weekend_R,
        "day: weekend": weekend_R,
        "visit: same day": has_user_R & ~returning_R,
        "visit: after a day or more": has_user_R & returning_R,
    }
    target_counts = Counter(name for one in requests for item in one.targets for name in categories.get(item, ()))
    # names first, so that equal counts come in the same order every time
    for name, _ in sorted(target_counts.items(), key=lambda entry: (-entry[1], entry[0]))[: config.slice_categories]:
        in_category_I = np.array([name in categories.get(item, ()) for item in catalogue.item_ids])
        masks[f"category: {name}"] = has_target_in(in_category_I)
    return {name: mask_R for name, mask_R in masks.items() if mask_R.sum() >= config.slice_minimum}
