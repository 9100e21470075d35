"""One block of layers, gone through again and again: by all tokens, or at each round only by those that are still active.

    h^1 = first(E[token]),    h^{r+1} = Phi(h^r) for r = 1..N,    logits = E norm(last(h^{N+1}))

The layers of Phi are the same in every round, so depth costs no weights. Each round keeps keys and values of its own, and of
the tokens that were active in it alone; a key is turned by its token's place in the text, whoever lies between. A round's
cache holds its last C_r active tokens, so a state is of one size however many tokens a router lets in.

Paper: Bae et al., "Mixture-of-Recursions: Learning Dynamic Recursive Depths for Adaptive Token-Level Computation",
arXiv:2507.10524, section 2 (Middle-Cycle sharing, recursion-wise caching).
Differs: keys beyond C_r are dropped, the oldest first, where theirs are kept for ever; a key for each head; E is also the head.
Keeps: B*(2*b*D*(2*W + L*C) + 8*(N + 1)) bytes: window W of first and last, L layers of Phi, C the sum of all C_r.

Shapes: B batch, T time, V tokens, D width, H heads, d = D / H, n active tokens, M places of a cache.

>>> model = Recursive(11, D=8, heads=2, hidden=12, layers=1, recursions=3, window=6)
>>> logits, state = model(torch.arange(10).view(1, 10))
>>> logits.shape, [tuple(part.shape) for part in state[2:8:2]]
(torch.Size([1, 10, 11]), [(1, 1, 6, 8), (1, 1, 6, 8), (1, 1, 6, 8)])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding, linear, scaled_dot_product_attention, silu

from loci.state.attention import turned
from loci.state.decoder.base import Decoder
from loci.state.mixer import State


class Cache(NamedTuple):
    """What layers keep of the tokens that went through them, the latest last, zeros where there was none yet."""

    keys: Tensor  # (B, L, M, D), turned by their places
    values: Tensor  # (B, L, M, D)
    seen: Tensor  # (B,), how many ever went through


class Heard(NamedTuple):
    """What tokens that went through layers side by side had to hear."""

    layers: list[tuple[Tensor, Tensor]]  # of each, keys and values (B, M + n, D)
    seen: Tensor  # (1 or B, n, M + n), by whom


class Losses(NamedTuple):
    """What is to be learned from a text: train on the sum."""

    text: Tensor  # nats a token
    routing: Tensor  # the router's own losses, weighted


class Routed(NamedTuple):
    """Tokens that have been as deep as they go."""

    h: Tensor  # (B, T, D)
    depth: Tensor  # (B, T), rounds that each token was active in
    loss: Tensor  # of the router, weighted; 0 where it has none
    agreed: Tensor  # share of the choices that come out the same without knowing what follows; 1 where all do


Deeper: TypeAlias = Callable[[int, Tensor, Tensor], Tensor]  # round, h (B, T, D), active (B, T) -> Phi(h), else zeros
Route: TypeAlias = Callable[[Tensor, Deeper], Routed]


class Layer(nn.Module):
    """Attention with places turned in, then a gated map of each token, each after a norm and beside a way around it."""

    def __init__(self, D: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.norm_map = nn.RMSNorm(D), nn.RMSNorm(D)
        self.inward, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 2 * hidden, bias=False), nn.Linear(hidden, D, bias=False)

    def forward(self, h: Tensor, past: tuple[Tensor, Tensor], turns: Tensor, seen: Tensor) -> tuple[Tensor, ...]:
        """(B, n, D), keys and values (B, M, D), turns (B, n, d/2, 2), who sees whom -> h and M + n keys and values."""
        q, k, v = self.inward(self.norm(h)).chunk(3, -1)
        keys, values = (
            torch.cat([old, new.to(old.dtype)], 1) for old, new in zip(past, (self.placed(k, turns), v), strict=True)
        )
        return self.answered(h, self.placed(q, turns), (keys, values), seen), keys, values

    def among(self, h: Tensor, past: tuple[Tensor, Tensor], turns: Tensor, seen: Tensor) -> Tensor:
        """The same for tokens (B, n, D) that add no keys of their own to those there are, (B, M, D)."""
        q = linear(self.norm(h), self.inward.weight[: h.shape[2]])
        return self.answered(h, self.placed(q, turns), past, seen)

    def placed(self, x: Tensor, turns: Tensor) -> Tensor:
        """Queries or keys (B, n, D), turned head by head."""
        return turned(x.view(*x.shape[:2], self.heads, -1), turns.unsqueeze(2)).flatten(2)

    def answered(self, h: Tensor, q: Tensor, past: tuple[Tensor, Tensor], seen: Tensor) -> Tensor:
        """What queries find is added to h, and what the map says to that."""
        q, k, v = (part.to(q.dtype).view(*part.shape[:2], self.heads, -1).transpose(1, 2) for part in (q, *past))
        heard = scaled_dot_product_attention(q, k, v, attn_mask=seen)
        h = h + self.out(heard.transpose(1, 2).flatten(2))
        gate, up = self.up(self.norm_map(h)).chunk(2, -1)
        out: Tensor = h + self.down(silu(gate) * up)
        return out


class Recursive(Decoder):
    """All tokens go through all rounds. Subclasses say in `by_rule` and `in_training` who stays active."""

    def __init__(
        self,
        V: int,
        *,
        D: int = 960,
        heads: int = 15,
        hidden: int = 2560,
        layers: int = 10,  # of the shared block
        recursions: int = 3,
        window: int = 2048,
        capacities: Sequence[float] | None = None,  # each round's share of the window; all of it unless given
    ) -> None:
        super().__init__()
        shares = tuple(capacities) if capacities is not None else (1.0,) * recursions
        if min(V, heads, hidden, layers, recursions, window) < 1 or D % (2 * heads):
            raise ValueError(
                f"V={V}, heads={heads}, hidden={hidden}, layers={layers}, recursions={recursions}, window={window} and D={D} are "
                f"no recursive decoder; choose each at least 1, and D a multiple of 2 * heads"
            )
        self.require_shares(shares, recursions)
        self.V, self.D, self.heads, self.window, self.capacities = V, D, heads, window, shares
        self.embedding = nn.Parameter(torch.randn(V, D) * 0.02)
        self.first, self.shared, self.last = (
            nn.ModuleList(Layer(D, heads, hidden) for _ in range(count)) for count in (1, layers, 1)
        )
        self.norm = nn.RMSNorm(D)

    @staticmethod
    def require_shares(shares: tuple[float, ...], recursions: int) -> None:
        """Refuse capacities that are not one for each round, none larger than the one before."""
        falling = all(one >= two for one, two in zip((1.0, *shares), shares, strict=False))
        if len(shares) != recursions or not falling or shares[-1] <= 0:
            raise ValueError(
                f"capacities={shares} do not fit {recursions} recursions; give as many, from at most 1 down to above 0"
            )

    @property
    def places(self) -> list[int]:
        """How many tokens each round's cache holds."""
        return [math.ceil(share * self.window - 1e-9) for share in self.capacities]

    def initial_state(self, batch: int) -> State:
        """Keys and values (B, layers, places, D) of the first layer, of each round, of the last; counts (B, N + 1)."""
        like, L = self.embedding, len(self.shared)
        sizes = [(1, self.window), *((L, places) for places in self.places), (1, self.window)]
        past = [like.new_zeros(batch, *size, self.D) for size in sizes for _ in range(2)]
        return *past, torch.zeros(batch, len(self.places) + 1, dtype=torch.int64, device=like.device)

    def shapes(self, state: State) -> Mapping[str, float]:
        """B streams, D width, W the window, L shared layers, N rounds with C places in all, b bytes of a number."""
        N, C, b = len(self.capacities), sum(self.places), state[0].element_size()
        return {"B": len(state[0]), "D": self.D, "W": self.window, "L": len(self.shared), "N": N, "C": C, "b": b}

    def read(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """A window at a time; who goes deeper is decided by each token for itself."""
        said = []
        for part in torch.split(tokens, self.window, 1):
            logits, state, _ = self.passed(part, state, self.by_rule)
            said.append(logits)
        return torch.cat(said, 1), state

    def passed(self, tokens: Tensor, state: State | None, route: Route) -> tuple[Tensor, State, Routed]:
        """(B, T), a state or none to start from and to leave behind -> logits (B, T, V), the state, and who went where."""
        last: list[Cache | None] = [None] * (len(self.places) + 2) if state is None else [*self.opened(state)]
        h = embedding(tokens, self.embedding)
        here = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
        turns = angles(here if state is None else here + state[-1][:, :1], self.D // self.heads, h)
        everyone = torch.ones_like(tokens, dtype=torch.bool)
        h, last[0] = gathered(self.first, h, everyone, turns, last[0], self.window)
        routed = route(h, self.rounds(turns, last))
        h, last[-1] = gathered(self.last, routed.h, everyone, turns, last[-1], self.window)
        return linear(self.norm(h), self.embedding), closed(last), routed

    def rounds(self, turns: Tensor, last: list[Cache | None]) -> Deeper:
        """Phi over tokens of a text, round by round; caches stand in `last` as in a state, and are replaced there."""

        def deeper(r: int, h: Tensor, active: Tensor) -> Tensor:
            h, last[r + 1] = gathered(self.shared, h, active, turns, last[r + 1], self.places[r])
            return h

        return deeper

    def opened(self, state: State) -> list[Cache]:
        """A state as caches: first, rounds, last."""
        counts = state[-1]
        seen = [counts[:, 0], *counts.unbind(1)[1:], counts[:, 0]]
        return [Cache(state[2 * i], state[2 * i + 1], count) for i, count in enumerate(seen)]

    def by_rule(self, h: Tensor, deeper: Deeper) -> Routed:
        """All rounds for everyone."""
        everyone = torch.ones_like(h[..., 0], dtype=torch.bool)
        for r in range(len(self.capacities)):
            h = deeper(r, h, everyone)
        return Routed(h, everyone * len(self.capacities), h.new_zeros(()), h.new_ones(()))

    def in_training(self, h: Tensor, deeper: Deeper, progress: float) -> Routed:
        """The same, unless a subclass routes otherwise while it learns; `progress` is in `learn`."""
        return self.by_rule(h, deeper)

    def learn(self, tokens: Tensor, *, progress: float = 1.0) -> Losses:
        """Losses of predicting each token (B, T) but the first; `progress` from 0 to 1 narrows routes down to capacity."""
        self.require_text(tokens)
        logits, _, routed = self.passed(tokens[:, :-1], None, lambda h, deeper: self.in_training(h, deeper, progress))
        return Losses(cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()), routed.loss)

    @torch.no_grad()
    def depths(self, tokens: Tensor) -> Tensor:
        """How many rounds each token (B, T) of a fresh text is active in as it is read, (B, T)."""
        self.require(tokens, self.initial_state(len(tokens)))
        state, found = self.initial_state(len(tokens)), [torch.zeros_like(tokens[:, :0])]
        for part in torch.split(tokens, self.window, 1):
            _, state, routed = self.passed(part, state, self.by_rule)
            found.append(routed.depth)
        return torch.cat(found, 1)

    @torch.no_grad()
    def agreement(self, tokens: Tensor) -> float:
        """Share of the choices made in training that come out the same where each token decides for itself."""
        self.require_text(tokens)
        return float(self.passed(tokens, None, lambda h, deeper: self.in_training(h, deeper, 1.0))[2].agreed)

    def require_text(self, tokens: Tensor) -> None:
        """Refuse what cannot be learned from at once: it has to fit the window."""
        self.require(tokens, self.initial_state(len(tokens)))
        if not 2 <= tokens.shape[1] <= self.window + 1:
            raise ValueError(
                f"tokens is {tuple(tokens.shape)}; {type(self).__name__} learns from 2 to {self.window + 1} tokens, cut the text"
            )


def gathered(
    layers: nn.ModuleList, h: Tensor, active: Tensor, turns: Tensor, cache: Cache | None, limit: int
) -> tuple[Tensor, Cache | None]:
    """Layers over the active tokens alone, packed side by side in their order: (B, T, D), zeros where not active.

    A token hears itself and the `limit` active tokens before it. Without a cache a text begins here, and none is left.
    """
    order = packing(active)
    if not order.shape[1]:
        return torch.zeros_like(h), cache
    x, heard = beside(layers, picked(h, order), picked(turns, order), cache, limit)
    return spread(x, order, active), None if cache is None else kept(heard, cache, active.sum(1))


def beside(layers: nn.ModuleList, x: Tensor, turns: Tensor, cache: Cache | None, limit: int) -> tuple[Tensor, Heard]:
    """Layers over tokens side by side (B, n, D), of which each hears itself and the `limit` before it."""
    M, n = 0 if cache is None else cache.keys.shape[2], x.shape[1]
    slot, mine = torch.arange(M + n, device=x.device), M + torch.arange(n, device=x.device).unsqueeze(1)
    seen = ((slot <= mine) & (slot >= mine - limit)).unsqueeze(0)
    if cache is not None:
        seen = seen & (slot >= M - cache.seen.view(-1, 1, 1))
    heard = []
    for place, layer in enumerate(layers):
        past = (x[:, :0], x[:, :0]) if cache is None else (cache.keys[:, place], cache.values[:, place])
        x, keys, values = layer(x, past, turns, seen.unsqueeze(1))
        heard.append((keys, values))
    return x, Heard(heard, seen)


def kept(heard: Heard, cache: Cache, count: Tensor) -> Cache:
    """The cache once the first `count` (B,) tokens of those side by side are in it."""
    M = cache.keys.shape[2]
    keys, values = (torch.stack(part, 1) for part in zip(*heard.layers, strict=True))
    latest = (count.unsqueeze(1) + torch.arange(M, device=count.device)).view(-1, 1, M, 1)  # ends at the last of them
    latest = latest.expand(*keys.shape[:2], M, keys.shape[3])
    return Cache(keys.gather(2, latest), values.gather(2, latest), cache.seen + count)


def packing(active: Tensor) -> Tensor:
    """Which tokens (B, n) are packed side by side: the active ones (B, T) in their order, then what fills up."""
    n = active.shape[1] if torch.compiler.is_compiling() else int(active.sum(1).max())  # compiled code wants one size
    return (~active).int().argsort(dim=1, stable=True)[:, :n]


def picked(x: Tensor, order: Tensor) -> Tensor:
    """Of (B, T, ...) the packed ones, (B, n, ...)."""
    return x.gather(1, order.view(*order.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:]))


