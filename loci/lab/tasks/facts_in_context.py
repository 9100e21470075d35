"""Facts in a context: a corpus that tells what each name is worth, and questions about it; nothing else knows the answers.

    corpus  . [n is v] . [m is u] ...        questions  [n?] [v]  [m?] [u] ...

A fact is one word that holds a name and a value, a question one word that holds a name, an answer one that holds a value.
Values are drawn anew for every corpus. `model_of` is a small language model that has learned, over many corpora, to answer
from what stands before; frozen, it is what a cartridge is made for. A corpus never asks, so who learns its wording alone has
not learned to be asked.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

from loci.lab.claim import Evidence
from loci.state.context.cartridge import Cartridge
from loci.state.context.open_transformer import OpenTransformer
from loci.state.context.self_study import Teacher, Turn, corpus_loss, self_study, studied

NAMES, VALUES = 16, 8
FACTS = NAMES * VALUES  # words: name n is v is VALUES * n + v; then questions, then answers, then the stop
STOP = FACTS + NAMES + VALUES
SYMBOLS = STOP + 1
Arm = Literal["self-study", "drawn", "wording", "truncated", "whole"]


def corpora(count: int, facts: int, random: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Texts (count, 2 * facts), the names in them (count, facts), and the names' values (count, facts).

    >>> corpora(1, 2, torch.Generator().manual_seed(0))[0].shape
    torch.Size([1, 4])
    """
    names = torch.rand(count, NAMES, generator=random).argsort(1)[:, :facts]
    values = torch.randint(VALUES, names.shape, generator=random)
    words = VALUES * names + values
    return torch.stack([torch.full_like(words, STOP), words], 2).flatten(1), names, values


def asked(names: Tensor, values: Tensor, random: torch.Generator) -> Tensor:
    """Questions about all names and their answers, in a drawn order, (count, 2 * facts)."""
    order = torch.rand(names.shape, generator=random).argsort(1)
    pairs = [FACTS + names.gather(1, order), FACTS + NAMES + values.gather(1, order)]
    return torch.stack(pairs, 2).flatten(1)


@functools.lru_cache(maxsize=1)
def model_of(seed: int, steps: int) -> OpenTransformer:
    """A language model that answers from its context; all arms of a seed stand on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OpenTransformer(SYMBOLS, D=64, heads=4, depth=2)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 0.004, betas=(0.9, 0.98))
    schedule = OneCycleLR(optimizer, 0.004, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        facts = int(torch.randint(4, NAMES + 1, (), generator=random))
        texts, names, values = corpora(32, facts, random)
        tokens = torch.cat([texts, asked(names, values, random)], 1)
        loss = cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.requires_grad_(False)


def ask(span: Tensor, turn: Turn, random: torch.Generator) -> Tensor:
    """Model A as a template: a question about something in the span; all five kinds of turn are one here.

    >>> ask(torch.tensor([STOP, 17]), Turn("question", False), torch.Generator()).tolist() == [FACTS + 17 // VALUES]
    True
    """
    told = span[span < FACTS]
    one = told[int(torch.randint(len(told), (), generator=random))]
    return (FACTS + one // VALUES).view(1)


def made(arm: Arm, model: OpenTransformer, corpus: Tensor, *, p: int, steps: int, seed: int) -> Cartridge:
    """A cartridge of a corpus (T,) by one of the arms."""
    random = torch.Generator().manual_seed(seed)
    if arm == "whole":
        return Cartridge.of(model, corpus, p=len(corpus))
    cartridge = Cartridge.of(model, corpus, p=p)
    if arm == "drawn":
        with torch.no_grad():
            for part in (cartridge.Z, cartridge.sink):
                part.copy_(torch.randn(part.shape, generator=random))
    if arm in {"self-study", "drawn"}:
        teacher = Teacher(model, count=1, k=20)
        examples = self_study(
            corpus, asks=ask, answers=teacher, count=256, sizes=(len(corpus) // 2, len(corpus)), random=random
        )
        studied(cartridge, model, examples, steps=steps, random=random)
    if arm == "wording":
        optimizer = torch.optim.Adam([cartridge.Z], lr=2e-2)
        for _ in range(steps):
            optimizer.zero_grad()
            torch.autograd.backward(corpus_loss(cartridge, model, corpus))
            optimizer.step()
    return cartridge


def answered(arm: Arm, seed: int, *, p: int = 8, backbone: int = 400, steps: int = 200, count: int = 4) -> Evidence:
    """Percent of questions answered right from cartridges of `count` corpora, each question asked alone."""
    model = model_of(seed, backbone)
    random = torch.Generator().manual_seed(1_000_000 + seed)
    right, held = 0, 0
    for number, (text, names, values) in enumerate(zip(*corpora(count, NAMES, random), strict=True)):
        cartridge = made(arm, model, text, p=p, steps=steps, seed=seed + number)
        with torch.no_grad():
            said = cartridge(model, FACTS + names.unsqueeze(1))[:, -1]
        right += int((said.argmax(-1) == FACTS + NAMES + values).sum())
        held = sum(part.numel() * part.element_size() for part in (cartridge.Z, cartridge.sink))
    return Evidence(round(100 * right / (count * NAMES), 2), "percent of questions answered right", held)
