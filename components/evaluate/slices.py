"""Slices: groups of requests whose means an overall mean would hide.

Shapes: R requests, I items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from components.evaluate.attributes import Attribute, request_attributes
from components.evaluate.baselines.items import TrainingItems
from components.evaluate.config import EvaluateConfig
from rankline.errors import UsageError
from rankline.evaluation.snapshot_requests import SnapshotRequest
from rankline.features.transforms import DAY_S, request_context
from rankline.text import lexemes

Bools = npt.NDArray[np.bool_]


def slices(
    requests: Sequence[SnapshotRequest],
    items: TrainingItems,
    attributes: Mapping[str, Attribute],
    *,
    config: EvaluateConfig,
) -> dict[str, Bools]:
    """Slice -> which requests are in it, [R]; a small or empty one is there, too.

    The ``attributes`` are those of the items, [I]; users and requests have theirs in the requests. The head is the
    ``head_share`` of the catalogue with the most training events. A request with several targets is in every slice of a
    target.
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
    return masks | _by_attribute(requests, targets, attributes, config)


def _by_attribute(
    requests: Sequence[SnapshotRequest],
    targets: Sequence[npt.NDArray[np.int64]],
    attributes: Mapping[str, Attribute],
    config: EvaluateConfig,
) -> dict[str, Bools]:
    """The slices of the most frequent values of every attribute, and of those that the settings name."""
    groups: dict[str, list[set[str]]] = {
        name: [{each for row in rows for each in attribute.groups[row]} for rows in targets]
        for name, attribute in attributes.items()
    }
    groups |= {name: [set(each) for each in given.groups] for name, given in request_attributes(requests).items()}
    masks = {}
    for attribute, groups_R in groups.items():
        counts = Counter(value for values in groups_R for value in values)
        # equal counts are ordered by name
        frequent = sorted(counts, key=lambda value: (-counts[value], value))[: config.slice_values]
        for value in frequent:
            masks[f"{attribute}={value}"] = np.array([value in values for values in groups_R], np.bool_)
    for name in config.slices:
        attribute, _, value = name.partition("=")
        if attribute not in groups:
            raise UsageError(
                f"evaluate.slices names {name}, and there is no attribute {attribute}",
                expected=", ".join(sorted(groups)) or "a declared attribute of items, users or requests",
                found=attribute,
                hint="attributes of users and requests are those in featurize.user_features and context_features",
            )
        masks[name] = np.array([value in values for values in groups[attribute]], np.bool_)
    return masks
