"""The neural Turing machine: a recurrent controller that reads and writes a memory by attention over its slots.

    w_c = softmax(beta * cos(k, M_{t-1}(i)))                 by content                     eq. 5, 6
    w_g = g * w_c + (1 - g) * w_{t-1}                        or from where it was           eq. 7
    w_s(i) = sum_j w_g(j) s(i - j)                           moved by at most one slot      eq. 8
    w_t = w_s^gamma / sum w_s^gamma                          and sharpened                  eq. 9
    M_t(i) = M_{t-1}(i) * (1 - w_t(i) e_t) + w_t(i) a_t      erase, add                     eq. 3, 4
    r_t = sum_i w_t(i) M_t(i)                                read                           eq. 2

One head writes, one reads after it; the controller is an LSTM that sees x_t and r_{t-1}. Memory and weightings are state:
they are what a row of the batch remembers, and no parameter. Both heads start at slot 0: were they to start everywhere
alike, all slots would stay alike for ever.

Paper: Graves, Wayne, Danihelka, "Neural Turing Machines", arXiv:1410.5401.
Differs: one read and one write head; the memory starts at 1e-6 (Collier, Beel 2018, arXiv:1807.08518); the paper leaves all
starts and the range of a open, a is tanh here, which keeps the memory bounded.
Keeps: b*B*(2*n + N*M + 2*N + M) bytes, most of it the memory of N slots by M.

>>> y, (h, s, memory, reading, writing, read) = NTM(3, 5, N=8, M=4)(torch.ones(2, 6, 3))
>>> memory.shape, bool((writing.sum(1) - 1).abs().max() < 1e-5)
(torch.Size([2, 8, 4]), True)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from loci.core.card import method
from loci.state.lstm import LSTM
from loci.state.mixer import Mixer, State

START = 1e-6  # of every memory element: no content yet, and a cosine that exists
SHIFTS = 3  # one slot back, none, one on


@method(
    name="ntm",
    kind="mixer",
    title="Neural Turing Machines",
    paper="arXiv:1410.5401",
    says="a recurrent controller with a memory of slots that it addresses by content and by place",
    bytes="b*B*(2*n + N*M + 2*N + M)",
    example={"D": 4, "n": 6, "N": 5, "M": 3},
    needs=("torch",),
    system="rnn_review",
)
class NTM(Mixer):
    """An LSTM of n cells with N slots of M; the state is (h, s, memory, reading weights, writing weights, last read)."""

    def __init__(self, D: int, n: int, *, N: int = 128, M: int = 20) -> None:
        super().__init__()
        if N < SHIFTS or M < 1:
            raise ValueError(f"N={N}, M={M} is too small a memory; give at least {SHIFTS} slots of at least 1")
        self.D, self.n, self.N, self.M = D, n, N, M
        self.controller = LSTM(D + M, n)
        self.controller.readout = nn.Linear(n + M, D)  # sees what was read, too
        self.reader = nn.Linear(n, M + 3 + SHIFTS)  # k, beta, g, gamma, s
        self.writer = nn.Linear(n, M + 3 + SHIFTS + 2 * M)  # and e, a

    def initial_state(self, batch: int) -> State:
        """An empty memory, and both heads at slot 0."""
        like = self.reader.weight
        first = like.new_zeros(batch, self.N)
        first[:, 0] = 1
        h, s = (like.new_zeros(batch, self.n) for _ in range(2))
        memory, read = like.new_full((batch, self.N, self.M), START), like.new_zeros(batch, self.M)
        return h, s, memory, first, first.clone(), read

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows, each with 2n for the controller, N by M of memory, two weightings and a read vector."""
        return {"B": batch, "n": self.n, "N": self.N, "M": self.M, "b": self.reader.weight.element_size()}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Think, write, read, answer."""
        h, s, memory, reading, writing, read = state
        driven = self.controller.inward(torch.cat([x, read], -1))
        h, (_, s) = self.controller.advance(driven, (h, s))
        address, erase, add = self.writer(h).split([self.M + 3 + SHIFTS, self.M, self.M], -1)
        writing = aim(address, memory, writing)
        memory = memory * (1 - outer(writing, torch.sigmoid(erase))) + outer(writing, torch.tanh(add))
        reading = aim(self.reader(h), memory, reading)
        read = (reading.unsqueeze(-1) * memory).sum(1)
        y: Tensor = self.controller.readout(torch.cat([h, read], -1))
        return y, (h, s, memory, reading, writing, read)


def aim(address: Tensor, memory: Tensor, last: Tensor) -> Tensor:
    """The weights (B, N) of a head, from its address (B, M + 3 + SHIFTS), the memory and its last weights."""
    M = memory.shape[-1]
    key, beta, gate, gamma, shift = torch.split(address, [M, 1, 1, 1, SHIFTS], -1)
    likeness = torch.cosine_similarity(key.unsqueeze(1), memory, dim=-1, eps=1e-8)
    by_content = torch.softmax(softplus(beta) * likeness, -1)
    gate, shift = torch.sigmoid(gate), torch.softmax(shift, -1)
    weights = gate * by_content + (1 - gate) * last
    moved = sum(shift[:, place : place + 1] * weights.roll(place - 1, -1) for place in range(SHIFTS))
    assert isinstance(moved, Tensor)
    sharp = moved ** (1 + softplus(gamma))
    return sharp / sharp.sum(-1, keepdim=True)


def outer(one: Tensor, two: Tensor) -> Tensor:
    """(B, N) by (B, M) -> (B, N, M)."""
    return one.unsqueeze(-1) * two.unsqueeze(-2)
