"""Memories that are trained while they read, on a window of the last c tokens: what OmegaNet, ATLAS and Titans share.

    L_t(M) = sum_{i = t-c+1..t} gamma_i |M(phi(k_i)) - v_i|^2,    y_t = M_t(phi(q_t))           the Omega objective
    G_t = grad L_t(M_t'),    t' the end of the last chunk before t: t - 1 where a chunk is one token

M is a matrix, W z, or a residual net, z_1 + W1 silu(W2 z), where z_1 are the first d features of phi, the key itself. How
G_t moves M is a member's: its `rule` for one token, the obvious form, and `travel` for the tokens of a chunk at once.
A gradient is a sum of outer products, one a token, so a chunk's are never held but by their factors; the window is a band.

Nothing here depends on autograd or on training: gradients are in closed form, the outer ones flow through them, and a
memory goes on learning under `no_grad`. The state holds M less M_0, so that M_0 learns from any piece of a text. Beside it
are the last c - 1 keys, values and gammas; the momentum, where a rule has one; and where a chunk is more than one token,
the frozen M_t' and how far into its chunk each row is, so that a text can be cut, and a row reset, at any token.

Paper: Behrouz et al., "ATLAS: Learning to Optimally Memorize the Context at Test Time", arXiv:2505.23735.

Shapes: B batch, H heads, T tokens, d channels, F features, c window; weights of a memory are (B, H, m, n).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu

from loci.state.delta_rule import keeping
from loci.state.keyed import Keyed
from loci.state.mixer import Mixer, State, choose
from loci.state.polynomial import Polynomial

Weights: TypeAlias = tuple[Tensor, ...]
Apply: TypeAlias = Callable[[Tensor], Tensor]  # a weight on (B, H, T, n) -> (B, H, T, m), its own at each token
Factors: TypeAlias = tuple[Tensor, Tensor]  # left (B, H, I, m) and right (B, H, I, n) of each token's outer product


class Fed(NamedTuple):
    """What a memory is fed at some tokens: pairs (B, H, T, d), and gates (B, H, T)."""

    q: Tensor
    k: Tensor
    v: Tensor
    gamma: Tensor  # how much a token counts
    log_alpha: Tensor  # what is kept of M
    eta: Tensor  # the step
    log_theta: Tensor  # what is kept of the momentum


class Held(NamedTuple):
    """A state but for the convolution's part: M itself, not less M_0."""

    k: Tensor  # (B, H, c - 1, d)
    v: Tensor  # (B, H, c - 1, d)
    gamma: Tensor  # (B, H, c - 1), 0 before anything was seen
    M: Weights
    S: Weights  # momentum, () where a rule has none
    frozen: Weights  # M at the end of the last chunk, () where a chunk is one token
    place: Tensor | None  # (B,) tokens since then, None where a chunk is one token


class Matrix:
    """M(z) = W z."""

    def shapes(self, d: int, F: int) -> list[tuple[int, int]]:
        """One weight."""
        return [(d, F)]

    def read(self, apply: Sequence[Apply], z: Tensor) -> Tensor:
        """What it says of features z (..., F)."""
        return apply[0](z)

    def factors(self, weights: Weights, z: Tensor, v: Tensor) -> list[Factors]:
        """Of the gradients of |M(z) - v|^2 by its weights, token by token."""
        return [(2 * (z @ weights[0].mT - v), z)]


class Net:
    """M(z) = z_1 + W1 silu(W2 z), with `hidden` units; z_1 are the first features, as many as M says."""

    def __init__(self, hidden: int) -> None:
        self.hidden = hidden

    def shapes(self, d: int, F: int) -> list[tuple[int, int]]:
        """W1 and W2."""
        return [(d, self.hidden), (self.hidden, F)]

    def read(self, apply: Sequence[Apply], z: Tensor) -> Tensor:
        """What it says of features z (..., F)."""
        said = apply[0](silu(apply[1](z)))
        return z[..., : said.shape[-1]] + said

    def factors(self, weights: Weights, z: Tensor, v: Tensor) -> list[Factors]:
        """Of the gradients of |M(z) - v|^2 by its weights, token by token."""
        W1, W2 = weights
        before = z @ W2.mT
        share = torch.sigmoid(before)
        unit = before * share
        error = 2 * (z[..., : v.shape[-1]] + unit @ W1.mT - v)
        return [(error, unit), ((error @ W1) * share * (1 + before * (1 - share)), z)]


