"""The contract of encoders: they have all of a sequence before they say anything of it, so they carry no state.

    y_1..T = encode(x_1..T)

What is padded is neither read nor said: a row of a batch is what it is alone, cut to its length. What can be said moment
by moment is a mixer.

Shapes: B batch, T time, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """A map of whole sequences. Members write `encode` and, for the card's formula, `shapes`."""

    D: int  # width of inputs and outputs

    @abstractmethod
    def encode(self, x: Tensor, heard: Tensor) -> Tensor:
        """(B, T, D) with zeros where `heard` (B, T) of bool is false -> (B, T, D); what it says there is not looked at."""

    @abstractmethod
    def shapes(self, batch: int) -> Mapping[str, float]:
        """What the names of the card's byte formula stand for; the formula is of the parameters and buffers."""

    def forward(self, x: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """(B, T, D) and the rows' lengths (B,), T each if not given -> (B, T, D); zeros from a row's length on.

        ValueError for a wrong width, lengths that do not fit, integer input, or values that are not finite within a row's
        length.
        """
        heard = self.heard(x, lengths)
        mask = heard.unsqueeze(-1)
        if not bool((x.isfinite() | ~mask).all()):
            raise ValueError("x has values that are not finite, which would reach every moment; clean it first")
        if not x.shape[1]:
            return x
        return torch.where(mask, self.encode(torch.where(mask, x, 0.0), heard), 0.0)  # padding may hold anything

    def heard(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Which moments are within their rows' lengths, (B, T); refuses what does not fit."""
        name = type(self).__name__
        if x.dim() != 3 or x.shape[2] != self.D:
            raise ValueError(f"x is {tuple(x.shape)}, {name} takes (B, T, {self.D}); give rows of that width")
        if not x.is_floating_point():
            raise ValueError(f"x is {_dtype(x)}, {name} takes floating-point rows; embed tokens first")
        if lengths is None:
            return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        whole = not lengths.dtype.is_floating_point and lengths.dtype != torch.bool  # bools would be a mask
        if tuple(lengths.shape) != (len(x),) or not whole:
            raise ValueError(
                f"lengths is {tuple(lengths.shape)} of {_dtype(lengths)}; give one whole number for each of {len(x)} rows"
            )
        if len(x) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= x.shape[1]:
            raise ValueError(f"lengths={lengths.tolist()} do not fit {x.shape[1]} moments; give 0 to {x.shape[1]}")
        return torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
