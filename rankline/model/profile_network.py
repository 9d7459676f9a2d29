"""What is known of a user and of a request, as a vector beside the history's.

Shapes: B requests, N inputs (encoded fields, then the vectors of texts), D vector size, C fields.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ProfileNetwork(nn.Module):
    """A small network over the encoded fields, added to the left vector.

    It begins as nothing. In training each field is dropped at random, and now and then all fields of a request, so
    that a request may leave out any of them. ``owners`` names the field of each input.
    """

    def __init__(self, *, owners: Sequence[int], size: int, dropout: float) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(len(owners), 2 * size), nn.Linear(2 * size, size)
        self.dropout = dropout
        self.owner_N: Tensor
        self.register_buffer("owner_N", torch.tensor(owners, dtype=torch.long), persistent=False)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, known_BN: Tensor) -> Tensor:
        """[B, D] what the fields add to the left vectors."""
        if self.training and self.dropout:
            known_BN = known_BN * self._mask(len(known_BN))
        out_BD: Tensor = self.leave(nn.functional.gelu(self.enter(known_BN)))
        return out_BD

    def _mask(self, batch: int) -> Tensor:
        """[B, N] 1 for the inputs of the fields that a request keeps."""
        fields = int(self.owner_N.max()) + 1
        field_BC = torch.rand(batch, fields, device=self.owner_N.device) >= self.dropout
        request_B1 = torch.rand(batch, 1, device=self.owner_N.device) >= self.dropout
        mask_BN: Tensor = (field_BC & request_B1)[:, self.owner_N].float()
        return mask_BN
