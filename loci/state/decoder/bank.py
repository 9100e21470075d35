"""A bank of attention keys and values for each stream: chunks are found by their mean key, read token by token.

    chunk c: csz tokens (k, v), found under the mean of its keys;   full: the oldest chunk gives way to the newest
    M_t = softmax_{tokens of the n chunks of highest q_t . mean_c}(q_t . k / sqrt(d)) v        no positions, no mask

The search is exact and by itself for every head and query. Rows of a batch are streams of their own: none finds what
another has written. A bank carries no gradient; queries do, through the attention and not through the search.

Paper: Wang et al., "Augmenting Language Models with Long-Term Memory", arXiv:2306.07174, section 2.3.
Differs: the authors flatten a batch into one bank, and drop twice what was added when it is full; a bank which holds
less than n chunks is read whole, theirs reads what index -1 stands for.
Keeps: 2*b*B*D*M + c*B*D*M/csz + 8*B bytes for M tokens, b of a number, c of a number of a mean key (4, or 8 in float64).

Shapes: B batch, H heads, T queries, d width of a head, C chunks at most, S = csz tokens a chunk, n chunks found.

>>> bank = empty(1, C=2, H=1, S=2, d=1, like=torch.zeros(()))
>>> full = bank.write(torch.arange(6.0).view(1, 1, 6, 1), torch.arange(6.0).view(1, 1, 6, 1))
>>> full.means.flatten().tolist(), full.written.tolist()
([4.5, 2.5], [3])
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Bank(NamedTuple):
    """What is kept, oldest chunks overwritten first: chunk number w of a stream stands in slot w modulo C."""

    keys: Tensor  # (B, C, H, S, d), as they came
    values: Tensor  # (B, C, H, S, d)
    means: Tensor  # (B, C, H, d), in float32 at least: rounded keys would change who is found
    written: Tensor  # (B,) of int64: chunks ever written

    @torch.no_grad()
    def write(self, keys: Tensor, values: Tensor) -> Bank:
        """The bank with keys and values (B, H, T, d) added, T whole chunks; this one is left as it is."""
        B, C, H, S, d = self.keys.shape
        if keys.shape[2] % S:
            raise ValueError(f"{keys.shape[2]} tokens are no whole chunks of {S}; write multiples of {S}")
        new = [part.reshape(B, H, -1, S, d).transpose(1, 2)[:, -C:] for part in (keys, values)]  # (B, n, H, S, d)
        total = self.written + keys.shape[2] // S
        slots = (total.unsqueeze(1) - torch.arange(new[0].shape[1], 0, -1, device=total.device)) % C  # (B, n)
        where = (torch.arange(B, device=total.device).unsqueeze(1), slots)
        olds = zip(self[:3], (*new, new[0].to(self.means.dtype).mean(3)), strict=True)
        k, v, means = (old.index_put(where, part.to(old.dtype)) for old, part in olds)
        return Bank(k, v, means, total)

    @property
    def held(self) -> Tensor:
        """How many chunks there are to be found, (B,)."""
        return self.written.clamp(max=self.keys.shape[1])

    @torch.no_grad()
    def nearest(self, q: Tensor, n: int) -> Tensor:
        """Slots (B, H, T, n) of the chunks whose mean key has the highest product with each query (B, H, T, d).

        Where fewer than n are held, the others are slots that hold nothing: not below `held`.
        """
        with torch.autocast(q.device.type, enabled=False):
            scores = torch.einsum("bhtd,bchd->bhtc", q.to(self.means.dtype), self.means)
        empty = torch.arange(scores.shape[-1], device=q.device) >= self.held.view(-1, 1, 1, 1)
        return scores.masked_fill(empty, -math.inf).topk(n, -1).indices

    def read(self, q: Tensor, n: int) -> Tensor:
        """What queries (B, H, T, d) find in the tokens of their n nearest chunks, (B, H, T, d); 0 in an empty bank."""
        B, H, _, d = q.shape
        slots = self.nearest(q, n)
        rows = torch.arange(B, device=q.device).view(B, 1, 1, 1)
        heads = torch.arange(H, device=q.device).view(H, 1, 1)
        keys, values = (part[rows, slots, heads].flatten(3, 4) for part in self[:2])  # (B, H, T, n * S, d)
        scores = (keys @ q.unsqueeze(-1)).squeeze(-1) / math.sqrt(d)
        there = (slots < self.held.view(B, 1, 1, 1)).repeat_interleave(self.keys.shape[3], -1)
        nothing = (self.written == 0).view(B, 1, 1, 1)  # its values are 0: any weights do, but not those of no scores
        weights = scores.masked_fill(~(there | nothing), -math.inf).softmax(-1).to(q.dtype)
        return (weights.unsqueeze(-2) @ values).squeeze(-2)


def empty(batch: int, *, C: int, H: int, S: int, d: int, like: Tensor) -> Bank:
    """A bank that holds nothing yet, of the dtype and on the device of `like`."""
    means = torch.float64 if like.dtype == torch.float64 else torch.float32
    keys = like.new_zeros(batch, C, H, S, d)
    counts = torch.zeros(batch, dtype=torch.int64, device=like.device)
    return Bank(keys, keys.clone(), like.new_zeros(batch, C, H, d, dtype=means), counts)
