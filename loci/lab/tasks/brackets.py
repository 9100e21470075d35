"""Easy tokens among hard ones: words that are said twice, and brackets that are closed in the order they were opened.

A text alternates at random between parts of both kinds, each of which begins with a mark. The second half of a copied part is
known from a fixed distance back; which bracket is closed takes a stack of up to `DEEPEST` open ones. What a copied word
is, and whether a bracket opens or closes where both can be, is chance. Answers are the second words and the closing brackets.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from loci.core.card import load
from loci.lab.claim import Evidence
from loci.state.decoder.routers import taken

KINDS, LETTERS, HALF, DEEPEST = 4, 8, 8, 8
PART = 2 * HALF + 1  # tokens of a part, with its mark
COPY, NEST = (
    2 * KINDS + LETTERS,
    2 * KINDS + LETTERS + 1,
)  # marks; before them opening, then closing brackets, then letters
SYMBOLS = NEST + 1


class Texts(NamedTuple):
    """Tokens (batch, parts * PART) and which of them are answers."""

    tokens: Tensor
    copied: Tensor  # bool
    closing: Tensor  # bool


def texts(batch: int, parts: int, random: torch.Generator) -> Texts:
    """Texts of so many parts, each of either kind."""
    nested = torch.rand(batch * parts, generator=random) < 0.5
    word = torch.randint(2 * KINDS, 2 * KINDS + LETTERS, (batch * parts, HALF), generator=random)
    one = torch.cat([torch.full((batch * parts, 1), COPY), word, word], 1)
    two = torch.cat([torch.full((batch * parts, 1), NEST), brackets(batch * parts, random)], 1)
    tokens = torch.where(nested.unsqueeze(1), two, one)
    second = torch.arange(PART) > HALF
    closing = nested.unsqueeze(1) & (tokens >= KINDS) & (tokens < 2 * KINDS)
    kept = (tokens, ~nested.unsqueeze(1) & second, closing)
    return Texts(*(part.view(batch, parts * PART) for part in kept))


def brackets(rows: int, random: torch.Generator) -> Tensor:
    """Balanced brackets (rows, 2 * HALF): opening ones are 0 to KINDS - 1, their closing ones KINDS more."""
    stack = torch.zeros(rows, DEEPEST + 1, dtype=torch.int64)
    depth, said = torch.zeros(rows, dtype=torch.int64), []
    for left in range(2 * HALF, 0, -1):
        kind = torch.randint(KINDS, (rows,), generator=random)
        closes = torch.rand(rows, generator=random) < 0.5
        closes = ((closes & (depth > 0)) | (depth == left) | (depth == DEEPEST)).long()
        said.append(
            torch.where(closes == 1, KINDS + stack.gather(1, (depth - 1).clamp(min=0).unsqueeze(1))[:, 0], kind)
        )
        stack = stack.scatter(1, depth.unsqueeze(1), kind.unsqueeze(1))  # above the top where it closes: not looked at
        depth = depth + 1 - 2 * closes
    return torch.stack(said, 1)


class Learned(NamedTuple):
    """How a trained decoder reads texts that it did not learn from."""

    nats: float  # an answer
    bytes: int  # of the state of one text
    weights: int
    copied_depth: float  # mean rounds of the tokens from which a copied one is said
    closing_depth: float  # and of those from which a bracket is closed
    shares: list[float]  # of tokens that go 0, 1, ..., N rounds deep
    agreement: float


def operations(model: Any, length: int, progress: float = 1.0) -> int:
    """Multiplications and additions of one pass over a text as training routes it, attention counted causally."""
    hidden, D = model.first[0].down.in_features, model.D
    rounds = [taken(share, length, progress) for share in model.capacities]
    passes = [length, *(n for n in rounds for _ in model.shared), length]
    layers = sum(2 * n * (4 * D * D + 3 * D * hidden) + 2 * n * (n + 1) * D for n in passes)
    routers = len(rounds) * 2 * length * D if hasattr(model, "router") else 0
    return int(layers + routers + 2 * length * D * model.V)


def spent(model: Any, length: int, steps: int) -> int:
    """Operations of so many passes, whose capacities come down in the first half of them."""
    return sum(operations(model, length, 2 * step / steps) for step in range(steps))


def learned(entry: str, seed: int, *, budget: float, parts: int, lr: float, options: dict[str, Any]) -> Learned:
    """A decoder trained on as many texts as `budget`, 10^9 operations forward, allows; its losses are read causally."""
    torch.manual_seed(seed)
    model: Any = load(entry)(SYMBOLS, window=parts * PART, **copy.deepcopy(options))
    random, batch = torch.Generator().manual_seed(seed), 32
    steps = 1
    while batch * spent(model, parts * PART - 1, steps + 1) <= budget * 1e9:
        steps += 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for step in range(steps):
        losses = model.learn(texts(batch, parts, random).tokens, progress=2 * step / steps)
        optimizer.zero_grad()
        torch.autograd.backward(losses.text + losses.routing)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return read(model, texts(256, parts, random))


@torch.no_grad()
def read(model: Any, held_out: Texts) -> Learned:
    """What a decoder makes of texts, token by token without looking ahead."""
    tokens, copied, closing = held_out
    logits, _ = model(tokens)
    nats = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    depth = model.depths(tokens)
    before = [depth[:, :-1][which[:, 1:]].double().mean() for which in (copied, closing)]
    shares = [round(float((depth == r).double().mean()), 3) for r in range(len(model.capacities) + 1)]
    return Learned(
        nats=round(float(nats[(copied | closing)[:, 1:]].mean()), 4),
        bytes=load("loci.state.mixer:state_bytes")(model.initial_state(1)),
        weights=sum(param.numel() for param in model.parameters()),
        copied_depth=round(float(before[0]), 3), closing_depth=round(float(before[1]), 3), shares=shares,
        agreement=round(model.agreement(tokens), 3),
    )  # fmt: skip


def answered(entry: str, seed: int, **options: Any) -> Evidence:
    """Nats an answer and bytes of the state; options as those of `learned`."""
    got = learned(entry, seed, **options)
    return Evidence(got.nats, "nats an answer, read token by token", got.bytes)
