"""The block of the spiking LMUFormer: every matrix is multiplied by zeros and ones.

    z = fire(x),    u = fire(w z + c),    m_t = A m_{t-1} + B u_t,    h = fire(W [fire(m); z] + b),    x <- x + BN(V h + d)
    x <- x + V_2 fire(V_1 fire(x) + d_1) + d_2

fire is a batch normalisation and a `LIF` neuron, whose potential runs along the sequence. The memory is linear and takes
a binary signal; spikes are made of it only where it is read. Ways around carry currents, not spikes.

Paper: Liu, Datta, Li, Beerel, "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory Units",
arXiv:2402.04882, the model with membrane shortcuts.
Differs: a step makes the spikes of m that the parallel form makes, the authors' recurrent code leaves them out.
Keeps: b*B*(2*N + (3 + ratio)*D + 1) bytes in a stream.

Shapes: B batch, T time, D width, N order of the memory.

>>> block = SpikingBlock(4, theta=8.0).eval()
>>> y, state = block(torch.ones(2, 5, 4))
>>> y.shape, len(state)
(torch.Size([2, 5, 4]), 7)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from loci.state.lif import LIF
from loci.state.lmu import Delay
from loci.state.mixer import State

Pair: TypeAlias = tuple[Tensor, Tensor]


class Firing(nn.Module):
    """Normalise currents, integrate them, fire."""

    def __init__(self, D: int, *, threshold: float = 1.0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(D)
        self.lif = LIF(threshold=threshold)

    def step(self, x: Tensor, v: Tensor) -> Pair:
        """(B, D) and potentials -> spikes and potentials."""
        return self.lif.step(self.norm(x), v)

    def scan(self, x: Tensor, v: Tensor) -> Pair:
        """(B, T, D) and potentials (B, D) -> spikes and potentials."""
        spikes, v = self.lif(self.norm(x.flatten(0, 1)).view(x.shape), v)
        return spikes, v


class SpikingBlock(nn.Module):
    """A spiking memory and a spiking mixer of channels, each with a way around it.

    `forward` and `step` give the same in `eval()`; in training, rows of a batch share their normalisation.
    """

    def __init__(self, D: int, N: int | None = None, *, theta: float = 128.0, ratio: int = 4) -> None:
        super().__init__()
        self.D, self.N = D, N or 2 * D
        self.memory = Delay(self.N, theta)
        self.signal, self.read, self.out = nn.Linear(D, 1), nn.Linear(self.N + D, D), nn.Linear(D, D)
        self.wide, self.narrow = nn.Linear(D, ratio * D), nn.Linear(ratio * D, D)
        self.enter, self.tell = Firing(D, threshold=0.5), Firing(1)
        self.recall, self.show = Firing(self.N), Firing(D)
        self.mix, self.spread = Firing(D), Firing(ratio * D)
        self.out_norm = nn.BatchNorm1d(D)

    def initial_state(self, batch: int) -> State:
        """The memory, and the potentials of enter, tell, recall, show, mix and spread: zeros."""
        widths = (self.N, self.D, 1, self.N, self.D, self.D, self.wide.out_features)
        return tuple(self.memory.B.new_zeros(batch, width) for width in widths)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment, (B, D) -> (B, D)."""
        if self.training:
            raise ValueError("batch statistics of one moment are none; call eval() before a stream")

        def remember(u: Tensor, m: Tensor) -> Pair:
            m = self.memory.step(u, m)
            return m, m

        return self.through(x, state, Firing.step, remember)

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """All moments, (B, T, D) -> (B, T, D): the memory by FFT, the neurons one after the other."""
        if x.dim() != 3 or x.shape[2] != self.D or not x.shape[1]:
            raise ValueError(f"x is {tuple(x.shape)}, this block takes (B, T, {self.D}) with T >= 1; give that width")

        def remember(u: Tensor, m: Tensor) -> Pair:
            all_m = self.memory.scan(u.squeeze(-1), m)
            return all_m, all_m[:, -1].clone()

        return self.through(x, self.initial_state(len(x)) if state is None else state, Firing.scan, remember)

    def through(
        self,
        x: Tensor,
        state: State,
        fire: Callable[[Firing, Tensor, Tensor], Pair],
        remember: Callable[[Tensor, Tensor], Pair],
    ) -> tuple[Tensor, State]:
        """The block for one moment or for all, as `fire` and `remember` go."""
        m, v_enter, v_tell, v_recall, v_show, v_mix, v_spread = state
        z, v_enter = fire(self.enter, x, v_enter)
        u, v_tell = fire(self.tell, self.signal(z), v_tell)
        held, m = remember(u, m)
        recalled, v_recall = fire(self.recall, held, v_recall)
        h, v_show = fire(self.show, self.read(torch.cat([recalled, z], -1)), v_show)
        x = x + self.out_norm(self.out(h).flatten(0, -2)).view(x.shape)
        z, v_mix = fire(self.mix, x, v_mix)
        z, v_spread = fire(self.spread, self.wide(z), v_spread)
        return x + self.narrow(z), (m, v_enter, v_tell, v_recall, v_show, v_mix, v_spread)
