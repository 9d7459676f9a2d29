"""Domain-adaptive pre-training (Gururangan et al. 2020): the encoder reads the catalogue before it learns to rank.

First only the guessing head learns, for a fresh head would pull at good weights, and the perplexity before would be
the head's and not the encoder's. Then both do.

Shapes: B texts, W tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.finetune.config import FinetuneConfig
from components.finetune.distributed import DistributedContext
from components.finetune.masked_lm import MaskedLanguageModel
from rankline.errors import TooSmall
from rankline.model.networks import TextEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer
from rankline.train import training

HELD_OUT_SHARE, MAX_HELD_OUT = 0.1, 512  # share of the texts, and at most so many
HEAD_ONLY_SHARE = 0.2  # of the steps, before them, with the encoder as it is
CURVE_POINTS = 10  # checkpoints, and points of the curve


def adapt(
    encoder: TextEncoder,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    config: FinetuneConfig,
    use_bf16: bool,
    device: torch.device,
    ranks: DistributedContext,
    progress: Progress,
    checkpoints: Path | None,
) -> dict[str, Any]:
    """Train ``reader`` to guess hidden words of ``texts``; perplexities on held-out texts, and the curve.

    Raises:
        TooSmall: there are fewer than ten different texts.
        TrainingError: the loss became NaN.
    """
    rng = np.random.default_rng([config.seed, 1])
    unique_texts = sorted(set(texts))  # each is read as often as the others, whatever it belongs to
    if len(unique_texts) < 10:
        raise TooSmall(
            "there are too few texts to adapt the encoder to",
            expected="at least 10 different ones",
            found=str(len(unique_texts)),
            hint="set finetune.adapt_steps=0",
        )
    order = rng.permutation(len(unique_texts))
    held_out_count = min(MAX_HELD_OUT, max(1, int(len(unique_texts) * HELD_OUT_SHARE)))
    held_out, train = (
        [unique_texts[row] for row in order[:held_out_count]],
        [unique_texts[row] for row in order[held_out_count:]],
    )
    masked_lm = MaskedLanguageModel(
        encoder, tokenizer, share=config.adapt_mask_share, whole_words=config.adapt_whole_words
    ).to(device)
    ranks.broadcast_weights(masked_lm)
    optimizer = torch.optim.AdamW(
        masked_lm.parameters(), lr=config.adapt_learning_rate, weight_decay=config.weight_decay
    )
    head_steps = math.ceil(HEAD_ONLY_SHARE * config.adapt_steps)
    steps = head_steps + config.adapt_steps
    save_every = math.ceil(steps / CURVE_POINTS)

    checkpointer = training.Checkpoints(checkpoints)
    state = ranks.broadcast(checkpointer.load(rng) if ranks.is_main else None) or {"step": 0, "curve": []}
    if state["step"]:
        rng.bit_generator.state = state["numpy"]
        masked_lm.load_state_dict(state["language"])
        optimizer.load_state_dict(state["optimizer"])

    progress.phase("adapting the encoder to the catalogue's language")
    losses: list[float] = []
    for step in range(state["step"], steps):
        if step == head_steps:
            state["before"] = _perplexity(masked_lm, held_out, use_bf16=use_bf16, device=device)
        ranks.reseed(config.seed, 1, step)
        masked_lm.train()
        head_only = step < head_steps
        # the head starts from nothing and moves ten times as fast while it moves alone
        rate = training.learning_rate_at(
            max(0, step - head_steps) / config.adapt_steps, peak=1.0, warm_up=config.warm_up
        )
        optimizer.param_groups[0]["lr"] = config.adapt_learning_rate * (10.0 if head_only else rate)
        for weight in encoder.parameters():
            weight.requires_grad_(not head_only)
        rows = rng.integers(0, len(train), config.adapt_batch_size)
        masked = masked_lm.masked([train[row] for row in rows], rng=rng)
        (local_rows,) = ranks.slices(1)
        local_texts = masked.part(local_rows)
        share = local_texts.target_BW.sum() / max(1, masked.target_BW.sum())
        loss = masked_lm(local_texts, use_bf16=use_bf16, device=device, vectors=False)[1] * float(share)
        loss_value = loss.detach().reshape(1).clone()
        ranks.sum([loss_value])
        training.check_finite(float(loss_value), step="finetune", epoch=step, setting="adapt_learning_rate")
        optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        ranks.all_reduce_gradients(masked_lm.parameters())
        torch.nn.utils.clip_grad_norm_(masked_lm.parameters(), config.gradient_clip)
        optimizer.step()
        losses.append(float(loss_value))
        progress.update(step + 1, steps, loss=float(loss_value), lr=optimizer.param_groups[0]["lr"])
        if (step + 1) % save_every == 0 or step + 1 == steps:
            state["curve"].append({"step": step + 1, "loss": float(np.mean(losses)), "head_only": head_only})
            losses, state["step"] = [], step + 1
            if ranks.is_main:
                checkpointer.save(
                    {**state, "language": masked_lm.state_dict(), "optimizer": optimizer.state_dict()}, rng
                )

    for weight in encoder.parameters():
        weight.requires_grad_(True)
    return {
        "texts": len(train),
        "held_out": len(held_out),
        "perplexity_before": state["before"],
        "perplexity_after": _perplexity(masked_lm, held_out, use_bf16=use_bf16, device=device),
        "curve": state["curve"],
    }


@torch.no_grad()
def _perplexity(masked_lm: MaskedLanguageModel, texts: Sequence[str], *, use_bf16: bool, device: torch.device) -> float:
    """How many words the model hesitates between where one is hidden; the same words are hidden every time."""
    masked_lm.eval()
    rng = np.random.default_rng(0)
    total, count = 0.0, 0
    for start in range(0, len(texts), 64):
        masked = masked_lm.masked(texts[start : start + 64], rng=rng)
        target_count = int(masked.target_BW.sum())
        total += float(masked_lm(masked, use_bf16=use_bf16, device=device, vectors=False)[1]) * target_count
        count += target_count
    return math.exp(min(50.0, total / max(1, count)))
