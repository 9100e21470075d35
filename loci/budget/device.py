"""Where a step runs, as far as its bytes depend on it: how sizes are rounded, what libraries take, what autocast does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch.nn import functional as F  # noqa: N812 - its name in the field
from torch.overrides import TorchFunctionMode

Name: TypeAlias = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Device:
    """`name` is planned for; `kind` is the device type on which the fake step runs, since a CPU build has no other."""

    name: Name
    block: int = 1  # allocations are rounded up to multiples of it
    workspace: int = 0  # bytes that the device's matrix library keeps once it is used
    kind: str = "cpu"

    def count(self, size: int) -> int:
        """What a storage of `size` bytes costs."""
        return -(-size // self.block) * self.block

    def like(self) -> AbstractContextManager[object]:
        """Run as that device would where this machine has none."""
        return CudaAutocast() if self.name == "cuda" else nullcontext()


class CudaAutocast(TorchFunctionMode):
    """CUDA's autocast takes losses and softmaxes to float32, the CPU's leaves them in low precision."""

    FLOAT32 = frozenset({F.cross_entropy, F.nll_loss, F.softmax, F.log_softmax, F.layer_norm, F.mse_loss, F.l1_loss})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Take the first argument of those to float32 while autocast is on."""
        if func in self.FLOAT32 and torch.is_autocast_enabled("cpu") and args:
            args = (args[0].float(), *args[1:])
        return func(*args, **(kwargs or {}))


def device(name: str) -> Device:
    """The device of that name.

    PyTorch's CUDA allocator hands out multiples of 512 bytes; cuBLAS keeps 32 MiB on GPUs since Hopper, 8.1 MiB before
    (CUBLAS_WORKSPACE_CONFIG), of which the larger is counted. The context of CUDA itself, some 0.5 GB a process, is
    no part of what the allocator counts.
    """
    known: dict[str, Callable[[], Device]] = {
        "cpu": lambda: Device("cpu"),
        "cuda": lambda: Device("cuda", block=512, workspace=32 * 2**20),
    }
    if name not in known:
        raise ValueError(f"device={name!r} is unknown; choose cpu or cuda")
    return known[name]()
