"""Attention over a window of the past: the memory that forgets nothing within reach, and pays for it in bytes.

    y_t = W_o concat_h softmax_{t-W < i <= t}(R_t q_t . R_i k_i / sqrt(K)) v_i

R turns pairs of a query's and a key's numbers by an angle that grows with their place, so that only distances count. The
state is the keys, not yet turned, and values of the last W - 1 moments. Where W is the length of a text this is full
attention, the upper bound of what a state of any size can recall.

Paper: Vaswani et al., "Attention Is All You Need", arXiv:1706.03762; places after Su et al., arXiv:2104.09864; a window after
Beltagy et al., arXiv:2004.05150.
Differs: nothing; no dropout.
Keeps: 2*b*B*(W-1)*D + 8*B bytes.

Shapes: B batch, T time, D width, H heads, K = D / H, W window.

>>> mixer = Attention(4, 2, window=3)
>>> y, (keys, values, seen) = mixer(torch.ones(2, 5, 4))
>>> keys.shape, seen.tolist()
(torch.Size([2, 2, 4]), [2, 2])
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from loci.core.card import method
from loci.state.mixer import Mixer, State

BLOCK = 128  # moments whose scores are held at once


@method(
    name="attention",
    kind="mixer",
    title="Attention Is All You Need",
    paper="arXiv:1706.03762",
    says="softmax attention over a window of the past, whose keys and values are the state",
    bytes="2*b*B*(W-1)*D + 8*B",
    example={"D": 4, "heads": 2, "window": 5},
    needs=("torch",),
)
class Attention(Mixer):
    """H heads over the last `window` moments, the present one among them."""

    def __init__(self, D: int, heads: int = 1, *, window: int = 1024, base: float = 10000.0) -> None:
        super().__init__()
        if heads < 1 or D % (2 * heads) or window < 2:
            raise ValueError(
                f"D={D}, heads={heads}, window={window} is no attention; D must be even parts of heads, the window 2 or more"
            )
        self.D, self.H, self.W = D, heads, window
        self.inward, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.base = base

    def initial_state(self, batch: int) -> State:
        """Keys and values (B, W-1, D), the latest last, and how many of them were seen (B,)."""
        past = self.out.weight.new_zeros(batch, self.W - 1, self.D)
        return past, past.clone(), torch.zeros(batch, dtype=torch.int64, device=past.device)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows of W moments, D wide, b bytes for a number."""
        return {"B": batch, "W": self.W, "D": self.D, "b": self.out.weight.element_size()}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One query over the window."""
        y, state = self.attended(x.unsqueeze(1), state, None)
        return y.squeeze(1), state

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Blocks of queries, each over the keys within its reach."""
        return self.attended(x, state, None)

    def scan_with_resets(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """The same, where no query reaches beyond the last reset."""
        return self.attended(x, state, reset)

    def attended(self, x: Tensor, state: State, reset: Tensor | None) -> tuple[Tensor, State]:
        """(B, T, D), state and resets (B, T) -> (B, T, D) and the last state."""
        B, T, _ = x.shape
        if not T:
            return x, state
        kept, reach = state[0].dtype, self.W - 1
        past = reach if torch.compiler.is_compiling() else int(state[2].max())  # compiled code wants one size
        q, k, v = self.inward(x).chunk(3, -1)
        keys, values = (
            torch.cat([old[:, reach - past :], new.to(kept)], 1) for old, new in zip(state[:2], (k, v), strict=True)
        )
        place = torch.arange(past + T, device=x.device)
        begins = (past - state[2]).unsqueeze(1).expand(B, T)  # the first key that each query may see (B, T)
        if reset is not None:
            begins = torch.maximum(begins, torch.where(reset, place[past:], 0).cummax(1).values)
        turns = angles(past + T, self.D // self.H, self.base, q)
        asked, known, told = (self.heads(part.to(q.dtype)) for part in (q, keys, values))
        asked, known, out = turned(asked, turns[past:]), turned(known, turns), []
        for start in range(past, past + T, BLOCK):
            end, low = min(start + BLOCK, past + T), max(start - reach, 0)
            mine, theirs = place[start:end].unsqueeze(1), place[low:end]
            seen = (theirs <= mine) & (theirs > mine - self.W)
            seen = seen & (theirs >= begins[:, start - past : end - past].unsqueeze(-1))
            heard = (asked[:, :, start - past : end - past], known[:, :, low:end], told[:, :, low:end])
            out.append(scaled_dot_product_attention(*heard, attn_mask=seen.unsqueeze(1)))
        count = (past + T - begins[:, -1]).clamp(max=reach)
        fresh = (torch.arange(reach, device=x.device) >= (reach - count).unsqueeze(1)).unsqueeze(-1)
        last = tuple(torch.where(fresh, self.latest(part), 0.0) for part in (keys, values))
        y: Tensor = self.out(torch.cat(out, 2).transpose(1, 2).flatten(2).to(self.out.weight.dtype))
        return y.to(x.dtype), (*last, count)

    def latest(self, part: Tensor) -> Tensor:
        """The last W - 1 moments of (B, m, D), behind zeros where there are fewer."""
        reach, m = self.W - 1, part.shape[1]
        return pad(part, (0, 0, max(reach - m, 0), 0))[:, max(m - reach, 0) :]

    def heads(self, x: Tensor) -> Tensor:
        """(B, m, D) -> (B, H, m, K)."""
        return x.view(*x.shape[:2], self.H, -1).transpose(1, 2)


def angles(length: int, K: int, base: float, like: Tensor) -> Tensor:
    """Rotations of `length` places, (length, K/2, 2) of cosines and sines, from float64 angles."""
    rates = base ** -(torch.arange(0, K, 2, dtype=torch.float64, device=like.device) / K)
    angle = torch.arange(length, dtype=torch.float64, device=like.device).unsqueeze(1) * rates
    return torch.stack([angle.cos(), angle.sin()], -1).to(like.dtype)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Each pair of numbers (2i, 2i + 1) of x (..., n, K) turned by the angle of its place."""
    (even, odd), (cos, sin) = x.view(*x.shape[:-1], -1, 2).unbind(-1), turns.unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)