class Omega(Mixer):
    """A memory a head and row, trained on its window. Members say `gates`, whether there is `momentum`, rule and travel.

    `head` channels a head, D // heads unless given; `hidden` units of a net, a matrix unless given.
    """

    gates: ClassVar[tuple[str, ...]]  # of alpha, eta, gamma, theta
    momentum: ClassVar[bool]

    def __init__(
        self,
        D: int,
        *,
        heads: int,
        head: int | None,
        window: int,
        degree: int,
        hidden: int | None,
        chunk: int,
        conv: int,
    ) -> None:
        super().__init__()
        for name, value in (("window", window), ("chunk", chunk), ("hidden", 1 if hidden is None else hidden)):
            if value < 1:
                raise ValueError(f"{name}={value} holds nothing; choose at least 1")
        self.D, self.window, self.chunk = D, window, chunk
        self.keyed = Keyed(D, heads=heads, head=head, conv=conv, biases=self._biases(heads))
        d = self.keyed.d
        self.phi = Polynomial(d, degree=degree)
        self.memory = Matrix() if hidden is None else Net(hidden)
        self.start = nn.ParameterList()
        for m, n in self.memory.shapes(d, self.phi.features):
            scale = 0.0 if hidden is None else n**-0.5
            self.start.append(nn.Parameter(torch.randn(heads, m, n) * scale))

    @abstractmethod
    def rule(self, fed: Fed, G: Tensor, M: Tensor, S: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """One token moves one weight: its gates (B, H, 1, 1), the gradient of its window, the weight and its momentum."""

    @abstractmethod
    def travel(self, fed: Fed, factors: list[Factors], M: Weights, S: Weights) -> tuple[list[Apply], Weights, Weights]:
        """T tokens of a chunk move all weights: how the weights after each token apply, the last ones, the momentum."""

    def initial_state(self, batch: int) -> State:
        """Nothing in the window, the memory at M_0, a chunk about to begin."""
        buffer, d = self.keyed.buffer(batch), self.keyed.d
        kept = self.window - 1
        weights = self.memory.shapes(d, self.phi.features) * self._copies
        sizes: list[tuple[int, ...]] = [(kept, d), (kept, d), (kept,), *weights]
        parts = [buffer.new_zeros(batch, self.keyed.heads, *size) for size in sizes]
        place = [torch.zeros(batch, dtype=torch.int64, device=buffer.device)] if self.chunk > 1 else []
        return (buffer, *parts, *place)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B, H, d, P numbers of a memory held in n copies, window c, convolution W, p whether a place is kept, b bytes."""
        keyed = self.keyed
        P = sum(part[0].numel() for part in self.start)
        return {
            "B": batch, "H": keyed.heads, "d": keyed.d, "P": P, "n": self._copies, "c": self.window,
            "W": keyed.conv.width, "p": int(self.chunk > 1), "b": keyed.dtype.itemsize,
        }  # fmt: skip

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, by the rule."""
        fed, buffer = self._fed(x.unsqueeze(1), state[0])
        with torch.autocast(x.device.type, enabled=False):
            read, held = self.moment(fed, self._unpacked(state))
            after = self._packed(buffer, held)
        return self.keyed.say(read, x).squeeze(1), after

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Chunk by chunk; rows that are at different places in their chunks are scanned apart."""
        places = sorted(set(state[-1].tolist())) if self.chunk > 1 else []
        if len(places) < 2:
            return self._scan_from(places[0] if places else 0, x, state)
        groups = [(state[-1] == place).nonzero().flatten() for place in places]
        parts = [
            self._scan_from(place, x[rows], tuple(part[rows] for part in state))
            for place, rows in zip(places, groups, strict=True)
        ]
        back = torch.cat(groups).argsort()
        last = zip(*(after for _, after in parts), strict=True)
        return torch.cat([y for y, _ in parts])[back], tuple(torch.cat(part)[back] for part in last)

    def _scan_from(self, place: int, x: Tensor, state: State) -> tuple[Tensor, State]:
        fed, buffer = self._fed(x, state[0])
        with torch.autocast(x.device.type, enabled=False):
            read, held = self.moments(fed, self._unpacked(state), place=place)
            after = self._packed(buffer, held)
        return self.keyed.say(read, x), after

    def empty(self, batch: int) -> Held:
        """The memory of `initial_state`, for who feeds `moments` by hand."""
        return self._unpacked(self.initial_state(batch))

    def moment(self, fed: Fed, held: Held) -> tuple[Tensor, Held]:
        """One token, T = 1: its gradient is summed over the window, the rule moves M, what is read is (B, H, 1, d)."""
        k, v, gamma = self._seen(fed, held)
        gates = Fed(*fed[:3], *(gate.unsqueeze(-1) for gate in fed[3:]))
        M, S = [], []
        for place, (left, right) in enumerate(self._factors(held, k, v, gamma)):
            weight, momentum = self.rule(gates, left.mT @ right, held.M[place], held.S[place] if held.S else None)
            M.append(weight)
            S += [] if momentum is None else [momentum]
        read = self.memory.read([_applied(weight) for weight in M], self.phi(fed.q))
        return read, self._turned(held, (k, v, gamma), tuple(M), tuple(S), tokens=1)

    def moments(self, fed: Fed, held: Held, *, place: int = 0) -> tuple[Tensor, Held]:
        """T > 0 tokens, all rows at this place in their chunks: read (B, H, T, d), and what is held then."""
        T, ahead = fed.q.shape[2], self.chunk - place
        lengths = [min(ahead, T), *(min(self.chunk, T - t) for t in range(ahead, T, self.chunk))]
        out = []
        for piece in zip(*(torch.split(part, lengths, 2) for part in fed), strict=True):
            read, held = self._piece(Fed(*piece), held)
            out.append(read)
        return torch.cat(out, 2), held

    def _piece(self, fed: Fed, held: Held) -> tuple[Tensor, Held]:
        """Tokens of one chunk: their gradients are all taken at the same M."""
        k, v, gamma = self._seen(fed, held)
        apply, M, S = self.travel(fed, self._factors(held, k, v, gamma), held.M, held.S)
        read = self.memory.read(apply, self.phi(fed.q))
        return read, self._turned(held, (k, v, gamma), M, S, tokens=fed.q.shape[2])

    def _seen(self, fed: Fed, held: Held) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and gammas of the window and of the new tokens, c - 1 + T of them."""
        k, v, gamma = (torch.cat(pair, 2) for pair in zip(held[:3], (fed.k, fed.v, fed.gamma), strict=True))
        return k, v, gamma

    def _factors(self, held: Held, k: Tensor, v: Tensor, gamma: Tensor) -> list[Factors]:
        found = self.memory.factors(held.frozen or held.M, self.phi(k), v)
        return [(gamma.unsqueeze(-1) * left, right) for left, right in found]

    def _turned(self, held: Held, seen: tuple[Tensor, ...], M: Weights, S: Weights, *, tokens: int) -> Held:
        """What is held after so many tokens: the window moves on, and a chunk that is full is begun anew."""
        # copies: views would keep all that was seen alive
        k, v, gamma = (part[:, :, part.shape[2] - self.window + 1 :].clone() for part in seen)
        if held.place is None:
            return Held(k, v, gamma, M, S, (), None)
        place = (held.place + tokens) % self.chunk
        return Held(k, v, gamma, M, S, choose(place == 0, M, held.frozen), place)

    def _fed(self, x: Tensor, buffer: Tensor) -> tuple[Fed, Tensor]:
        pairs, gates, buffer = self.keyed(x, buffer)
        raw = dict(zip(self.gates, gates, strict=True))
        alpha = raw["alpha"]
        gamma = torch.sigmoid(raw["gamma"]) if "gamma" in raw else torch.ones_like(alpha)
        theta = logsigmoid(raw["theta"]) if "theta" in raw else torch.zeros_like(alpha)
        eta = self.ceiling * torch.sigmoid(raw["eta"])
        return Fed(pairs.q, pairs.k, pairs.v, gamma, logsigmoid(alpha), eta, theta), buffer

    @property
    def ceiling(self) -> float:
        """The longest step: eta is a sigmoid of this size. On a window of one token 1/2 is the delta rule."""
        return 1 / self.window

    @property
    def first(self) -> float:
        """Of that size, at the start: keys that are all alike do not make a chunk's steps, all from one M, overshoot."""
        return 1 / (4 * self.chunk)

    def _biases(self, heads: int) -> Tensor:
        eta = torch.tensor(self.first).logit()
        known = {"alpha": keeping(heads), "eta": eta.expand(heads)}
        return torch.stack([known.get(name, torch.zeros(heads)) for name in self.gates])

    @property
    def _copies(self) -> int:
        return 1 + self.momentum + (self.chunk > 1)

    def _unpacked(self, state: State) -> Held:
        size = len(self.start)
        k, v, gamma = state[1:4]
        M = self._moved(state[4 : 4 + size], 1)
        rest = state[4 + size :]
        S, rest = (rest[:size], rest[size:]) if self.momentum else ((), rest)
        return (
            Held(k, v, gamma, M, S, self._moved(rest[:size], 1), rest[-1])
            if rest
            else Held(k, v, gamma, M, S, (), None)
        )

    def _packed(self, buffer: Tensor, held: Held) -> State:
        place = () if held.place is None else (held.place,)
        return (buffer, *held[:3], *self._moved(held.M, -1), *held.S, *self._moved(held.frozen, -1), *place)

    def _moved(self, weights: Weights, sign: int) -> Weights:
        """By M_0, there or back."""
        if not weights:
            return ()
        return tuple(part + sign * first.to(part.dtype) for part, first in zip(weights, self.start, strict=True))


def band(T: int, window: int, like: Tensor) -> Tensor:
    """(T, window - 1 + T): 1 where a token is in the window of token t, the tokens before the first come first.

    >>> band(3, 2, torch.ones(()))
    tensor([[1., 1., 0., 0.],
            [0., 1., 1., 0.],
            [0., 0., 1., 1.]])
    """
    ones = torch.ones(T, window - 1 + T, dtype=like.dtype, device=like.device)
    return ones.tril(window - 1).triu()


class Course(NamedTuple):
    """M_t = keep_t M - carry_t S - sum_i spread_ti g_i, for rules that are linear in the gradients g_i."""

    keep: Tensor  # (B, H, T)
    spread: Tensor  # (B, H, T, I)
    carry: Tensor | None = None  # (B, H, T), None where there is no momentum


def travel_linearly(course: Course, factors: list[Factors], M: Weights, S: Weights) -> tuple[list[Apply], Weights]:
    """How the weights apply after each token, and the last ones; none but the last is built."""

    def after(weight: Tensor, momentum: Tensor | None, left: Tensor, right: Tensor) -> Apply:
        def apply(z: Tensor) -> Tensor:
            said = course.keep.unsqueeze(-1) * (z @ weight.mT) - ((z @ right.mT) * course.spread) @ left
            return (
                said
                if momentum is None or course.carry is None
                else said - course.carry.unsqueeze(-1) * (z @ momentum.mT)
            )

        return apply

    apply, last = [], []
    for place, (left, right) in enumerate(factors):
        momentum = S[place] if S else None
        apply.append(after(M[place], momentum, left, right))
        moved = course.keep[..., -1, None, None] * M[place] - (left * course.spread[..., -1, :, None]).mT @ right
        if momentum is not None and course.carry is not None:
            moved = moved - course.carry[..., -1, None, None] * momentum
        last.append(moved)
    return apply, tuple(last)


def _applied(weight: Tensor) -> Apply:
    return lambda z: z @ weight.mT
