"""The student loaded from its artifact.

Shapes: B texts, I items, S side size, D vector size.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from rankline.features.profile import ProfileEncoder
from rankline.model.networks import HistoryTower, Scorer, TextEncoder
from rankline.model.profile_network import ProfileNetwork
from rankline.text import Tokenizer


class TextTower(nn.Module):
    """Tokens -> the projected vector of a text, which is what an item without embedding and side features has."""

    def __init__(self, encoder: TextEncoder, project: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.project = encoder, project

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, D] the vectors of texts."""
        vector: Tensor = self.project(self.encoder(input_ids, attention_mask))
        return vector


@dataclass(frozen=True)
class Student:
    """The towers and the scorer in torch, on the CPU, with the side features and embeddings of the items."""

    settings: dict[str, Any]
    text: TextTower
    side: nn.Linear
    tower: HistoryTower
    scorer: Scorer
    side_IS: npt.NDArray[np.float32]
    own_ID: npt.NDArray[np.float32]
    known_I: npt.NDArray[np.bool_]
    tokenizer: Tokenizer
    profile: ProfileNetwork | None = None

    @property
    def profile_encoder(self) -> ProfileEncoder | None:
        """How the declared fields of requests are encoded; None where none are declared."""
        return ProfileEncoder(**self.settings["profile"]) if "profile" in self.settings else None

    @property
    def non_text_ID(self) -> npt.NDArray[np.float32]:
        """[I, D] the part of each item's vector that does not come from its text."""
        weight_DS: npt.NDArray[np.float32] = self.side.weight.detach().numpy()
        return np.asarray(self.side_IS @ weight_DS.T + self.known_I[:, None] * self.own_ID, np.float32)

    @classmethod
    def load(cls, folder: Path) -> Student:
        """Load the student that distillation wrote into ``folder``."""
        from safetensors.torch import load_file

        settings = json.loads((folder / "student.json").read_text())
        weights = load_file(folder / "weights.safetensors")

        def with_prefix(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}

        size, fusion = settings["vector_size"], with_prefix("towers.fusion.")
        encoder = TextEncoder.load(folder / "encoder")
        project = nn.Linear(encoder.size, size)
        project.load_state_dict({"weight": fusion["text.weight"], "bias": fusion["text.bias"]})
        tower = HistoryTower(size=size, dropout=0.0, **settings["tower"])
        tower.load_state_dict(with_prefix("towers.tower."))
        scorer_weights = with_prefix("scorer.")
        scorer = Scorer(
            size=size,
            features=len(scorer_weights["standardize.mean_F"]),
            pair=settings["scorer_pair"],
            hidden=settings["scorer_hidden"],
            dropout=0.0,
        )
        scorer.load_state_dict(scorer_weights)
        side = nn.Linear(fusion["side.weight"].shape[1], size, bias=False)
        side.load_state_dict({"weight": fusion["side.weight"]})
        return cls(
            settings=settings,
            text=TextTower(encoder, project).eval(),
            side=side.eval(),
            tower=tower.eval(),
            scorer=scorer.eval(),
            side_IS=weights["towers.side_IS"].numpy(),
            own_ID=fusion["own.weight"].numpy(),
            known_I=fusion["known_I"].numpy() > 0,
            tokenizer=Tokenizer(folder / "encoder" / "tokenizer.json", max_tokens=settings["max_tokens"]),
            profile=_profile_network(with_prefix("towers.profile."), settings),
        )


def _profile_network(weights: dict[str, Tensor], settings: dict[str, Any]) -> ProfileNetwork | None:
    if not weights:
        return None
    size = settings["vector_size"]
    network = ProfileNetwork(owners=ProfileEncoder(**settings["profile"]).owners(size), size=size, dropout=0.0)
    network.load_state_dict(weights)
    return network.eval()