def spread(x: Tensor, order: Tensor, active: Tensor) -> Tensor:
    """Packed tokens (B, n, D) back in their places (B, T, D), zeros where not active."""
    real, back = active.gather(1, order).unsqueeze(-1), order.unsqueeze(-1).expand_as(x)
    said = x.new_zeros(*active.shape, x.shape[2])
    return said.scatter(1, back, torch.where(real, x, 0.0))


def masked(layers: nn.ModuleList, h: Tensor, active: Tensor, turns: Tensor) -> Tensor:
    """The obvious form of `gathered`, and its oracle: all tokens, where none hears one that is not active."""
    here = torch.arange(h.shape[1], device=h.device)
    seen = (here <= here.unsqueeze(1)) & active.unsqueeze(1) | torch.eye(len(here), dtype=torch.bool, device=h.device)
    x = h
    for layer in layers:
        x = layer(x, (x[:, :0], x[:, :0]), turns, seen.unsqueeze(1))[0]
    return torch.where(active.unsqueeze(-1), x, 0.0)


def angles(places: Tensor, d: int, like: Tensor, base: float = 10000.0) -> Tensor:
    """Rotations of places (B, T), as cosines and sines (B, T, d/2, 2) of float64 angles."""
    rates = base ** -(torch.arange(0, d, 2, dtype=torch.float64, device=like.device) / d)
    angle = places.unsqueeze(-1) * rates
    return torch.stack([angle.cos(), angle.sin()], -1).to(like.dtype)


def closed(caches: Sequence[Cache | None]) -> State:
    """Caches as a state, which none are the state of nothing."""
    filled = [cache for cache in caches if cache is not None]
    counts = [torch.stack([cache.seen for cache in filled[:-1]], 1)] if filled else []  # first and last count alike
    return *(part for cache in filled for part in cache[:2]), *counts
