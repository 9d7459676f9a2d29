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
from components.finetune.distributed import Ranks
from components.finetune.masked_lm import LanguageHead
from rankline.errors import TooSmall
from rankline.model.networks import TextEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer
from rankline.train import training

HELD_OUT, MOST_HELD_OUT = 0.1, 512  # share of the texts, and at most so many
HEAD_SHARE = 0.2  # of the steps, before them, with the encoder as it is
LOOKS = 10  # checkpoints, and points of the curve


def adapt(
    reader: TextEncoder,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    config: FinetuneConfig,
    half: bool,
    device: torch.device,
    ranks: Ranks,
    progress: Progress,
    checkpoints: Path | None,
) -> dict[str, Any]:
    """Train ``reader`` to guess hidden words of ``texts``; perplexities on held-out texts, and the curve.

    Raises:
        TooSmall: there are fewer than ten different texts.
        TrainingError: the loss became NaN.
    """
    rng = np.random.default_rng([config.seed, 1])
    known = sorted(set(texts))  # each is read as often as the others, whatever it belongs to
    if len(known) < 10:
        raise TooSmall(
            "there are too few texts to adapt the encoder to",
            expected="at least 10 different ones",
            found=str(len(known)),
            hint="set finetune.adapt_steps=0",
        )
    order = rng.permutation(len(known))
    held = min(MOST_HELD_OUT, max(1, int(len(known) * HELD_OUT)))
    held_out, train = [known[row] for row in order[:held]], [known[row] for row in order[held:]]
    language = LanguageHead(reader, tokenizer, share=config.adapt_mask_share, whole_words=config.adapt_whole_words).to(
        device
    )
    ranks.same_weights(language)
    optimizer = torch.optim.AdamW(
        language.parameters(), lr=config.adapt_learning_rate, weight_decay=config.weight_decay
    )
    head_steps = math.ceil(HEAD_SHARE * config.adapt_steps)
    steps = head_steps + config.adapt_steps
    every = math.ceil(steps / LOOKS)

    keeper = training.Checkpoints(checkpoints)
    state = ranks.same(keeper.load(rng) if ranks.writes else None) or {"step": 0, "curve": []}
    if state["step"]:
        rng.bit_generator.state = state["numpy"]
        language.load_state_dict(state["language"])
        optimizer.load_state_dict(state["optimizer"])

    progress.phase("adapting the encoder to the catalogue's language")
    losses: list[float] = []
    for step in range(state["step"], steps):
        if step == head_steps:
            state["before"] = _perplexity(language, held_out, half=half, device=device)
        ranks.reseed(config.seed, 1, step)
        language.train()
        head_only = step < head_steps
        # the head starts from nothing and moves ten times as fast while it moves alone
        rate = training.rate_at(max(0, step - head_steps) / config.adapt_steps, peak=1.0, warm_up=config.warm_up)
        optimizer.param_groups[0]["lr"] = config.adapt_learning_rate * (10.0 if head_only else rate)
        for weight in reader.parameters():
            weight.requires_grad_(not head_only)
        rows = rng.integers(0, len(train), config.adapt_batch_size)
        masked = language.masked([train[row] for row in rows], rng=rng)
        (mine,) = ranks.parts(1)
        own = masked.part(mine)
        share = own.chosen_BW.sum() / max(1, masked.chosen_BW.sum())
        loss = language(own, half=half, device=device, vectors=False)[1] * float(share)
        told = loss.detach().reshape(1).clone()
        ranks.sum([told])
        training.check_finite(float(told), step="finetune", epoch=step, setting="adapt_learning_rate")
        optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        ranks.sum_gradients(language.parameters())
        torch.nn.utils.clip_grad_norm_(language.parameters(), config.gradient_clip)
        optimizer.step()
        losses.append(float(told))
        progress.update(step + 1, steps, loss=float(told), lr=optimizer.param_groups[0]["lr"])
        if (step + 1) % every == 0 or step + 1 == steps:
            state["curve"].append({"step": step + 1, "loss": float(np.mean(losses)), "head_only": head_only})
            losses, state["step"] = [], step + 1
            if ranks.writes:
                keeper.save({**state, "language": language.state_dict(), "optimizer": optimizer.state_dict()}, rng)

    for weight in reader.parameters():
        weight.requires_grad_(True)
    return {
        "texts": len(train),
        "held_out": len(held_out),
        "perplexity_before": state["before"],
        "perplexity_after": _perplexity(language, held_out, half=half, device=device),
        "curve": state["curve"],
    }


@torch.no_grad()
def _perplexity(language: LanguageHead, texts: Sequence[str], *, half: bool, device: torch.device) -> float:
    """How many words the model hesitates between where one is hidden; the same words are hidden every time."""
    language.eval()
    rng = np.random.default_rng(0)
    total, count = 0.0, 0
    for start in range(0, len(texts), 64):
        masked = language.masked(texts[start : start + 64], rng=rng)
        guessed = int(masked.chosen_BW.sum())
        total += float(language(masked, half=half, device=device, vectors=False)[1]) * guessed
        count += guessed
    return math.exp(min(50.0, total / max(1, count)))
