"""Multi-query associative recall: pairs of keys and values, then keys again among noise; at each, its value is due.

    k_1 v_1 k_2 v_2 ... k_n v_n   0 0 k_2 0 k_n 0 ...        due at a key asked again: its value, elsewhere nothing

Pairs are drawn anew in every text, so that they can be known from the state alone.

Source: Arora et al., "Zoology: Measuring and Improving Recall in Efficient Language Models", arXiv:2312.04927, sec. 3.
Differs: the places of the questions are uniform, theirs follow a power law.
"""

from __future__ import annotations

import torch
from torch import Tensor

NOTHING = -100  # where no answer is due; what torch's cross entropy leaves out


def mqar(
    count: int, length: int, *, pairs: int, queries: int, symbols: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Texts (count, length) and what is due after each symbol (count, length), NOTHING where no key is asked.

    Symbol 0 is noise, keys are symbols from 1 on below the middle, values those from the middle on. No two keys of a text
    are alike; each is asked at most once. ValueError where the sizes do not fit each other.

    >>> tokens, due = mqar(1, 8, pairs=2, queries=1, symbols=8, random=torch.Generator().manual_seed(0))
    >>> asked = int((due[0] != NOTHING).nonzero())
    >>> key = tokens[0, :4:2].tolist().index(int(tokens[0, asked]))
    >>> bool(due[0, asked] == tokens[0, 2 * key + 1])
    True
    """
    if not 0 < queries <= pairs < symbols // 2 or length < 2 * pairs + queries:
        raise ValueError(
            f"pairs={pairs}, queries={queries} of {symbols} symbols do not fit {length} moments; choose "
            f"queries <= pairs < symbols / 2 and length >= 2 * pairs + queries"
        )
    keys = 1 + _chosen(count, symbols // 2 - 1, pairs, random)
    values = torch.randint(symbols // 2, symbols, (count, pairs), generator=random)
    asked = _chosen(count, pairs, queries, random)
    places = 2 * pairs + _chosen(count, length - 2 * pairs, queries, random)
    tokens = torch.zeros(count, length, dtype=torch.int64)
    tokens[:, : 2 * pairs] = torch.stack([keys, values], 2).flatten(1)
    tokens.scatter_(1, places, keys.gather(1, asked))
    due = torch.full((count, length), NOTHING).scatter_(1, places, values.gather(1, asked))
    return tokens, due


def _chosen(count: int, among: int, chosen: int, random: torch.Generator) -> Tensor:
    """Rows (count, chosen) of different numbers below `among`, in random order."""
    return torch.rand(count, among, generator=random).argsort(1)[:, :chosen]
