"""The networks that teacher and student share, built for a catalogue.

Shapes: B requests, K text fields, N inputs, U different texts, T text size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rankline.model.networks import HistoryTower, ItemFusion
from rankline.model.profile_network import ProfileNetwork
from rankline.train.examples import Examples, RequestProfiles


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


def build_profile_network(data: Examples, config: Any, *, text_size: int, size: int) -> ProfileNetwork | None:
    """A fresh network over the declared fields, with text vectors of ``text_size``; None where none are declared."""
    if data.profile is None:
        return None
    owners = data.profile.owners(text_size)
    return ProfileNetwork(owners=owners, size=size, dropout=config.profile_dropout)


def profile_inputs(
    profiles: RequestProfiles,
    rows_B: npt.NDArray[np.int64],
    device: torch.device,
    *,
    project: Callable[[Tensor], Tensor] = lambda text_UT: text_UT,
) -> Tensor:
    """[B, N] the inputs of the network for some requests; ``project`` is applied to the vectors of texts."""
    encoded_BP = torch.from_numpy(profiles.encoded_RP[rows_B]).to(device)
    text_BK = torch.from_numpy(profiles.text_RK[rows_B]).to(device)
    if not text_BK.shape[1]:
        return encoded_BP
    vectors_BKT = project(profiles.text_UT[text_BK]) * (text_BK > 0).unsqueeze(-1)  # row 0 is no text
    return torch.cat([encoded_BP, vectors_BKT.flatten(1)], -1)
