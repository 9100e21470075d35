"""Operation-level rounding: inside the `with`, the result of every floating-point operation of torch is rounded.

    fl(a op b) = Q(a op b)          for each kernel that runs, those of backward and of optimizers among them

A kernel is one operation: a matrix product is rounded once, not after each of its additions (`RoundedArray` of numpy
rounds those too). Views are not rounded; what is written in place is, in place. Operands are taken as they are.

>>> from loci.budget.precision.floating import preset
>>> from loci.budget.precision.rounder import Rounder
>>> total = torch.zeros(())
>>> with rounded_operations(Rounder(preset("bfloat16"))):
...     for _ in range(1000):
...         total = total + 1e-3
>>> float(total)
0.5
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from loci.budget.precision.rounder import Rounder


class _Rounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, Q: Rounder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.Q = Q

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        schema = func._schema
        written = [
            args[place] if place < len(args) else kwargs.get(argument.name)
            for place, argument in enumerate(schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        with torch.no_grad():
            tree_map_only(Tensor, self._in_place, written)
            if any(part.alias_info is not None for part in schema.returns):
                return out  # a view, or what was written to
            return tree_map_only(Tensor, self._new, out)

    def _new(self, x: Tensor) -> Tensor:
        if x.is_complex():
            return torch.view_as_complex(self.Q(torch.view_as_real(x)))
        return self.Q(x) if x.is_floating_point() else x

    def _in_place(self, x: Tensor) -> None:
        if x.is_complex() or x.is_floating_point():
            x.copy_(self._new(x))


def rounded_operations(Q: Rounder) -> TorchDispatchMode:
    """A context in which every floating-point result of torch is rounded by Q."""
    return _Rounded(Q)
