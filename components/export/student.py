"""The student read back from its artifact, with the one module export adds: words in, item vector out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from rankline.model import HistoryTower, Scorer, TextEncoder
from rankline.text import Tokenizer


class TextTower(nn.Module):
    """Tokens -> the fused vector of a text that is no item yet: its words, projected."""

    def __init__(self, encoder: TextEncoder, project: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.project = encoder, project

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, D]"""
        vector: Tensor = self.project(self.encoder(input_ids, attention_mask))
        return vector


@dataclass(frozen=True)
class Student:
    """The towers and the scorer in torch, on the CPU, and what is added to each item's words."""

    settings: dict[str, Any]
    text: TextTower
    tower: HistoryTower
    scorer: Scorer
    beside_words_ID: npt.NDArray[np.float32]
    tokenizer: Tokenizer

    @classmethod
    def read(cls, folder: Path) -> Student:
        """The student that distillation wrote into ``folder``."""
        from safetensors.torch import load_file

        settings = json.loads((folder / "student.json").read_text())
        weights = load_file(folder / "weights.safetensors")

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}

        size, fusion = settings["vector_size"], part("towers.fusion.")
        encoder = TextEncoder.read(folder / "encoder")
        project = nn.Linear(encoder.size, size)
        project.load_state_dict({"weight": fusion["text.weight"], "bias": fusion["text.bias"]})
        tower = HistoryTower(size=size, dropout=0.0, **settings["tower"])
        tower.load_state_dict(part("towers.tower."))
        scoring = part("scorer.")
        scorer = Scorer(
            size=size,
            features=len(scoring["standardize.mean_F"]),
            pair=settings["scorer_pair"],
            hidden=settings["scorer_hidden"],
            dropout=0.0,
        )
        scorer.load_state_dict(scoring)
        side_IS = weights["towers.side_IS"]
        beside_ID = side_IS @ fusion["side.weight"].T + fusion["known_I"].unsqueeze(1) * fusion["own.weight"]
        return cls(
            settings=settings,
            text=TextTower(encoder, project).eval(),
            tower=tower.eval(),
            scorer=scorer.eval(),
            beside_words_ID=beside_ID.numpy(),
            tokenizer=Tokenizer(folder / "encoder" / "tokenizer.json", max_tokens=settings["max_tokens"]),
        )
