"""Texts through the encoder, many at once and without gradients.

Shapes: N texts, T text size, W tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rankline.model.networks import TextEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer, batches_by_length
from rankline.train.distributed import ALONE, DistributedContext

BATCH_SIZE = 64


@torch.no_grad()
def encode_all(
    encoder: TextEncoder,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    device: torch.device,
    progress: Progress,
    distributed: DistributedContext = ALONE,
) -> torch.Tensor:
    """[N, T] the unit vector of every text, in the order given; several processes share the work."""
    rank, world_size = distributed.rank, distributed.world_size
    out_NT = torch.zeros(len(texts), encoder.size, device=device)
    encoder.eval()
    done = 0
    for rows in batches_by_length(texts, BATCH_SIZE)[rank::world_size]:
        ids_BW, mask_BW = (torch.from_numpy(part).to(device) for part in tokenizer([texts[r] for r in rows]))
        out_NT[torch.tensor(rows, device=device)] = encoder(ids_BW, mask_BW)
        done += len(rows)
        progress.update(min(done * world_size, len(texts)), len(texts))
    distributed.all_reduce([out_NT])
    return out_NT
