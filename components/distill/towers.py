"""The two towers of the student: item vectors, and the vector of a request from its history and its query.

Shapes: B requests, R requests of a split, N requests with a query, L history events, I items, T text size,
D vector size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from components.distill.config import DistillConfig
from rankline.model.networks import HistoryTower, ItemFusion
from rankline.model.profile_network import ProfileNetwork
from rankline.train.examples import Examples, Requests
from rankline.train.item_networks import build_item_networks, build_profile_network, profile_inputs
from rankline.train.sampled_items import FusedItems, fuse_all

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class Towers(nn.Module):
    """What serves: item vectors computed ahead of time, and a left vector computed for each request."""

    def __init__(
        self, fusion: ItemFusion, tower: HistoryTower, side_IS: Tensor, profile: ProfileNetwork | None = None
    ) -> None:
        super().__init__()
        self.fusion, self.tower, self.profile = fusion, tower, profile
        self.side_IS: Tensor
        self.register_buffer("side_IS", side_IS)

    @classmethod
    def make(cls, data: Examples, *, text_size: int, size: int, config: DistillConfig) -> Towers:
        """Fresh towers for the catalogue of ``data``."""
        fusion, tower = build_item_networks(data, config, text_size=text_size, size=size)
        profile = build_profile_network(data, config, text_size=size, size=size)
        return cls(fusion, tower, torch.from_numpy(data.side_IS), profile)

    def left(self, fused: FusedItems, requests: Requests, rows: Ints, queries_BT: Tensor) -> Tensor:
        """[B, D] the left vectors of some requests: the history's, plus the query's where there is one, plus what is
        known of the user and of the request."""
        device = fused.vectors_TD.device
        ratings_BL = torch.from_numpy(requests.ratings_RL[rows]).to(device)
        lengths_B = torch.from_numpy(requests.lengths_R[rows]).to(device)
        left_BD: Tensor = self.tower(fused.lookup(requests.items_RL[rows]), ratings_BL, lengths_B)
        has_query_B = torch.tensor([bool(requests.queries[row]) for row in rows], device=device)
        if bool(has_query_B.any()):
            left_BD = left_BD + has_query_B.unsqueeze(1) * self.fusion.text(queries_BT)
        if self.profile is not None and requests.profiles is not None:
            known_BN = profile_inputs(requests.profiles, rows, device, project=self.fusion.text)
            left_BD = left_BD + self.profile(known_BN)
        return left_BD

    def load_matching(self, weights: dict[str, Tensor]) -> int:
        """Load the tensors whose names and shapes agree; their number."""
        current = self.state_dict()
        shared = {k: v for k, v in weights.items() if k in current and current[k].shape == v.shape}
        self.load_state_dict({**current, **shared})
        return len(shared)

    @torch.no_grad()
    def query_vectors(self, requests: Requests, queries_RT: Tensor) -> dict[str, Floats]:
        """Request id -> [D] its query's part of the left vector, for requests with a query."""
        self.eval()
        rows = requests.query_rows
        vectors_ND = self.fusion.text(queries_RT[torch.from_numpy(rows)]).numpy()
        return {requests.ids[row]: vector_D for row, vector_D in zip(rows, vectors_ND)}

    def item_vectors(self, text_IT: Tensor) -> Floats:
        """[I, D] the vectors of the catalogue."""
        self.eval()
        vectors_ID: Floats = fuse_all(self.fusion, text_IT, self.side_IS).numpy()
        return vectors_ID
