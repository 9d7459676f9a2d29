"""Texts through the encoder: many at once, none with a gradient.

Shapes: N texts, T text size, W tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rankline.model.networks import TextEncoder
from rankline.runtime.progress import Progress
from rankline.text import Tokenizer, batches_by_length


@torch.no_grad()
def encode_all(
    reader: TextEncoder,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    device: torch.device,
    progress: Progress,
    batch_size: int = 64,
    rank: int = 0,
    world_size: int = 1,
) -> torch.Tensor:
    """[N, T] the unit vector of every text, in the order given; texts of like length share a batch.

    Of several processes each reads its share and leaves zeros for the others'.
    """
    out_NT = torch.zeros(len(texts), reader.size, device=device)
    reader.eval()
    done = 0
    for rows in batches_by_length(texts, batch_size)[rank::world_size]:
        ids_BW, mask_BW = (torch.from_numpy(part).to(device) for part in tokenizer([texts[r] for r in rows]))
        out_NT[torch.tensor(rows, device=device)] = reader(ids_BW, mask_BW)
        done += len(rows)
        progress.update(min(done * world_size, len(texts)), len(texts))
    return out_NT
