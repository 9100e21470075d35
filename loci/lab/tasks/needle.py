"""A needle in noise: one value is marked early on in a long stream of noise, and asked for after the last of it.

    noise noise MARK value noise ... noise ASK            due at ASK: the value

One symbol is enough to remember; what is hard is to keep it, and to write nothing else over it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from loci.lab.tasks.mqar import NOTHING

MARK, ASK = 0, 1


def needle(
    count: int, length: int, *, symbols: int, random: torch.Generator, depth: float | None = None
) -> tuple[Tensor, Tensor]:
    """Texts (count, length) and what is due after each symbol (count, length), NOTHING but at the last.

    Noise and values are drawn from the same symbols, 2 on; the mark stands at `depth` of the text (0 the start, 1 the end),
    anywhere if not given. ValueError where that is nowhere.

    >>> tokens, due = needle(1, 9, symbols=5, random=torch.Generator().manual_seed(0), depth=0.5)
    >>> mark = tokens[0].tolist().index(MARK)
    >>> bool(due[0, -1] == tokens[0, mark + 1]), mark, int(tokens[0, -1])
    (True, 3, 1)
    """
    if length < 3 or symbols < 4 or not 0.0 <= (depth or 0.0) <= 1.0:
        raise ValueError(
            f"length={length}, symbols={symbols}, depth={depth} is no text with a needle; give a length of at least 3, "
            f"4 symbols or more and a depth within 0 to 1"
        )
    tokens = torch.randint(2, symbols, (count, length), generator=random)
    last = length - 3  # the last place of the mark
    where = (
        torch.randint(last + 1, (count, 1), generator=random) if depth is None else _same(count, round(depth * last))
    )
    tokens.scatter_(1, where, MARK)
    tokens[:, -1] = ASK
    due = torch.full((count, length), NOTHING)
    due[:, -1] = tokens.gather(1, where + 1).squeeze(1)
    return tokens, due


def _same(count: int, place: int) -> Tensor:
    return torch.full((count, 1), place)
