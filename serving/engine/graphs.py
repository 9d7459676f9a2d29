"""The ONNX graphs of a model: text tower, history tower and scorer.

Shapes: B requests, L history events, T tokens, I items, N candidates of one request (C when padded over a batch),
D vector size, F features, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.model.bundle import Bundle
from rankline.text import Tokenizer
from serving.sessions import Graph, Provider

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ModelGraphs:
    """A model's graphs at one precision; every catalogue revision of the model can share them."""

    key: tuple[str, str]  # model id and precision
    text: Graph | None
    user: Graph | None
    scorer: Graph
    tokenizer: Tokenizer | None
    profile: Graph | None = None

    @classmethod
    def load(cls, bundle: Bundle, precision: str, *, provider: Provider, threads: int) -> ModelGraphs:
        files, text = bundle.manifest.precisions[precision], bundle.manifest.text

        def graph(name: str) -> Graph:
            return Graph(bundle.folder / name, provider=provider, threads=threads)

        tokenizer = None
        if text is not None and files.text is not None:
            tokenizer = Tokenizer(bundle.folder / "tokenizer.json", max_tokens=text.max_tokens)
        return cls(
            key=(bundle.model_id, precision),
            text=graph(files.text) if files.text else None,
            user=graph(files.user) if files.user else None,
            scorer=graph(files.scorer),
            tokenizer=tokenizer,
            profile=graph(files.profile) if files.profile else None,
        )

    def query_vectors(
        self, tokens: Sequence[Ints | None], histories: Sequence[tuple[Ints, Ints]], vectors_ID: Floats
    ) -> Floats:
        """[B, D] the sum of the query's and the history's vector; zeros for a request without either.

        A history is the rows of its items [L] and their ratings [L].
        """
        left_BD = self.text_vectors(tokens, size=vectors_ID.shape[1])
        with_history = [b for b, (rows_L, _) in enumerate(histories) if rows_L.size]
        if with_history and self.user:
            rows_BL, mask_BL = _pad([histories[b][0] for b in with_history])
            left_BD[with_history] += self.user(
                {
                    "items_BLD": vectors_ID[rows_BL] * mask_BL[:, :, None].astype(np.float32),
                    "ratings_BL": _pad([histories[b][1] for b in with_history])[0],
                    "lengths_B": mask_BL.sum(1),
                }
            )
        return left_BD

    def text_vectors(self, tokens: Sequence[Ints | None], *, size: int) -> Floats:
        """[B, D] the vectors of some texts; zeros where there is none."""
        vectors_BD = np.zeros((len(tokens), size), np.float32)
        present = [b for b, tokens_T in enumerate(tokens) if tokens_T is not None]
        if present and self.text:
            ids_BT, mask_BT = _pad([tokens[b] for b in present])
            vectors_BD[present] = self.text({"input_ids": ids_BT, "attention_mask": mask_BT})
        return vectors_BD

    def logits(
        self, left_BD: Floats, candidates: Sequence[Ints], features: Sequence[Floats], vectors_ID: Floats, *, heads: int
    ) -> list[Floats]:
        """[N, H] for each request, from one call of the scorer; shorter candidate lists are padded."""
        widest = max(map(len, candidates), default=0)
        if widest == 0:
            return [np.zeros((0, heads), np.float32) for _ in candidates]
        items_BCD = np.zeros((len(candidates), widest, vectors_ID.shape[1]), np.float32)
        features_BCF = np.zeros((len(candidates), widest, features[0].shape[1]), np.float32)
        for b, (rows_N, features_NF) in enumerate(zip(candidates, features)):
            items_BCD[b, : len(rows_N)] = vectors_ID[rows_N]
            features_BCF[b, : len(rows_N)] = features_NF
        logits_BCH = self.scorer({"left_BD": left_BD, "items_BCD": items_BCD, "features_BCF": features_BCF})
        return [logits_BCH[b, : len(rows_N)] for b, rows_N in enumerate(candidates)]


def _pad(rows: Sequence[Any]) -> tuple[Ints, Ints]:
    """[B, L] the rows, left-aligned and padded with 0, and their mask [B, L]."""
    width = max(len(row) for row in rows)
    out_BL, mask_BL = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for b, row in enumerate(rows):
        out_BL[b, : len(row)] = row
        mask_BL[b, : len(row)] = 1
    return out_BL, mask_BL
