"""The networks: fused item vectors, the history tower, the teacher and the scorer.

Shapes: B requests, L history events, C candidates, I items, T text size, S side size, D vector size,
F features, H heads, P interaction size, W tokens of a text. A history is left-aligned, oldest first, and
zero-padded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankline.errors import IntegrityError, UsageError
from rankline.model.order import HEADS as HEADS
from rankline.model.profile_network import ProfileNetwork

RATINGS = 6  # none, and one to five stars


class TextEncoder(nn.Module):
    """A Hugging Face encoder with pooling: tokens -> one unit vector.

    Its config.json names the pooling as ``text_pooling``: `mean`, or `cls` for the first token.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.size = int(backbone.config.hidden_size)
        self.pooling = getattr(backbone.config, "text_pooling", "mean")

    @classmethod
    def load(cls, folder: Path) -> TextEncoder:
        """Load the encoder saved in a folder (config.json, model.safetensors).

        Raises:
            IntegrityError: weights are missing; transformers would replace them by random ones.
        """
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # the error below reports what matters
        backbone, report = AutoModel.from_pretrained(
            folder, local_files_only=True, attn_implementation="eager", output_loading_info=True
        )
        missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))  # unused
        if missing:
            raise IntegrityError(
                "the encoder's weights are incomplete",
                expected=f"{len(backbone.state_dict())} tensors that fit config.json",
                found=f"no {missing[0]} and {len(missing) - 1} more missing",
                where=str(folder / "model.safetensors"),
                hint="download the encoder again, or choose another one",
            )
        return cls(backbone)

    def token_vectors(self, input_ids_BW: Tensor, mask_BW: Tensor) -> Tensor:
        """[B, W, T] one vector per token."""
        hidden: Tensor = self.backbone(input_ids=input_ids_BW, attention_mask=mask_BW).last_hidden_state
        return hidden

    def forward(self, input_ids_BW: Tensor, mask_BW: Tensor) -> Tensor:
        """[B, T] unit vectors: the mean of a text's tokens, or its first token."""
        if self.pooling == "cls":
            return F.normalize(self.token_vectors(input_ids_BW, mask_BW)[:, 0].float(), dim=-1)
        weights_BW1 = mask_BW.unsqueeze(-1).to(torch.float32)
        summed_BT = (self.token_vectors(input_ids_BW, mask_BW).float() * weights_BW1).sum(1)
        return F.normalize(summed_BT / weights_BW1.sum(1).clamp(min=1.0), dim=-1)


class ItemFusion(nn.Module):
    """Every item's vector: its projected text vector, plus its side features, plus an embedding of its own.

    The embedding is dropped at random in training and absent for items that training never saw, so new items are
    represented by their texts (the cold-start fallback).
    """

    def __init__(
        self, *, items: int, text_size: int, side_size: int, size: int, own_dropout: float, known_I: Tensor
    ) -> None:
        super().__init__()
        self.text = nn.Linear(text_size, size)
        self.side = nn.Linear(side_size, size, bias=False)
        self.own = nn.Embedding(items, size)
        self.own_dropout = own_dropout
        self.known_I: Tensor
        self.register_buffer("known_I", known_I.float())
        for weight in (self.text.weight, self.side.weight, self.own.weight):
            nn.init.normal_(weight, std=0.02)

    @torch.no_grad()
    def init_from_text(self, text_IT: Tensor, *, likeness: float) -> None:
        """Initialize the projection with the principal directions of the texts, which keep most of their differences.

        Two texts of cosine 1 start with a product of about ``likeness``.
        """
        size = self.text.weight.shape[0]
        products_TT = torch.zeros(text_IT.shape[1], text_IT.shape[1], dtype=torch.float64)
        for chunk_NT in torch.split(text_IT, 1 << 15):  # by chunks: in double precision the texts are twice as large
            products_TT += chunk_NT.double().T @ chunk_NT.double()
        _, directions_ST = torch.linalg.eigh(products_TT)
        principal_ST = directions_ST.T.flip(0)[:size].to(self.text.weight.dtype)
        self.text.weight.zero_()
        self.text.weight[: len(principal_ST)] = math.sqrt(likeness) * principal_ST
        self.text.bias.zero_()

    def non_text_part(
        self, side_IS: Tensor, *, rows_T: Tensor | slice = slice(None), own_TD: Tensor | None = None
    ) -> Tensor:
        """[I, D] what is added to the projected text."""
        keep_I1 = self.known_I[rows_T].unsqueeze(1)
        if self.training and self.own_dropout:
            keep_I1 = keep_I1 * (torch.rand_like(keep_I1) >= self.own_dropout)
        fused_ID: Tensor = self.side(side_IS) + keep_I1 * (self.own.weight[rows_T] if own_TD is None else own_TD)
        return fused_ID

    def forward(
        self, text_IT: Tensor, side_IS: Tensor, *, rows_T: Tensor | slice = slice(None), own_TD: Tensor | None = None
    ) -> Tensor:
        """[I, D] the fused vectors of the whole catalogue, or of the items ``rows_T`` whose texts these are.

        ``own_TD`` replaces their embeddings where these are updated sparsely (rankline/train/sampled_items.py).
        """
        fused_ID: Tensor = self.text(text_IT) + self.non_text_part(side_IS, rows_T=rows_T, own_TD=own_TD)
        return fused_ID


