"""Prompts that say what they will be asked for: pairs of keys and values, then some of the keys; after it these keys again.

    k_1 v_1 k_2 v_2 ... k_n v_n   0   k_5 k_2  |  k_5 k_2          due after the bar: the values of these keys

A causal reader has to keep every pair until the questions come, whoever reads the prompt knowing all of it may keep only
those that are asked for. It takes two layers: one that finds out which they are, and one that keeps them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from loci.lab.claim import Evidence
from loci.lab.tasks.mqar import mqar
from loci.state.decoder.jrt import JRTRNN
from loci.state.mixer import state_bytes

LR, BATCH = 0.01, 64


def texts(count: int, *, pairs: int, queries: int, symbols: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Texts (count, N) and what is due after their last symbols (count, queries); all before those is the prompt.

    >>> tokens, due = texts(1, pairs=4, queries=2, symbols=16, random=torch.Generator().manual_seed(0))
    >>> tokens.shape, int(tokens[0, 8]), tokens[0, 9:11].equal(tokens[0, 11:])
    (torch.Size([1, 13]), 0, True)
    """
    known, due = mqar(count, 2 * pairs + queries, pairs=pairs, queries=queries, symbols=symbols, random=random)
    asked = known[:, 2 * pairs :]
    return torch.cat([known[:, : 2 * pairs], torch.zeros_like(known[:, :1]), asked, asked], 1), due[:, 2 * pairs :]


def answered(
    seed: int, *, reads_causally: bool, options: dict[str, Any], steps: int, pairs: int, queries: int, symbols: int
) -> Evidence:
    """Percent of answers right in 1,024 new texts of `pairs` pairs, and the bytes of a text's state.

    Lessons are of 2 pairs at first and of 2 to `pairs` from halfway on.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = JRTRNN(symbols, tied=False, **options)
        nn.init.normal_(model.embedding.weight)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        most = 2 + min(pairs - 2, 2 * (pairs - 1) * step // steps)
        now = int(torch.randint(2, most + 1, (), generator=random))
        tokens, due = texts(BATCH, pairs=now, queries=min(queries, now), symbols=symbols, random=random)
        optimizer.zero_grad()
        logits = said(model, tokens, due.shape[1], reads_causally=reads_causally)[0]
        torch.autograd.backward(cross_entropy(logits.flatten(0, 1), due.flatten()))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    tokens, due = texts(1024, pairs=pairs, queries=queries, symbols=symbols, random=random)
    with torch.no_grad():
        logits, kept = said(model, tokens, queries, reads_causally=reads_causally)
    right = (logits.argmax(-1) == due).float().mean()
    return Evidence(round(100 * float(right), 2), "percent of answers right", kept)


def said(model: JRTRNN, tokens: Tensor, queries: int, *, reads_causally: bool) -> tuple[Tensor, int]:
    """Logits at the last symbols (B, queries, V), and the bytes of a text's state."""
    logits, state = model.whole(tokens, prefix=0 if reads_causally else tokens.shape[1] - queries)
    return logits[:, -queries:], state_bytes(state) // len(tokens)
