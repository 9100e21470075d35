"""Two questions about the last N bits of a random sequence, whose difficulty is N.

    parity:   is the sum of the last N bits odd?         bits of a rate that is drawn for each sequence
    matches:  is the bit N - 1 before the last like it?  fair bits (delayed match to sample); else one answer were likely

A sequence has M bits, M uniform in [N + 2, N + 2 + 3 N), so that where the last N begin cannot be known before the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


def parity(bits: Tensor, N: int) -> Tensor:
    """Whether the last N bits have an odd sum: (..., M) -> (...) of 0 and 1.

    >>> parity(torch.tensor([[1, 0, 1, 1]]), 3).tolist()
    [0]
    """
    _require(bits, N)
    return bits[..., -N:].sum(-1) % 2


def matches(bits: Tensor, N: int) -> Tensor:
    """Whether the N-th bit from the end is like the last: (..., M) -> (...) of 0 and 1.

    >>> matches(torch.tensor([[1, 0, 1, 1]]), 3).tolist()
    [0]
    """
    _require(bits, N)
    return (bits[..., -N] == bits[..., -1]).long()


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and of which bits."""

    answer: Callable[[Tensor, int], Tensor]
    balanced: bool  # fair bits; else the rate of ones is drawn for each sequence


PARITY = Question(parity, balanced=False)
MATCH = Question(matches, balanced=True)


def length(N: int, *, random: torch.Generator) -> int:
    """M, uniform in [N + 2, N + 2 + 3 N)."""
    return int(torch.randint(N + 2, 4 * N + 2, (), generator=random))


def drawn(question: Question, batch: int, *, N: int, random: torch.Generator) -> Tensor:
    """Sequences (batch, M) of one length, long enough for N; whole numbers 0 and 1."""
    rates = torch.full((batch, 1), 0.5) if question.balanced else torch.rand(batch, 1, generator=random)
    return (torch.rand(batch, length(N, random=random), generator=random) < rates).long()


def stream(
    question: Question, batch: int, *, Ns: tuple[int, ...], random: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end: bits (batch, M) and their answers (len(Ns), batch), one row for each N.

    >>> bits, answers = next(stream(PARITY, 5, Ns=(2, 3), random=torch.Generator().manual_seed(0)))
    >>> answers.shape, bool((answers[1] == bits[:, -3:].sum(1) % 2).all())
    (torch.Size([2, 5]), True)
    """
    while True:
        bits = drawn(question, batch, N=max(Ns), random=random)
        yield bits, torch.stack([question.answer(bits, N) for N in Ns])


def _require(bits: Tensor, N: int) -> None:
    if not 1 <= N <= bits.shape[-1]:
        raise ValueError(f"N={N} does not fit sequences of {bits.shape[-1]} bits; choose 1 <= N <= {bits.shape[-1]}")
