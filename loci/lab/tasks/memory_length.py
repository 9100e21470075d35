"""How long and how much is remembered: bits are shown once, then only the time to go, and at the end one of them is asked.

    moment 0        time 1          no question     the bits, each -1 or 1
    moment t        time 1 - t/N    no question     nothing
    moment N        time 0          which bit       nothing                     due: that bit, 0 or 1

Longer N asks how long something is kept (memory_len), more bits how much (memory_size, where N = 2).

Source: Osband et al., "Behaviour Suite for Reinforcement Learning", arXiv:1908.03568, and its code (memory_chain.py).
Differs: the bits are shown at one moment, where the code shows them at two (its reset and its first step give the same
moment), and the question comes N moments after them, where it comes N - 1 moments after; an episode has N + 1 actions in both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loci.lab.tasks.environment import Quiz, Stream
from loci.lab.tasks.mqar import NOTHING


class MemoryChain(Quiz):
    """The world; an observation is the time to go, the number of the bit that is asked, and the bits."""

    actions = 2
    worth = 1.0

    def __init__(self, N: int, *, bits: int = 1) -> None:
        if N < 1 or bits < 1:
            raise ValueError(f"N={N} and bits={bits} leave nothing to remember; choose at least 1 of both")
        self.N, self.bits = N, bits
        self.D, self.draws, self.L = bits + 2, bits + 1, N + 1

    def episode(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """What is seen (E, N + 1, bits + 2), and the bit due at the end of it."""
        context = (drawn[:, 1:] < 0.5).long()
        asked = (drawn[:, 0] * self.bits).long()
        seen = torch.zeros(len(drawn), self.L, self.D)
        seen[:, :, 0] = 1 - torch.arange(self.L) / self.N
        seen[:, -1, 1] = asked.float()
        seen[:, 0, 2:] = 2.0 * context - 1
        due = torch.full((len(drawn), self.L), NOTHING)
        due[:, -1] = context.gather(1, asked.unsqueeze(1)).squeeze(1)
        return seen, due


def memory_length(count: int, length: int, *, N: int, random: torch.Generator) -> Stream:
    """Streams of `length` moments, episodes of one bit to be kept for N moments one after another: x, due, begun.

    >>> x, due, begun = memory_length(1, 6, N=2, random=torch.Generator().manual_seed(0))
    >>> x[0, :, 0].tolist(), begun[0].nonzero().flatten().tolist()
    ([1.0, 0.5, 0.0, 1.0, 0.5, 0.0], [0, 3])
    >>> (due[0] != NOTHING).nonzero().flatten().tolist(), bool((due[0, 2::3] == (x[0, ::3, 2] > 0)).all())
    ([2, 5], True)
    """
    return _read(MemoryChain(N), count, length, random)


def memory_size(count: int, length: int, *, bits: int, N: int = 2, random: torch.Generator) -> Stream:
    """The same with several bits, one of which is asked."""
    return _read(MemoryChain(N, bits=bits), count, length, random)


def _read(chain: MemoryChain, count: int, length: int, random: torch.Generator) -> Stream:
    chain.reset(count, seed=int(torch.randint(2**62, (), generator=random)))
    return chain.stream(length)
