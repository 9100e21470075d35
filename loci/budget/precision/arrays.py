"""One arithmetic for numpy arrays and torch tensors: the few things that the two spell differently.

Everything else (`where`, `floor`, `copysign`, ...) is called on the module that `namespace` returns. torch is never
imported here: who holds a tensor has imported it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

_EXPONENT = 0x7FF << 52  # the exponent bits of a float64


def is_torch(x: object) -> bool:
    """Whether x is a torch tensor; false where torch was never imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def namespace(x: object) -> Any:
    """The module that computes on x: numpy or torch.

    >>> namespace(np.ones(2)).__name__
    'numpy'
    """
    if isinstance(x, np.ndarray | np.generic):
        return np
    if is_torch(x):
        return sys.modules["torch"]
    raise TypeError(f"x is a {type(x).__name__}, a numpy array or a torch tensor is expected; use numpy.asarray(x)")


@lru_cache(maxsize=64)
def carrier(dtype: Any) -> tuple[int, int, float]:
    """What a floating dtype can carry: significant bits, exponent of its smallest number, its largest number.

    >>> carrier(np.dtype("float32"))[:2]
    (24, -149)
    """
    if isinstance(dtype, np.dtype):
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise TypeError(f"x is {dtype}, floating point of at most 64 bits is expected; use x.astype('float32')")
        limits: Any = np.finfo(dtype)
    else:
        if not dtype.is_floating_point:
            raise TypeError(f"x is {dtype}, real floating point is expected; use x.to(torch.float32)")
        limits = sys.modules["torch"].finfo(dtype)
    bits = 1 - math.frexp(float(limits.eps))[1] + 1
    return bits, math.frexp(float(limits.tiny))[1] - bits, float(limits.max)


def wide(x: Any) -> Any:
    """A float64 form of x; every carrier fits into it."""
    return x.to(sys.modules["torch"].float64) if is_torch(x) else x.astype(np.float64)


def narrow(x: Any, like: Any) -> Any:
    """Narrow x to an array of `like`'s dtype; exact, since the carrier holds the format."""
    return x.to(like.dtype) if is_torch(like) else np.asarray(x, dtype=like.dtype)


def alongside(value: Any, x: Any) -> Any:
    """A number or array as x's kind can compute with it, on x's device."""
    if isinstance(value, float | int):
        return value
    if is_torch(x):
        return sys.modules["torch"].as_tensor(value, device=x.device)
    return value.detach().cpu().numpy() if is_torch(value) else value


def power(x: Any) -> Any:
    """The largest power of two that is at most x >= 0, read off the exponent bits; 0 below float64's normal numbers.

    >>> power(np.array([0.0, 0.7, 1.0, 3.9, 4.0])).tolist()
    [0.0, 0.5, 1.0, 2.0, 4.0]
    """
    xp = namespace(x)
    return (x.view(xp.int64) & _EXPONENT).view(xp.float64)


def chopped(x: Any, bits: int) -> Any:
    """Set all but the first `bits` significant bits of x >= 0 to zero.

    >>> chopped(np.array([7.0, 0.1]), 2).tolist()
    [6.0, 0.09375]
    """
    xp = namespace(x)
    return (x.view(xp.int64) & -(1 << (53 - bits))).view(xp.float64)


def extremes(x: Any, axes: Sequence[int]) -> tuple[Any, Any]:
    """Smallest and largest finite value over the axes, which stay with length 1; zeros where there is none."""
    xp = namespace(x)
    x = xp.where(xp.isfinite(x), x, 0.0)
    if 0 in x.shape:
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        empty = xp.zeros(shape, dtype=xp.float64)
        return empty, empty
    if not is_torch(x):
        return x.min(axis=tuple(axes), keepdims=True), x.max(axis=tuple(axes), keepdims=True)
    return (x, x) if x.ndim == 0 else (x.amin(dim=tuple(axes), keepdim=True), x.amax(dim=tuple(axes), keepdim=True))


def uniform(random: Any, x: Any) -> Any:
    """Draws from [0, 1) in float64, one for each element of x, from a generator of x's kind."""
    if not is_torch(x):
        if not isinstance(random, np.random.Generator):
            raise TypeError(f"random={random!r} cannot draw for a numpy array; give numpy.random.default_rng(seed)")
        return np.asarray(random.random(x.shape))
    torch = sys.modules["torch"]
    if not isinstance(random, torch.Generator):
        raise TypeError(f"random={random!r} cannot draw for a torch tensor; give torch.Generator().manual_seed(seed)")
    return torch.rand(x.shape, generator=random, dtype=torch.float64, device=x.device)


def cut(x: Any, block: int) -> Any:
    """(..., T) as (..., ceil(T / block), block), the last block filled up with zeros."""
    x = x.reshape(1) if x.ndim == 0 else x
    missing = -x.shape[-1] % block
    if missing and not is_torch(x):
        x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
    elif missing:
        x = sys.modules["torch"].nn.functional.pad(x, (0, missing))
    return x.reshape(*x.shape[:-1], -1, block)


def joined(x: Any, shape: Sequence[int]) -> Any:
    """The inverse of `cut`, given the shape before."""
    flat = x.reshape(*x.shape[:-2], -1)
    return flat[..., : shape[-1] if shape else 1].reshape(tuple(shape))
