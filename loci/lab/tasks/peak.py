"""What a step of training holds, in bytes: weights, gradients, optimizer state, and what is saved for backward.

The four are added up. The true peak lies below their sum, since gradients grow while saved tensors go; temporaries of
single operations are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def saved_for_backward(run: Callable[[], object], *, besides: Iterable[Tensor] = ()) -> int:
    """Bytes of the tensors that autograd saves while `run` runs, each storage once, without those of `besides`.

    Right for one graph, whose saved tensors are all alive when its backward starts.

    >>> w, x = torch.ones(8, requires_grad=True), torch.ones(8)
    >>> saved_for_backward(lambda: (w * x).exp().sum(), besides=[w, x])  # exp keeps its result
    32
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in besides}
    held: dict[int, Tensor] = {}  # the tensor is kept, so that no other storage takes its place

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in known:
            held[place] = tensor.detach()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return storage_bytes(held.values())


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages of tensors, each once.

    >>> x = torch.zeros(10)
    >>> storage_bytes([x, x[:5], torch.zeros(2)])
    48
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def gradients(model: nn.Module) -> int:
    """Bytes of the gradients that a model's parameters hold now."""
    return storage_bytes(param.grad for param in model.parameters() if param.grad is not None)


def weights(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers."""
    return storage_bytes([*model.parameters(), *model.buffers()])