class CrossEncoder(nn.Module):
    """Reads a query and an item together and gives one score (Nogueira & Cho 2019).

    A wide part adds the retrieval scores: the cosine of the two texts' vectors and log1p of BM25. With few queries to
    learn from, the score therefore starts at what retrieval gives.
    """

    def __init__(self, reader: TextEncoder) -> None:
        super().__init__()
        self.reader = reader
        self.head = nn.Linear(reader.size, 1)
        self.wide = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.wide.weight.copy_(torch.tensor([[10.0, 1.0]]))

    def forward(self, input_ids_NW: Tensor, mask_NW: Tensor, types_NW: Tensor, retrieval_N2: Tensor) -> Tensor:
        """[N] one logit per pair."""
        encoder_inputs: dict[str, Tensor] = {"input_ids": input_ids_NW, "attention_mask": mask_NW}
        if getattr(self.reader.backbone.config, "type_vocab_size", 0) > 1:
            encoder_inputs["token_type_ids"] = types_NW
        hidden_NWT = self.reader.backbone(**encoder_inputs).last_hidden_state.float()
        weights_NW1 = mask_NW.unsqueeze(-1).to(torch.float32)
        mean_NT = (hidden_NWT * weights_NW1).sum(1) / weights_NW1.sum(1).clamp(min=1.0)
        logits_N: Tensor = (self.head(mean_NT) + self.wide(retrieval_N2)).squeeze(-1)
        return logits_N


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention, self.norm_feed = nn.LayerNorm(size), nn.LayerNorm(size)
        self.qkv, self.out = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.feed = nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * size, size))
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, mask_LL: Tensor) -> Tensor:
        """[B, L, D]; ``mask_LL`` is added to the attention scores."""
        batch, length, size = x_BLD.shape
        parts = self.qkv(self.norm_attention(x_BLD)).view(batch, length, 3, self.heads, size // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask_LL, dropout_p=self.dropout if self.training else 0.0
        )
        x_BLD = x_BLD + self.drop(self.out(attended.transpose(1, 2).reshape(batch, length, size)))
        output_BLD: Tensor = x_BLD + self.drop(self.feed(self.norm_feed(x_BLD)))
        return output_BLD


