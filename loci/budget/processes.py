"""One process or many: under torchrun the weights are sharded (FSDP2) and each process takes its part of the rows."""

from __future__ import annotations

import os
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from loci.budget.blocks import blocks
from loci.budget.meter import ByteMeter
from loci.budget.subject import rows_of, slices


class Processes:
    """What differs between one process and several; as a context it joins and leaves the group."""

    def __init__(self, device: str, count: int) -> None:
        self.device, self.count = device, count

    @classmethod
    def of(cls, device: str) -> Processes:
        """As many as torchrun started."""
        return cls(device, int(os.environ.get("WORLD_SIZE", "1")))

    def __enter__(self) -> Self:
        self._joined = self.count > 1 and not dist.is_initialized()
        if self._joined:
            dist.init_process_group("nccl" if self.device == "cuda" else "gloo")
        if self.count > 1 and self.device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        return self

    def __exit__(self, *_: object) -> None:
        if self._joined:
            dist.destroy_process_group()

    def shard(self, model: nn.Module) -> None:
        """Spread a model's parameters over the processes, block by block."""
        if self.count > 1:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(self.device, (self.count,))
            for block in blocks(model).values():
                fully_shard(block, mesh=mesh)
            fully_shard(model, mesh=mesh, reshard_after_forward=True)  # forward passes without backward too

    def part(self, batch: Any) -> Any:
        """This process's rows of a batch."""
        if self.count == 1:
            return batch
        rows = rows_of(batch)
        if rows % self.count:
            raise ValueError(f"{self.count} processes do not divide {rows} rows; give a multiple")
        return slices(batch, self.count)[dist.get_rank()]

    def mean(self, loss: Tensor) -> Tensor:
        """A loss averaged over the processes."""
        if self.count > 1:
            dist.all_reduce(loss)
            loss = loss / self.count
        return loss

    def meter(self, budget: int | None) -> ByteMeter | None:
        """What counts a step: the byte meter where one process runs on the CPU, else the allocator's own books."""
        if self.device == "cuda":
            if budget is not None:
                total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
                torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total))
            torch.cuda.reset_peak_memory_stats()
            return None
        return ByteMeter(limit=budget) if self.count == 1 else None

    def peak(self, meter: ByteMeter | None) -> int:
        """The most bytes alive in the step that was counted; 0 where nothing counts."""
        if meter is not None:
            return meter.high
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else 0
