"""What CPU kernels allocate inside and free before they return, which no dispatch mode sees.

The formulas follow the kernels' sources where those were read (columns, LAPACK) and the allocations of single operations
where they were not (attention's tiles, oneDNN's blocks); strided, dilated and grouped convolutions can differ from them.

What PyTorch's allocator gives out counts; an operation that is not in the table takes nothing, or too little to matter.
Which kernel runs depends on the CPU at hand, and is asked of PyTorch. cuDNN's choices on CUDA are not known here.

    attention            cpu_flash_attention(_backward): a tile of scores a thread, ATen/native/cpu/FlashAttentionKernel.cpp
    convolution          with oneDNN tensors repacked in blocks of channels, ATen/native/mkldnn/Conv.cpp; without it the
                         columns of ATen/native/ConvolutionMM2d.cpp and NaiveDilatedConvolution.cpp
    linalg_eigh          LAPACK's ?syevd: 1 + 6 n + 2 n^2 numbers and 3 + 5 n integers

Shapes: T queries, S keys; kernels of a convolution (O, C / groups, ...).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def workspace(func: Any, args: tuple[Any, ...], out: Any) -> int:
    """The most bytes that an operation holds on the CPU beside its inputs and outputs.

    >>> q = torch.empty(8, 4, 128, 32, device="meta")
    >>> workspace(aten._scaled_dot_product_flash_attention_for_cpu.default, (q, q, q), None) // torch.get_num_threads()
    20736
    """
    found = TABLE.get(func)
    return 0 if found is None else found(args, out)


def _attention(args: tuple[Any, ...], _: Any) -> int:
    query, rows, columns = args[0], *_tile(args[0], args[1])
    wide = rows * columns + 2 * rows + rows * query.shape[-1]  # scores, their maxima and sums, the output
    return int(torch.get_num_threads() * (4 * wide + _narrow(query) * rows * columns))


def _attention_backward(args: tuple[Any, ...], _: Any) -> int:
    grad, query, key = args[:3]
    rows, columns = _tile(query, key)
    wide = 2 * rows * columns + rows  # scores, their gradients, a sum for each query
    copied = 0 if grad.transpose(1, 2).is_contiguous() else grad.nbytes
    return int(copied + torch.get_num_threads() * (4 * wide + 2 * _narrow(query) * rows * columns))


def _tile(query: Tensor, key: Tensor) -> tuple[int, int]:
    """Queries and keys that one thread takes at a time."""
    T, S = query.shape[-2], key.shape[-2]
    return min(256 if T >= 768 else 64 if T >= 192 else 32, T), min(512, S)


def _narrow(tensor: Tensor) -> int:
    """Bytes of a score in the copy that products in 16 bits read."""
    return 2 if tensor.element_size() == 2 else 0


def _convolution(args: tuple[Any, ...], y: Tensor) -> int:
    x, W, bias, *how = args
    kernel, groups = _kernel(x, W, bias, how), how[5]
    if not kernel.startswith("Mkldnn"):
        return _columns(kernel, x, W, y) + (x.nbytes // groups if groups > 1 else 0)
    if _in_place(x):
        return _packed_kernels(W)
    return max(_packed(x) + _packed_kernels(W) + _blocks(y, 1) - y.nbytes, _blocks(y, 1))


def _convolution_backward(args: tuple[Any, ...], _: Any) -> int:
    grad, x, W, _sizes, *how, wanted = args
    kernel, groups = _kernel(x, W, None, how), how[5]
    if not kernel.startswith("Mkldnn"):
        summed = 4 * grad.numel() if wanted[2] and grad.element_size() == 2 else 0  # for the bias, in float32
        sliced = (grad.nbytes + x.nbytes) // groups if groups > 1 else 0
        return max(_columns(kernel, x, W, grad) + sliced, summed)
    if _in_place(x):
        return 3 * _packed_kernels(W)
    of_kernels = _packed(x) + _blocks(grad, 1) + _packed_kernels(W) - W.nbytes  # the gradient of the input is there
    of_input = _blocks(grad, 1) + _blocks(x, 1) + _blocks(W, 0, 1) - W.nbytes - x.nbytes if wanted[0] else 0
    return int(max(of_kernels, of_input))


def _kernel(x: Tensor, W: Tensor, bias: Any, how: list[Any]) -> str:
    """The name of the kernel that PyTorch takes on this machine; how: stride, padding, dilation, transposed, ..."""
    if x.device.type != "cpu":
        return ""
    return str(torch._C._select_conv_backend(x, W, bias, *how, None).name)


def _columns(kernel: str, x: Tensor, W: Tensor, y: Tensor) -> int:
    """A column of inputs for each output: of all rows at once, of one where the kernel is dilated."""
    places = prod(y.shape[2:])
    column = prod(W.shape[1:]) * places * x.element_size()
    if kernel == "SlowDilated2d":
        return column
    same = prod(W.shape[2:]) == 1 and places == prod(x.shape[2:])  # single pixels: x is its own columns
    return column * x.shape[0] if kernel == "Slow2d" and not same else 0


def _in_place(x: Tensor) -> bool:
    """Whether oneDNN reads and writes pictures as they are."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _packed(x: Tensor) -> int:
    """Bytes of a copy of the input in blocks of channels; none is made of fewer channels than a block."""
    return _blocks(x, 1) if x.shape[1] >= _block() else 0


def _packed_kernels(W: Tensor) -> int:
    return _blocks(W, 0, 1) if W.shape[1] >= _block() else _blocks(W, 0)


def _blocks(tensor: Tensor, *dims: int) -> int:
    """Bytes with those dimensions filled up to blocks."""
    sizes = [_up(size, _block()) if dim in dims else size for dim, size in enumerate(tensor.shape)]
    return prod(sizes) * tensor.element_size()


def _block() -> int:
    """Channels that a register holds."""
    return 16 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 8


def _up(size: int, block: int) -> int:
    return -(-size // block) * block


def _eigh(args: tuple[Any, ...], _: Any) -> int:
    n = args[0].shape[-1]
    return int(args[0].element_size() * (1 + 6 * n + 2 * n * n) + 4 * (3 + 5 * n))


TABLE: dict[Any, Callable[[tuple[Any, ...], Any], int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: _attention_backward,
    aten.convolution.default: _convolution,
    aten.convolution_backward.default: _convolution_backward,
    aten._linalg_eigh.default: _eigh,
}
