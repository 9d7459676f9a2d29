"""Texts through the encoder, many at once and without gradients.

Shapes: N texts, T text size, W tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rankline.model.networks import TextEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer, batches_by_length

BATCH_SIZE = 64


@torch.no_grad()
def encode_all(
    encoder: TextEncoder,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    device: torch.device,
    progress: Progress,
    shard: tuple[int, int] = (0, 1),
) -> torch.Tensor:
    """[N, T] the unit vector of every text, in the order given; texts of similar length share a batch.

    Args:
        shard: the rank of this process and the number of processes; rows of the others' shards stay zero.
    """
    rank, world_size = shard
    out_NT = torch.zeros(len(texts), encoder.size, device=device)
    encoder.eval()
    done = 0
    for rows in batches_by_length(texts, BATCH_SIZE)[rank::world_size]:
        ids_BW, mask_BW = (torch.from_numpy(part).to(device) for part in tokenizer([texts[r] for r in rows]))
        out_NT[torch.tensor(rows, device=device)] = encoder(ids_BW, mask_BW)
        done += len(rows)
        progress.update(min(done * world_size, len(texts)), len(texts))
    return out_NT
