"""In-context molecules: the molecules of one property set in one text, in an order drawn anew each time it is read.

    a . b . c   ->   c . a . b

A set has no order, so none must be learned; and each molecule comes to be the one that is asked for, after all others.
A model of such texts is told what to make by examples alone. It needs no decoder of its own: Chem-xLSTM is mLSTM layers
that know no places, as in `Stack(lambda D: MLSTM(D, heads=8), depth=9, V=V, D=512)`, which adds to each of them a map
of each moment.

Paper: Schmidinger et al., "Bio-xLSTM", arXiv:2411.04165 (Chem-xLSTM, ICST).
Differs: all molecules are kept; the authors' permutation of tokens leaves out the last one (that of strings does not).

>>> text = joined([torch.tensor([7, 8]), torch.tensor([9]), torch.tensor([5, 5, 5])], separator=0)
>>> text
tensor([7, 8, 0, 9, 0, 5, 5, 5])
>>> permuted(text, torch.Generator().manual_seed(0), separator=0)
tensor([5, 5, 5, 0, 7, 8, 0, 9])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def joined(molecules: Sequence[Tensor], *, separator: int) -> Tensor:
    """Molecules, each (N,) of int64, as one text with a separator between them."""
    if not molecules or any(bool((each == separator).any()) for each in molecules):
        raise ValueError(f"no molecules, or one that holds separator={separator}; give at least one, each without it")
    mark = molecules[0].new_tensor([separator])
    parts = [part for each in molecules for part in (mark, each)]
    return torch.cat(parts[1:])


def permuted(text: Tensor, random: torch.Generator, *, separator: int) -> Tensor:
    """The same molecules in another order, each order as likely; give the text without what begins, ends or pads it."""
    if text.dim() != 1 or text.dtype != torch.int64:
        raise ValueError(f"text is {tuple(text.shape)} of {text.dtype}; give one text (N,) of int64")
    ends: list[int] = (text == separator).nonzero().flatten().tolist()
    bounds = zip([0, *(end + 1 for end in ends)], [*ends, len(text)], strict=True)
    molecules = [text[start:end] for start, end in bounds]
    order: list[int] = torch.randperm(len(molecules), generator=random).tolist()
    return joined([molecules[k] for k in order], separator=separator)
