"""Key-value books: facts early in a long text, asked for much later, filler between them; only what was kept can answer.

    ... a c [n is v] b a ... [m is u] c b b ... [what is n?] [n is v] a c ...

A fact is one word that holds a name and a value, a question is one word that holds a name, and its answer is the fact.
Values are drawn anew for every book, so an answer is known from what was read of this book alone. Filler is a Markov
chain of order two over few letters, of a table that never changes. `recalled` trains a small language model on short
books, in which facts and questions lie within its window, freezes it, and trains a side network on long ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from loci.lab.claim import Evidence
from loci.state.decoder.alibi import Backbone
from loci.state.decoder.bank import Bank
from loci.state.decoder.longmem import LongMem
from loci.state.mixer import state_bytes

NAMES, VALUES, LETTERS = 8, 8, 8
FACTS = NAMES * VALUES  # words: name n with value v is VALUES * n + v; then the questions, then the letters
SYMBOLS = FACTS + NAMES + LETTERS


class Books(NamedTuple):
    """Texts and where they ask."""

    tokens: Tensor  # (B, T) of int64
    distance: Tensor  # (B, T) of int64: at the answer to a question, words since it was last read; elsewhere 0


def books(
    count: int, *, facts: int, early: int, questions: int, late: int, cell: int = 4, random: torch.Generator
) -> Books:
    """Books of early + late cells: facts in some of the early cells, questions about them in some of the late.

    >>> book = books(1, facts=1, early=1, questions=1, late=1, random=torch.Generator().manual_seed(0))
    >>> asked = int(book.distance[0].nonzero())
    >>> told = asked - int(book.distance[0, asked])
    >>> bool(book.tokens[0, told] == book.tokens[0, asked])
    True
    >>> int(book.tokens[0, asked - 1]) - FACTS == int(book.tokens[0, told]) // VALUES
    True
    """
    if not 0 < facts <= min(early, NAMES) or not 0 < questions <= late or cell < 2:
        raise ValueError(
            f"facts={facts}, questions={questions} do not fit {early} early and {late} late cells of {cell} words and {NAMES} "
            f"names; choose fewer"
        )
    tokens = filler(count, cell * (early + late), random)
    distance = torch.zeros_like(tokens)
    names = _chosen(count, NAMES, facts, random)
    words = VALUES * names + torch.randint(VALUES, (count, facts), generator=random)
    told = cell * _chosen(count, early, facts, random)
    told += torch.randint(cell, told.shape, generator=random)
    asked = cell * (early + _chosen(count, late, questions, random).sort(1).values)
    asked += torch.randint(cell - 1, asked.shape, generator=random)
    which = torch.randint(facts, (count, questions), generator=random)
    tokens.scatter_(1, told, words)
    tokens.scatter_(1, asked, FACTS + names.gather(1, which))
    tokens.scatter_(1, asked + 1, words.gather(1, which))
    for place, fact in zip(asked.split(1, 1), which.split(1, 1), strict=True):  # type: ignore[no-untyped-call]
        distance.scatter_(1, place + 1, place + 1 - told.gather(1, fact))
        told.scatter_(1, fact, place + 1)
    return Books(tokens, distance)


def filler(count: int, length: int, random: torch.Generator) -> Tensor:
    """(count, length) letters of the chain."""
    table = (
        (2 * torch.randn(LETTERS, LETTERS, LETTERS, generator=torch.Generator().manual_seed(7))).softmax(-1).cumsum(-1)
    )
    chance = torch.rand(count, length, 1, generator=random)
    out = [torch.randint(LETTERS, (count,), generator=random) for _ in range(2)]
    for t in range(length):
        out.append((chance[:, t] > table[out[-2], out[-1], :-1]).sum(-1))
    return SYMBOLS - LETTERS + torch.stack(out[2:], 1)


class Forgetful(LongMem):
    """LongMem whose bank stays empty: the control of equal weights, bytes and steps."""

    def remember(self, bank: Bank, keys: Tensor, values: Tensor) -> Bank:
        """Nothing."""
        return bank


class Trained(NamedTuple):
    """How long things are trained."""

    backbone: int  # batches of short books
    side: int  # batches of long books, as many steps for each as it has segments


@functools.lru_cache(maxsize=1)
def backbone_of(seed: int, steps: int) -> Backbone:
    """A language model that has learned to recall within its window of 64 words; both arms of a seed stand on it."""
    torch.manual_seed(seed)
    random, model = torch.Generator().manual_seed(seed), Backbone(SYMBOLS, D=32, heads=4, depth=2)
    optimizer = torch.optim.Adam(model.parameters(), 0.005, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.005, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        tokens = books(16, facts=4, early=4, questions=12, late=12, random=random).tokens
        _step(model, optimizer, cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()))
        schedule.step()
    return model


def recalled(kind: Callable[..., LongMem], seed: int, trained: Trained) -> Evidence:
    """Percent of answers right that were last read more than a segment ago, in books not trained on."""
    model = side_trained(kind, seed, trained)
    right, asked = 0, 0
    for turn in range(4):
        book = long_books(32, torch.Generator().manual_seed(1_000_000 + 4 * seed + turn))
        with torch.no_grad():
            logits, state = model(book.tokens)
        far = book.distance[:, 1:] > model.segment
        right += int((logits[:, :-1].argmax(-1) == book.tokens[:, 1:])[far].sum())
        asked += int(far.sum())
    return Evidence(round(100 * right / asked, 2), "percent of far answers right", state_bytes(state) // 32)


def side_trained(kind: Callable[..., LongMem], seed: int, trained: Trained) -> LongMem:
    """Books are read in order, a segment a step, with the bank carried through each book."""
    backbone = backbone_of(seed, trained.backbone)
    model: LongMem = kind.around(backbone, layer=0, segment=32, capacity=512, K=16, chunk=4)  # type: ignore[attr-defined]
    random = torch.Generator().manual_seed(500_000 + seed)
    optimizer = torch.optim.Adam(model.side.parameters(), 0.005, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=16 * trained.side)
    for _ in range(trained.side):
        tokens, state = long_books(16, random).tokens, model.initial_state(16)
        for segment in tokens.split(model.segment, 1):  # type: ignore[no-untyped-call]
            logits, state = model(segment, state)
            _step(model, optimizer, cross_entropy(logits[:, :-1].flatten(0, 1), segment[:, 1:].flatten()))
            schedule.step()
    return model


def long_books(count: int, random: torch.Generator) -> Books:
    """Books of 512 words: 8 facts in the first eighth, 84 questions in the rest."""
    return books(count, facts=8, early=16, questions=84, late=112, random=random)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def _chosen(count: int, among: int, chosen: int, random: torch.Generator) -> Tensor:
    """Rows (count, chosen) of different numbers below `among`, in random order."""
    return torch.rand(count, among, generator=random).argsort(1)[:, :chosen]
