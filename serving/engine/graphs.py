"""The ONNX graphs of a model: text tower, history tower and scorer.

Shapes: B requests, L history events, T tokens, I items, N candidates of one request (C when padded over a batch),
D vector size, F features, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rankline.model.bundle import Bundle
from rankline.text import Tokenizer
from serving.sessions import Graph, Provider

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# what one call of a graph computes at most, padding included: the memory of a batch is bounded by them
MAX_TOKENS, MAX_EVENTS, MAX_CANDIDATES = 8_192, 8_192, 32_768


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
        if self.user is None:
            return left_BD
        lengths = {b: len(rows_L) for b, (rows_L, _) in enumerate(histories) if rows_L.size}
        for group in buckets(lengths, budget=MAX_EVENTS):
            rows_BL, mask_BL = _pad([histories[b][0] for b in group])
            left_BD[group] += self.user(
                {
                    "items_BLD": vectors_ID[rows_BL] * mask_BL[:, :, None].astype(np.float32),
                    "ratings_BL": _pad([histories[b][1] for b in group])[0],
                    "lengths_B": mask_BL.sum(1),
                }
            )
        return left_BD

    def text_vectors(self, tokens: Sequence[Ints | None], *, size: int) -> Floats:
        """[B, D] the vectors of some texts; zeros where there is none."""
        vectors_BD = np.zeros((len(tokens), size), np.float32)
        if self.text is None:
            return vectors_BD
        lengths = {b: len(tokens_T) for b, tokens_T in enumerate(tokens) if tokens_T is not None}
        for group in buckets(lengths, budget=MAX_TOKENS):
            ids_BT, mask_BT = _pad([tokens[b] for b in group])
            vectors_BD[group] = self.text({"input_ids": ids_BT, "attention_mask": mask_BT})
        return vectors_BD

    def logits(
        self, left_BD: Floats, candidates: Sequence[Ints], features: Sequence[Floats], vectors_ID: Floats, *, heads: int
    ) -> list[Floats]:
        """[N, H] for each request; requests of about as many candidates share a call of the scorer, padded."""
        out = [np.zeros((0, heads), np.float32) for _ in candidates]
        lengths = {b: len(rows_N) for b, rows_N in enumerate(candidates) if len(rows_N)}
        for group in buckets(lengths, budget=MAX_CANDIDATES):
            shape = len(group), lengths[group[0]]
            items_BCD = np.zeros((*shape, vectors_ID.shape[1]), np.float32)
            features_BCF = np.zeros((*shape, features[group[0]].shape[1]), np.float32)
            for row, b in enumerate(group):
                items_BCD[row, : lengths[b]] = vectors_ID[candidates[b]]
                features_BCF[row, : lengths[b]] = features[b]
            logits_BCH = self.scorer({"left_BD": left_BD[group], "items_BCD": items_BCD, "features_BCF": features_BCF})
            for row, b in enumerate(group):
                out[b] = logits_BCH[row, : lengths[b]]
        return out


def buckets(lengths: Mapping[int, int], *, budget: int) -> list[list[int]]:
    """The keys in groups of similar lengths, the longest first; the first of a group is its longest.

    A group holds at most ``budget`` when padded, or one key, and pads at most a seventh of it: what it pads is
    computed for nothing. A little more is allowed, because every group is a call of its own.
    """
    groups: list[list[int]] = []
    used = 0
    for key in sorted(lengths, key=lambda key: -lengths[key]):
        if groups:
            padded = lengths[groups[-1][0]] * (len(groups[-1]) + 1)
            if padded <= budget and padded - used - lengths[key] <= max(padded / 7, budget / 64):
                groups[-1].append(key)
                used += lengths[key]
                continue
        groups.append([key])
        used = lengths[key]
    return groups


def _pad(rows: Sequence[Any]) -> tuple[Ints, Ints]:
    """[B, L] the rows, left-aligned and padded with 0, and their mask [B, L]."""
    width = max(len(row) for row in rows)
    out_BL, mask_BL = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for b, row in enumerate(rows):
        out_BL[b, : len(row)] = row
        mask_BL[b, : len(row)] = 1
    return out_BL, mask_BL
