"""Several processes that train one model: each computes its parts of every step, and all hold the same weights.

Every process draws the same random numbers and so knows the whole step. It computes only its own parts, each weighted
so that the sum over all parts is the loss of the whole step. Gradients are summed before every update. A single
process runs the same code with one part.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rankline.train.device import pick_device

COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=30)  # the longest that one process waits for the others


@dataclass(frozen=True)
class DistributedContext:
    """The rank of this process among those that train together."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes checkpoints, progress and outputs: one does."""
        return self.rank == 0

    def slices(self, count: int) -> list[slice]:
        """This process's parts of a step, where each process computes ``count`` of them."""
        whole = self.world_size * count
        return [slice(part, None, whole) for part in range(self.rank, whole, self.world_size)]

    def all_reduce(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message for all of them."""
        chosen = list(tensors)
        if self.world_size == 1 or not chosen:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in chosen])
        dist.all_reduce(flat)
        start = 0
        for tensor in chosen:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def all_reduce_gradients(self, weights: Iterable[Tensor]) -> None:
        """Give every weight the gradient of the whole step."""
        if self.world_size == 1:
            return
        chosen = [weight for weight in weights if weight.requires_grad]
        for weight in chosen:
            if weight.grad is None:  # this process's parts did not use it
                weight.grad = torch.zeros_like(weight)
        self.all_reduce(weight.grad for weight in chosen if weight.grad is not None)

    def gather_rows(self, local_rows: Tensor, count: int) -> Tensor:
        """[count, …] the rows of all processes: row n comes from process (n mod world size)."""
        if self.world_size == 1:
            return local_rows
        whole = local_rows.new_zeros((count, *local_rows.shape[1:]))
        whole[self.rank :: self.world_size] = local_rows
        dist.all_reduce(whole)
        return whole

    def broadcast(self, value: Any) -> Any:
        """The value of the first process, in all of them."""
        if self.world_size == 1:
            return value
        objects = [value]
        dist.broadcast_object_list(objects, src=0)
        return objects[0]

    def broadcast_files(self, folder: Path, names: Iterable[str]) -> None:
        """Give every process the files of the first one: they need not share a disk."""
        if self.world_size == 1:
            return
        contents = self.broadcast({name: (folder / name).read_bytes() for name in names} if self.is_main else None)
        for name, content in contents.items():
            if not self.is_main:
                (folder / name).write_bytes(content)

    def broadcast_weights(self, module: torch.nn.Module) -> None:
        """Give every process the weights of the first one."""
        if self.world_size > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.data, src=0)

    def reseed(self, *numbers: int) -> None:
        """Give each of several processes its own dropout seed, the same again after a resume."""
        if self.world_size > 1:
            torch.manual_seed(hash((*numbers, self.rank)) % 2**31)


ALONE = DistributedContext()


def is_distributed() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


@contextlib.contextmanager
def init_distributed(device: str) -> Iterator[tuple[DistributedContext, torch.device]]:
    """Join the other processes where torchrun started this one; yields the rank and the device.

    Raises:
        DeviceError: the device is not available.
    """
    picked = pick_device(device)
    if not is_distributed():
        yield ALONE, picked
        return
    if picked.type == "cuda":
        picked = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(picked)
    dist.init_process_group("cpu:gloo,cuda:nccl" if picked.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    try:
        yield DistributedContext(dist.get_rank(), dist.get_world_size()), picked
    finally:
        dist.destroy_process_group()
