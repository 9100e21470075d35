"""A network with a memory beside it, in three controllers: one asks, one answers, one writes.

    q_t = LSTM(x_t)                                        input controller
    r_t = W_r q_t,           z_t = softmax(M_{t-1} r_t)^T M_{t-1}          read
    o_t = W_o [q_t, z_t]                                   answer, which is the output
    (a, e, u) = W_w [q_t, o_t],   p = softmax(M_{t-1} a),   e = sigmoid(e),   u = tanh(u)
    M_t = M_{t-1} * (1 - p (x) e) + p (x) u                erase, add

Slots start as small orthogonal patterns: were they alike, addressing by content would keep them alike for ever.

Paper: arXiv:2011.05438, without its fast learning (synthetic_gradient_memory.py adds it); erasing and adding as in ntm.py.
Keeps: b*B*(2*n + L*k) bytes.

>>> y, (h, s, M) = NeuralMemory(3, 5, L=4, k=2)(torch.ones(2, 6, 3))
>>> y.shape, M.shape
(torch.Size([2, 6, 3]), torch.Size([2, 4, 2]))
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.state.lstm import LSTM
from loci.state.mixer import Mixer, State

START = 0.1  # the largest element of a memory before anything was written


class NeuralMemory(Mixer):
    """n LSTM cells beside L slots of k; the state is (h, s, M). It has no card: it is what fast learning is added to."""

    def __init__(self, D: int, n: int, *, L: int = 16, k: int = 16) -> None:
        super().__init__()
        if L < 1 or k < 2:
            raise ValueError(f"L={L}, k={k} is no memory; give at least 1 slot of at least 2")
        self.D, self.n, self.L, self.k = D, n, L, k
        self.controller = LSTM(D, n)
        self.controller.readout = nn.Linear(n + k, D)  # sees what was read, too; this is the answer's map
        self.reader, self.writer = nn.Linear(n, k), nn.Linear(n + D, 3 * k)

    def initial_state(self, batch: int) -> State:
        """No activity, and a memory of patterns: row i has START cos(pi (i + 1/2) j / L) at column j."""
        like = self.reader.weight
        h, s = (like.new_zeros(batch, self.n) for _ in range(2))
        exact = torch.promote_types(like.dtype, torch.float32)
        places, columns = (torch.arange(size, dtype=exact, device=like.device) for size in (self.L, self.k))
        M = START * torch.cos(math.pi / self.L * (places + 0.5).unsqueeze(1) * columns)
        return h, s, M.to(like).expand(batch, -1, -1).clone()

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows of n cells and L slots of k, D wide, of b bytes each."""
        b = self.reader.weight.element_size()
        return {"B": batch, "n": self.n, "L": self.L, "k": self.k, "D": self.D, "b": b}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Think, then read, answer and write."""
        q, (h, s) = self.controller.advance(self.controller.inward(x), state[:2])
        y, after = self.recall(x, q, state[0], state[2:])
        return y, (h, s, *after)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The input controller over all moments first, which sees nothing of the memory; the rest moment by moment."""
        thoughts, hidden = self.think(x, state[:2])
        out, before, rest = [], state[0], state[2:]
        for moment, q in zip(x.unbind(1), thoughts.unbind(1), strict=True):
            y, rest = self.recall(moment, q, before, rest)
            out.append(y)
            before = q
        return (torch.stack(out, 1) if out else x.new_zeros(x.shape)), (*hidden, *rest)

    def think(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The input controller over (B, T, D): q (B, T, n), and (h, s) after it."""
        if x.is_cpu and torch.is_autocast_enabled("cpu"):  # torch's own LSTM fails there on some CPUs
            thoughts = []
            for driven in self.controller.inward(x).unbind(1):
                q, state = self.controller.advance(driven, state)
                thoughts.append(q)
            return torch.stack(thoughts, 1), state
        h, s = (part.unsqueeze(0) for part in state)
        q, h, s = torch.lstm(x, (h, s), self.controller.weights(), True, 1, 0.0, True, False, True)
        return q, (h[0], s[0])

    def recall(self, x: Tensor, q: Tensor, before: Tensor, state: State) -> tuple[Tensor, State]:
        """Read, answer and write, given q_t; x_t and q_{t-1} are for members that learn from them first."""
        (M,) = state
        z = read(self.reader(q), M)
        y: Tensor = self.controller.readout(torch.cat([q, z], -1))
        return y, (write(self.writer(torch.cat([q, y], -1)), M),)


def read(key: Tensor, M: Tensor) -> Tensor:
    """(B, k) and (B, L, k) -> (B, k): the slots, weighed by their likeness to the key."""
    weights = torch.softmax(M @ key.unsqueeze(-1), 1)
    return (weights * M).sum(1)


def write(order: Tensor, M: Tensor) -> Tensor:
    """The memory after a write; the order (B, 3 k) is the key of the slot, what to erase, what to add."""
    key, erase, add = order.chunk(3, -1)
    where = torch.softmax(M @ key.unsqueeze(-1), 1)
    return M * (1 - where * torch.sigmoid(erase).unsqueeze(1)) + where * torch.tanh(add).unsqueeze(1)


def linear(x: Tensor, layer: nn.Linear, changes: Tensor) -> Tensor:
    """A layer whose weights (m, n) have changed otherwise in each row of the batch: (B, n), changes (B, m, n) -> (B, m)."""
    y: Tensor = functional.linear(x, layer.weight, layer.bias)
    return y + (changes @ x.unsqueeze(-1)).squeeze(-1)
