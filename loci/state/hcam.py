"""A memory of whole chunks of the past: by their summaries it finds the few that matter, and attends in detail to those.

    z_t = LN(x_t)                                                            what is asked with, and what is stored
    r_i = (W_q z_t) . (W_k s_i) / sqrt(D),   s_i = mean of chunk i           relevance; -1e6 where chunk i may not be read
    w = softmax over the k largest r_i,      chosen for each moment by itself
    a_i = attention of z_t over the C rows of chunk i, heads of d, softmax inside the chunk
    y_t = x_t + sum_i w_i a_i                                                x_t alone while there is no chunk to read

The rows of a chunk carry a sinusoidal code of their distance from its end. When C moments have been gathered they are a
chunk, which takes the place of the oldest of M. Nothing but the residual path ties a moment to the past's gradient: what
is stored is data, and the projections learn from reading it.

A moment is read for before it is written, in `step` and `scan` alike: the moment that completes a chunk does not read
that chunk, the next one does. `read_plainly` is the reading in loops; `recall` never projects a stored row: it maps the
query into the rows' space, mixes the rows there, and maps the mix, which is equal because both maps are linear.
`remember` writes and does not read.

Paper: Lampinen, Chan, Banino, Hill, "Towards mental time travel: a hierarchical memory for reinforcement learning
agents", arXiv:2105.14039; the reading as in the authors' htm_attention.py.
Differs: the local attention and the MLP of the paper's layer are left to who builds one. Reading comes before writing,
which the paper leaves open. Keys inside a chunk have no bias, which in the authors' code cancels in the softmax. Where no
chunk may be read theirs averages over garbage, here nothing is added. Under autocast chunks are chosen in the weights'
precision.
Keeps: b*B*(M*D + M*C*D + C*D) + 8*B bytes: summaries, chunks, the chunk being gathered, and how many moments were seen.
Training holds the k*C rows that each moment reads.

>>> mixer = HCAM(8, M=5, C=4, k=2)
>>> y, state = mixer(torch.randn(3, 100, 8))
>>> y.shape, [tuple(part.shape) for part in state]
(torch.Size([3, 100, 8]), [(3, 5, 8), (3, 5, 4, 8), (3, 4, 8), (3,)])
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.mixer import Mixer, State

FORBIDDEN = -1e6  # the relevance of a chunk that may not be read: finite, so that a softmax over such ones exists
TRUNCATED = 0.87962566103423978  # the deviation of a standard normal that is cut off at two deviations


class Chunks(NamedTuple):
    """J chunks that may be read at some moments, those of the state before those that are gathered meanwhile."""

    keys: Tensor  # (B, J, D), their summaries
    contents: Tensor  # (B, J, C, D)
    episode: Tensor  # (B, J), how many resets came before
    number: Tensor  # (B, J), counted within its episode; below 0 where there is none

    def holding(self, episode: Tensor, first: Tensor, end: Tensor) -> Tensor:
        """Which are of the episode and from `first` up to `end`, all (B, T): (B, T, J)."""
        number = self.number.unsqueeze(1)
        same = self.episode.unsqueeze(1) == episode.unsqueeze(-1)
        return same & (number >= first.clamp(min=0).unsqueeze(-1)) & (number < end.unsqueeze(-1))


class Places(NamedTuple):
    """Where moments go, each (B, T)."""

    episode: Tensor  # how many resets came before
    age: Tensor  # how many moments of the episode came before
    line: Tensor  # which of the chunks that are gathered meanwhile; 0 is the one that the state had begun


@method(
    name="hcam",
    kind="mixer",
    title="Towards mental time travel: a hierarchical memory for reinforcement learning agents",
    paper="arXiv:2105.14039",
    says="stores the past in chunks and attends in detail to the few whose summaries fit",
    bytes="b*B*(M*D + M*C*D + C*D) + 8*B",
    example={"D": 8, "M": 3, "C": 2, "k": 2, "heads": 2, "piece": 5},
    needs=("torch",),
    deviates={"gradient_reaches_every_parameter": "by design no gradient enters what is stored: none reaches a state"},
)
class HCAM(Mixer):
    """The paper's memory block; the state is (keys, contents, accumulator, counts)."""

    code: Tensor  # (C, D), of positions in a chunk

    def __init__(self, D: int, *, M: int = 32, C: int = 32, k: int = 8, heads: int = 1, piece: int = 128) -> None:
        super().__init__()
        _require(D, M, C, k, heads, piece)
        self.D, self.M, self.C, self.k, self.heads = D, M, C, k, heads
        self.piece = piece  # moments that a scan reads for at once
        self.norm = nn.LayerNorm(D)
        self.coarse_query, self.coarse_key = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
        self.query, self.key, self.value = nn.Linear(D, D), nn.Linear(D, D, bias=False), nn.Linear(D, D)
        self.out = nn.Linear(D, D)
        self.register_buffer("code", position_code(C, D).to(self.out.weight.dtype), persistent=False)
        for part in (self.coarse_query, self.coarse_key, self.query, self.key, self.value, self.out):
            deviation = math.sqrt(2 / D) / TRUNCATED
            nn.init.trunc_normal_(part.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
            if part.bias is not None:
                nn.init.zeros_(part.bias)

    def initial_state(self, batch: int) -> State:
        """No chunks, none begun."""
        like, D = self.out.weight, self.D
        rows = (like.new_zeros(batch, *shape) for shape in ((self.M, D), (self.M, self.C, D), (self.C, D)))
        return *rows, torch.zeros(batch, dtype=torch.int64, device=like.device)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows, M chunks of C moments of D numbers of b bytes."""
        return {"B": batch, "M": self.M, "C": self.C, "D": self.D, "b": self.out.weight.element_size()}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Read, then write."""
        keys, contents, _, counts = state
        asked = self.norm(x)
        readable = _newest(counts, self.M, self.C) >= 0  # (B, M)
        found = self.recall(asked.unsqueeze(1), keys, contents, readable.unsqueeze(1)).squeeze(1)
        return x + found.to(x.dtype), self._append(asked, state)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """`piece` moments at once: all that they may read is known beforehand, for it does not hang on what is read."""
        return self._scan(x, state, None)

    def scan_with_resets(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """The same; a reset only begins another chunk, and forbids those of the episodes before."""
        return self._scan(x, state, reset)

    def _scan(self, x: Tensor, state: State, reset: Tensor | None) -> tuple[Tensor, State]:
        out = []
        for moments, begins in self._pieces(x, reset):
            asked = self.norm(moments)
            chunks, readable, state = self._gather(asked, state, begins)
            found = self.recall(asked, chunks.keys, chunks.contents, readable)
            out.append(moments + found.to(x.dtype))
        return (torch.cat(out, 1) if out else x), state

    def _pieces(self, x: Tensor, reset: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        for start in range(0, x.shape[1], self.piece):
            end = start + self.piece
            yield x[:, start:end], (None if reset is None else reset[:, start:end])

    @torch.no_grad()
    def remember(self, x: Tensor, state: State | None = None, *, reset: Tensor | None = None) -> State:
        """The state that `forward` would leave, without reading: no gradient is lost by it, for none enters a state."""
        state = self.initial_state(len(x)) if state is None else state
        self.require(x, state, reset)
        for moments, begins in self._pieces(x, reset):
            state = self._gather(self.norm(moments), state, begins)[2]
        return state

    # Reading

    def recall(self, asked: Tensor, keys: Tensor, contents: Tensor, readable: Tensor) -> Tensor:
        """What moments (B, Q, D) find in chunks (B, J, D), (B, J, C, D), of which they may read some, (B, Q, J)."""
        weights, chosen = self._choose(asked, keys, readable)
        read = _taken(contents.detach() + self.code, chosen)  # (B, Q, k * C, D)
        H, d = self.heads, self.D // self.heads
        query = self.query(asked).view(*asked.shape[:2], H, d) / math.sqrt(d)
        query = torch.einsum("bqhd,hde->bqhe", query, self.key.weight.view(H, d, self.D))
        scores = query @ read.to(query.dtype).transpose(-1, -2)  # (B, Q, H, k * C)
        inside = scores.view(*scores.shape[:-1], self.k, self.C).softmax(-1)
        inside = inside * weights[:, :, None, :, None]  # both levels; a masked chunk weighs 0
        mixed = inside.flatten(-2) @ read.to(inside.dtype)  # (B, Q, H, D)
        values = torch.einsum("bqhe,hde->bqhd", mixed, self.value.weight.view(H, d, self.D))
        found: Tensor = self.out(values.flatten(-2) + self.value.bias)  # biases pass through: the weights sum to 1
        return torch.where(readable.any(-1, keepdim=True), found, 0)

    def _choose(self, asked: Tensor, keys: Tensor, readable: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and places of the k chunks that fit each moment best, (B, Q, k) both."""
        with torch.autocast(asked.device.type, enabled=False):
            query, key = self.coarse_query(asked.to(keys.dtype)), self.coarse_key(keys.detach())
            relevance = query @ key.transpose(1, 2) / math.sqrt(self.D)
            low = max(FORBIDDEN, torch.finfo(relevance.dtype).min)  # float16 ends before
            best, chosen = relevance.masked_fill(~readable, low).topk(self.k, -1)
            return best.softmax(-1), chosen

    def read_plainly(self, asked: Tensor, keys: Tensor, contents: Tensor, readable: Tensor) -> Tensor:
        """The obvious form of `recall`: moment by moment, chunk by chunk, every row of a chunk projected."""
        weights, chosen = self._choose(asked, keys, readable)
        found = torch.zeros_like(asked)
        for row, moment in readable.any(-1).nonzero().tolist():
            for weight, place in zip(weights[row, moment], chosen[row, moment], strict=True):
                inside = self._attend(asked[row, moment], contents[row, place].detach() + self.code)
                found[row, moment] = found[row, moment] + weight * inside
        return found

    def _attend(self, asked: Tensor, rows: Tensor) -> Tensor:
        """Attention of one moment (D) over the rows (C, D) of one chunk, head beside head."""
        parts = []
        for query, key, value in zip(
            *(part.chunk(self.heads, -1) for part in (self.query(asked), self.key(rows), self.value(rows))), strict=True
        ):
            parts.append((key @ query / math.sqrt(len(query))).softmax(0) @ value)
        attended: Tensor = self.out(torch.cat(parts))
        return attended

    # Writing

    @torch.no_grad()
    def _append(self, asked: Tensor, state: State) -> State:
        """One more moment (B, D): most complete no chunk, and then the chunks are handed on as they are."""
        keys, contents, gathered, counts = state
        here = torch.arange(self.C, device=counts.device) == (counts % self.C).unsqueeze(1)
        gathered = torch.where(here.unsqueeze(-1), asked.detach().unsqueeze(1).to(gathered.dtype), gathered)
        complete = (counts + 1) % self.C == 0
        if bool(complete.any()):
            slots = torch.arange(self.M, device=counts.device)
            taken = complete.unsqueeze(1) & (slots == (counts // self.C % self.M).unsqueeze(1))  # (B, M)
            keys = torch.where(taken.unsqueeze(-1), gathered.mean(1, keepdim=True), keys)
            contents = torch.where(taken[..., None, None], gathered.unsqueeze(1), contents)
            gathered = gathered.masked_fill(complete[:, None, None], 0)
        return keys.detach(), contents.detach(), gathered, counts + 1

    @torch.no_grad()
    def _gather(self, asked: Tensor, state: State, reset: Tensor | None) -> tuple[Chunks, Tensor, State]:
        """All chunks that moments (B, T, D) may read, which of them each may, (B, T, J), and the state after all."""
        keys, contents, gathered, counts = state
        places = self._places(counts, asked.shape[1], reset)
        row = torch.arange(len(counts), device=counts.device).unsqueeze(1)
        # at most so many without resets, known without asking the device
        lines = 1 + (math.ceil(asked.shape[1] / self.C) if reset is None else int(places.line.max()))
        fresh = gathered.new_zeros(len(counts), lines, *gathered.shape[1:])
        fresh[:, 0] = gathered
        fresh[row, places.line, places.age % self.C] = asked.detach().to(fresh.dtype)
        number, episode = counts.new_full((len(counts), lines), -1), counts.new_zeros(len(counts), lines)
        number[row, places.line], episode[row, places.line] = places.age // self.C, places.episode
        chunks = Chunks(
            torch.cat([keys, fresh.mean(2)], 1),
            torch.cat([contents, fresh], 1),
            torch.cat([torch.zeros_like(counts).unsqueeze(1).expand(-1, self.M), episode], 1),
            torch.cat([_newest(counts, self.M, self.C), number], 1),
        )
        complete = places.age // self.C
        readable = chunks.holding(places.episode, complete - self.M, complete)
        return chunks, readable, self._after(chunks, places, fresh[row[:, 0], places.line[:, -1]])

    def _places(self, counts: Tensor, length: int, reset: Tensor | None) -> Places:
        time = torch.arange(length, device=counts.device)
        age = counts.unsqueeze(1) + time
        episode = torch.zeros_like(age)
        if reset is not None:
            begun = torch.where(reset, time, -1).cummax(1).values
            age, episode = torch.where(begun < 0, age, time - begun), reset.cumsum(1)
        return Places(episode, age, (age % self.C == 0).cumsum(1))

    def _after(self, chunks: Chunks, places: Places, gathered: Tensor) -> State:
        """The newest M chunks of the last episode, each in its slot, and what was `gathered` last if not yet one."""
        counts = places.age[:, -1] + 1
        due = _newest(counts, self.M, self.C)  # (B, M)
        held = chunks.holding(places.episode[:, -1:].expand_as(due), due, due + 1)
        source, none = held.int().argmax(-1), due < 0
        row = torch.arange(len(counts), device=counts.device).unsqueeze(1)
        return (
            chunks.keys[row, source].masked_fill(none.unsqueeze(-1), 0),
            chunks.contents[row, source].masked_fill(none[..., None, None], 0),
            gathered.masked_fill((counts % self.C == 0)[:, None, None], 0),
            counts,
        )


def position_code(C: int, D: int) -> Tensor:
    """Sines, then cosines, of the distance from the end of a chunk: (C, D), the last row is at 0.

    >>> position_code(3, 2)
    tensor([[ 0.9093, -0.4161],
            [ 0.8415,  0.5403],
            [ 0.0000,  1.0000]], dtype=torch.float64)
    """
    rates = 10000.0 ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
    angles = torch.arange(C - 1, -1, -1, dtype=torch.float64).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def _taken(rows: Tensor, chosen: Tensor) -> Tensor:
    """The rows of the chosen chunks: (B, J, C, D) and (B, Q, k) -> (B, Q, k * C, D), copied chunk by chunk."""
    B, J, C, D = rows.shape
    place = chosen + J * torch.arange(B, device=rows.device)[:, None, None]
    return rows.reshape(B * J, C * D).index_select(0, place.flatten()).view(*chosen.shape[:2], chosen.shape[2] * C, D)


def _newest(counts: Tensor, M: int, C: int) -> Tensor:
    """The number of the chunk in each of M slots after so many moments (B): (B, M), below 0 where there is none."""
    last = (counts // C - 1).unsqueeze(1)
    return last - (last - torch.arange(M, device=counts.device)) % M


def _require(D: int, M: int, C: int, k: int, heads: int, piece: int) -> None:
    if D < 2 or D % 2:
        raise ValueError(f"D={D} has no code of positions, which is sines and cosines in pairs; choose an even width")
    if min(M, C, piece) < 1:
        raise ValueError(f"M={M}, C={C}, piece={piece} is no memory; choose at least 1 of each")
    if not 1 <= k <= M:
        raise ValueError(f"k={k} chunks cannot be chosen of M={M}; choose 1 <= k <= {M}")
    if heads < 1 or D % heads:
        raise ValueError(f"heads={heads} do not divide D={D}; choose a divisor")
