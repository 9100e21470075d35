"""Depth chosen token by token over the keys of the first round alone: a cache of one pass, however deep tokens go.

    round 1    h^2_t = h^1_t + g^1_t Phi(h^1)_t  for all t; each layer l of Phi keeps its k^l_t and v^l_t
    round r    h^{r+1}_t = h^r_t + g^r_t Phi^r_t  for t active in round r, else h^r_t,
               Phi^r_t: layer l asks with q^l(h^r_t), and k^l, v^l of round 1 answer, up to t

A later round computes queries of its active tokens alone and keeps nothing. What it says of one does not depend on who else is
active: those that left can still be heard, as they were in round 1. In exchange no round hears what another found out.

Paper: Bae et al., "Mixture-of-Recursions: Learning Dynamic Recursive Depths for Adaptive Token-Level Computation",
arXiv:2507.10524, section 2.2 (recursive KV sharing), with expert choice.
Differs: see `mixture_of_recursions.py`. The code that was released sends all tokens through later rounds and forgets the
inactive ones after; they are not computed here. No sharing under token choice, and no mixed cache (its `update_cache`).
Keeps: B*(2*b*D*W*(2 + L) + 16) bytes: 1 / N of what the recursive model keeps in its shared layers.

Shapes: B batch, T time, V tokens, D width, N rounds, L layers of Phi, W window, n active tokens, M places of a cache.

>>> model = SharedRecursions(11, D=8, heads=2, hidden=12, layers=2, recursions=3, window=6)
>>> logits, state = model(torch.arange(7).view(1, 7))
>>> [tuple(part.shape) for part in state]
[(1, 1, 6, 8), (1, 1, 6, 8), (1, 2, 6, 8), (1, 2, 6, 8), (1, 1, 6, 8), (1, 1, 6, 8), (1, 2)]
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.decoder.mixture_of_recursions import EXAMPLE, TITLE, MixtureOfRecursions
from loci.state.decoder.recursion import (
    Cache,
    Deeper,
    Heard,
    Layer,
    Recursive,
    beside,
    kept,
    packing,
    picked,
    spread,
)


@method(
    name="mixture-of-recursions-shared",
    kind="decoder",
    title=TITLE,
    paper="arXiv:2507.10524",
    says="rounds that choose their tokens, and hear all tokens by the keys of the first round: depth costs no cache at all",
    bytes="B*(2*b*D*W*(2 + L) + 16)",
    example=EXAMPLE,
    needs=("torch",),
    system="mixture_of_recursions",
)
class SharedRecursions(MixtureOfRecursions):
    """Expert choice over keys and values of round 1, which therefore takes every token."""

    @staticmethod
    def require_shares(shares: tuple[float, ...], recursions: int) -> None:
        """As for all recursions; and the first round takes every token."""
        Recursive.require_shares(shares, recursions)
        if shares[0] != 1:
            raise ValueError(
                f"capacities={shares} leave tokens without the keys that all rounds hear; choose 1 for the first"
            )

    @property
    def places(self) -> list[int]:
        """One cache for all rounds, of every token in the window."""
        return [self.window]

    def rounds(self, turns: Tensor, last: list[Cache | None]) -> Deeper:
        """Round 1 as in recursion-wise caching; what it heard is all that later ones hear."""
        before = last[1]
        heard: list[Heard] = []

        def deeper(r: int, h: Tensor, active: Tensor) -> Tensor:
            if r > 0:
                return asked(self.shared, h, active, turns, heard[0])
            h, found = beside(self.shared, h, turns, before, self.window)
            heard.append(found)
            last[1] = None if before is None else kept(found, before, active.sum(1))
            return h

        return deeper


def asked(layers: nn.ModuleList, h: Tensor, active: Tensor, turns: Tensor, heard: Heard) -> Tensor:
    """Layers over the active tokens alone, which hear what was heard before: (B, T, D), zeros where not active."""
    order = packing(active)
    if not order.shape[1]:
        return torch.zeros_like(h)
    seen = picked(heard.seen.expand(len(h), -1, -1), order)
    return spread(among(layers, picked(h, order), picked(turns, order), heard.layers, seen), order, active)


def asked_by_all(layers: nn.ModuleList, h: Tensor, active: Tensor, turns: Tensor, heard: Heard) -> Tensor:
    """The obvious form of `asked`, and its oracle: all tokens ask, and the answers to inactive ones are forgotten."""
    return torch.where(active.unsqueeze(-1), among(layers, h, turns, heard.layers, heard.seen), 0.0)


def among(layers: nn.ModuleList, x: Tensor, turns: Tensor, past: list[tuple[Tensor, Tensor]], seen: Tensor) -> Tensor:
    """Tokens (B, n, D) through layers, each over the keys and values of its own that there are."""
    for layer, both in zip(layers, past, strict=True):
        assert isinstance(layer, Layer)
        x = layer.among(x, both, turns, seen.unsqueeze(1))
    return x