class HistoryTower(nn.Module):
    """A causal transformer over the fused vectors of a history (SASRec: Kang & McAuley 2018).

    Raises:
        UsageError: ``heads`` does not divide ``size``.
    """

    def __init__(self, *, size: int, max_history: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        if size % heads:
            raise UsageError(
                "the attention heads would have different sizes",
                expected="a vector size that is a multiple of the number of heads",
                found=f"vector size {size}, {heads} heads",
                hint=f"set heads=1 or vector_size={heads * math.ceil(size / heads)}",
            )
        self.size, self.max_history = size, max_history
        self.position = nn.Embedding(max_history, size)
        self.rating = nn.Embedding(RATINGS, size)
        self.blocks = nn.ModuleList([Block(size, heads, dropout) for _ in range(layers)])
        self.norm, self.drop = nn.LayerNorm(size), nn.Dropout(dropout)
        nn.init.normal_(self.position.weight, std=0.02)
        nn.init.zeros_(self.rating.weight)

    def hidden(self, items_BLD: Tensor, ratings_BL: Tensor) -> Tensor:
        """[B, L, D] one vector per position: the prediction of the next item."""
        length = items_BLD.shape[1]
        positions_L = torch.arange(length, device=items_BLD.device)
        x_BLD = items_BLD * math.sqrt(self.size) + self.position(positions_L) + self.rating(ratings_BL)
        x_BLD = self.drop(x_BLD)
        # a large finite number instead of -inf: padded rows stay finite after export as well
        mask_LL = (positions_L.unsqueeze(0) > positions_L.unsqueeze(1)).to(x_BLD.dtype) * -1e4
        for block in self.blocks:
            x_BLD = block(x_BLD, mask_LL)
        out_BLD: Tensor = self.norm(x_BLD)
        return out_BLD

    def forward(self, items_BLD: Tensor, ratings_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, D] the left vector, the prediction after the last event; zeros for an empty history."""
        hidden_BLD = self.hidden(items_BLD, ratings_BL)
        last_B11 = (lengths_B - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, self.size)
        last_BD = hidden_BLD.gather(1, last_B11).squeeze(1)
        return last_BD * (lengths_B > 0).unsqueeze(1).to(last_BD.dtype)


class Standardize(nn.Module):
    """Scales features to mean 0 and standard deviation 1, fixed before training, and clips them at 8."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mean_F: Tensor
        self.scale_F: Tensor
        self.register_buffer("mean_F", torch.zeros(features))
        self.register_buffer("scale_F", torch.ones(features))

    def fit(self, sample_NF: Tensor) -> None:
        """Fit mean and standard deviation to a sample; a constant feature becomes 0."""
        deviation_F = sample_NF.std(0)
        self.mean_F.copy_(sample_NF.mean(0))
        self.scale_F.copy_(torch.where(deviation_F > 1e-6, 1.0 / deviation_F.clamp(min=1e-6), 0.0))

    def forward(self, features: Tensor) -> Tensor:
        """Standardized features of the same shape."""
        return ((features - self.mean_F) * self.scale_F).clamp(-8.0, 8.0)


class Teacher(nn.Module):
    """Full interaction: each candidate attends to the user's history (target attention: Zhou et al. 2018, DIN).

    Events carry their rating and their age. The result of the attention is joined with the feature tower; each label
    has a head (multi-task).
    """

    def __init__(
        self,
        *,
        fusion: ItemFusion,
        tower: HistoryTower,
        features: int,
        heads: int,
        dropout: float,
        profile: ProfileNetwork | None = None,
    ) -> None:
        super().__init__()
        size = tower.size
        self.fusion, self.tower, self.attention_heads = fusion, tower, heads
        self.age = nn.Linear(1, size)
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.standardize = Standardize(features)
        self.wide = nn.Linear(features, len(HEADS), bias=False)
        self.feature_tower = nn.Sequential(nn.Linear(features, size), nn.GELU(), nn.Dropout(dropout))
        self.joint = nn.Sequential(
            nn.Linear(3 * size, size), nn.GELU(), nn.Dropout(dropout), nn.Linear(size, len(HEADS))
        )
        self.mix = nn.Parameter(torch.tensor([1.0, 0.1]))
        for weight in (self.wide.weight, self.joint.get_parameter("3.weight")):
            nn.init.zeros_(weight)
        self.profile = profile

    def forward(
        self,
        items_BLD: Tensor,
        ratings_BL: Tensor,
        ages_BL: Tensor,
        lengths_B: Tensor,
        candidates_BCD: Tensor,
        features_BCF: Tensor,
        known_BN: Tensor | None = None,
    ) -> Tensor:
        """[B, C, H] logits. ``ages_BL``: log1p hours between each event and the request; ``known_BN``: its fields."""
        size = candidates_BCD.shape[-1]
        has_history_B11 = (lengths_B > 0).view(-1, 1, 1).to(items_BLD.dtype)  # an empty history contributes nothing
        hidden_BLD = self.tower.hidden(items_BLD, ratings_BL)
        last_B1D = (
            hidden_BLD.gather(1, (lengths_B - 1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, size)) * has_history_B11
        )
        if self.profile is not None and known_BN is not None:
            last_B1D = last_B1D + self.profile(known_BN).unsqueeze(1)
        events_BLD = hidden_BLD + self.age(ages_BL.unsqueeze(-1))
        attended_BCD = self._attend(candidates_BCD, events_BLD, lengths_B) * has_history_B11
        scaled_BCD = candidates_BCD * math.sqrt(size)
        features_BCF = self.standardize(features_BCF)
        joined = [attended_BCD * scaled_BCD, last_B1D * scaled_BCD, self.feature_tower(features_BCF)]
        logits_BCH: Tensor = self.joint(torch.cat(joined, -1)) + self.wide(features_BCF)
        direct_BC1 = (self.mix[0] * last_B1D * candidates_BCD + self.mix[1] * attended_BCD * scaled_BCD).sum(
            -1, keepdim=True
        )
        return logits_BCH + direct_BC1

    def _attend(self, candidates_BCD: Tensor, events_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        batch, count, size = candidates_BCD.shape
        split = (self.attention_heads, size // self.attention_heads)
        query = self.query(candidates_BCD * math.sqrt(size)).view(batch, count, *split).transpose(1, 2)
        key = self.key(events_BLD).view(batch, -1, *split).transpose(1, 2)
        value = self.value(events_BLD).view(batch, -1, *split).transpose(1, 2)
        padding_BL = torch.arange(events_BLD.shape[1], device=lengths_B.device) >= lengths_B.unsqueeze(1)
        mask_B11L = (padding_BL.to(query.dtype) * -1e4)[:, None, None, :]
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask_B11L)
        return attended.transpose(1, 2).reshape(batch, count, size)


class Scorer(nn.Module):
    """(left, item, left*item, features) -> one score per head, from a wide part and a small deep one.

    ``begin_F`` [F] weighs the unscaled features in a prior of the first head's score, to which the learned part is
    added.
    """

    def __init__(
        self, *, size: int, features: int, pair: int, hidden: int, dropout: float, heads: int = len(HEADS)
    ) -> None:
        super().__init__()
        self.standardize = Standardize(features)
        self.begin_F: Tensor
        self.register_buffer("begin_F", torch.zeros(features))
        self.wide = nn.Linear(features, heads)
        self.pair = nn.Linear(3 * size, pair)
        self.deep = nn.Sequential(
            nn.Linear(features + pair, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, heads)
        )
        for weight in (self.wide.weight, self.deep.get_parameter("3.weight")):
            nn.init.zeros_(weight)

    def forward(self, left_BD: Tensor, items_BCD: Tensor, features_BCF: Tensor) -> Tensor:
        """[B, C, H] logits."""
        pair_BCP = torch.tanh(self.pair(_pairs(left_BD, items_BCD)))
        prior_BC1 = (features_BCF * self.begin_F).sum(-1, keepdim=True)
        features_BCF = self.standardize(features_BCF)
        logits_BCH: Tensor = self.wide(features_BCF) + self.deep(torch.cat([features_BCF, pair_BCP], -1))
        return logits_BCH + F.pad(prior_BC1, (0, logits_BCH.shape[-1] - 1))

    @torch.no_grad()
    def silence_first_head(self) -> None:
        """Leave the first head's score with the prior alone."""
        for layer in (self.wide, self.deep.get_submodule("3")):
            layer.get_parameter("weight")[0] = 0.0
            layer.get_parameter("bias")[0] = 0.0


class LabelHeads(nn.Module):
    """(left, item, left*item, features) -> one output per label, from one body that the labels share.

    Features that depend on what else is scored, or that only grow, are left out (rankline/model/scoring.py).
    """

    def __init__(self, *, size: int, features: int, hidden: int, dropout: float, labels: int) -> None:
        super().__init__()
        self.standardize, self.standardize_pairs = Standardize(features), Standardize(3 * size)
        self.wide = nn.Linear(features, labels)
        self.pair = nn.Linear(3 * size, hidden)
        self.deep = nn.Sequential(
            nn.Linear(features + hidden, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, labels)
        )
        for weight in (self.wide.weight, self.deep.get_parameter("3.weight")):
            nn.init.zeros_(weight)

    def fit_standardize(self, left_BD: Tensor, items_BCD: Tensor, features_BCF: Tensor, left_out: list[int]) -> None:
        """Standardize by a sample of inputs, and leave features out."""
        self.standardize.fit(features_BCF.flatten(0, 1))
        self.standardize.scale_F[left_out] = 0.0
        self.standardize_pairs.fit(_pairs(left_BD, items_BCD).flatten(0, 1))

    def forward(self, left_BD: Tensor, items_BCD: Tensor, features_BCF: Tensor) -> Tensor:
        """[B, C, labels] logits of binary labels, and standardized values of the others."""
        pair_BCP = torch.tanh(self.pair(self.standardize_pairs(_pairs(left_BD, items_BCD))))
        features_BCF = self.standardize(features_BCF)
        outputs_BCH: Tensor = self.wide(features_BCF) + self.deep(torch.cat([features_BCF, pair_BCP], -1))
        return outputs_BCH


class ScorerWithLabels(nn.Module):
    """A scorer of one head, `rank`, and the labels' heads beside it: what serves where labels are declared."""

    def __init__(self, scorer: Scorer, labels: LabelHeads) -> None:
        super().__init__()
        self.scorer, self.labels = scorer, labels

    @property
    def standardize(self) -> Standardize:
        """How the features are scaled."""
        return self.scorer.standardize

    def forward(self, left_BD: Tensor, items_BCD: Tensor, features_BCF: Tensor) -> Tensor:
        """[B, C, H] the logits of `rank`, then the outputs of the labels."""
        inputs = (left_BD, items_BCD, features_BCF)
        return torch.cat([self.scorer(*inputs), self.labels(*inputs)], -1)


def _pairs(left_BD: Tensor, items_BCD: Tensor) -> Tensor:
    """[B, C, 3 D] left, item and their product."""
    left_BCD = left_BD.unsqueeze(1).expand_as(items_BCD)
    return torch.cat([left_BCD, items_BCD, left_BCD * items_BCD], -1)
