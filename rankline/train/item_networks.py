"""The networks that teacher and student share, built for a catalogue."""

from __future__ import annotations

from typing import Any

import torch

from rankline.model.networks import HistoryTower, ItemFusion
from rankline.train.examples import Examples


def build_item_networks(data: Examples, config: Any, *, text_size: int, size: int) -> tuple[ItemFusion, HistoryTower]:
    """Fresh item vectors and a history tower, with the sizes and dropouts that a section's settings name."""
    fusion = ItemFusion(
        items=len(data.item_ids),
        text_size=text_size,
        side_size=data.side_IS.shape[1],
        size=size,
        own_dropout=config.own_dropout,
        known_I=torch.from_numpy(data.known_I),
    )
    sizes = {name: getattr(config, name) for name in ("max_history", "layers", "heads", "dropout")}
    return fusion, HistoryTower(size=size, **sizes)
