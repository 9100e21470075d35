"""S5 for reinforcement learning: a stack of systems and gates whose memory starts afresh where an episode begins.

    v = gelu(S5(u)),    u <- u + (W_1 v + b_1) * sigmoid(W_2 v + b_2)          in each of L layers

`reset[:, t]` holds where x_t is the first observation of an episode, that is where the transition before it was done.
Give the state that the rollout began with when training on it (as data, detached), and part minibatches by environments,
never by time: then training sees what acting saw. For several episodes in a trial, reset at the trial's end alone.

Paper: Lu, Schroecker, Gu, Parisotto, Foerster, Singh, Behbahani, "Structured State Space Models for In-Context Reinforcement
Learning", arXiv:2303.03982.
Differs: see `S5`; no layer norms, as in the paper's POPGym runs; encoder, heads and PPO are the user's.
Keeps: b*L*B*P bytes.

Shapes: B batch (environments), T time, D width, P size of each system, L layers.

>>> import torch
>>> memory = S5RL(3, 8, L=2)
>>> rollout, begins = torch.ones(2, 5, 3), torch.tensor([[True, False, False, True, False]] * 2)
>>> y, carry = memory(rollout, reset=begins)
>>> torch.allclose(y[:, :2], y[:, 3:], atol=1e-5), len(carry)
(True, 2)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor, nn
from torch.nn.functional import gelu

from loci.core.card import method
from loci.state.mixer import Mixer, State
from loci.state.s5 import S5

Run: TypeAlias = Callable[[S5, Tensor, State], tuple[Tensor, State]]


class Layer(nn.Module):
    """A system, a gate and a way around both."""

    def __init__(self, D: int, P: int, *, ceiling: float | None = None) -> None:
        super().__init__()
        self.system = S5(D, P, ceiling=ceiling)
        self.value = nn.Linear(D, D)
        self.gate = nn.Linear(D, D)

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """What goes in, and what the system made of it, (..., D) both -> (..., D)."""
        v = gelu(y, approximate="tanh")
        out: Tensor = u + self.value(v) * self.gate(v).sigmoid()
        return out


@method(
    name="s5-rl",
    kind="mixer",
    title="Structured State Space Models for In-Context Reinforcement Learning",
    paper="arXiv:2303.03982",
    says="a memory for agents that trains in parallel over whole rollouts, episodes ending inside them, and acts step by step",
    bytes="b*L*B*P",
    example={"D": 4, "P": 6, "L": 2},
    needs=("torch",),
    system="s5_rl",
)
class S5RL(Mixer):
    """L layers; the state is that of each, (B, P/2, 2)."""

    def __init__(self, D: int, P: int = 256, *, L: int = 4, ceiling: float | None = None) -> None:
        super().__init__()
        if L < 1:
            raise ValueError(f"L={L} is no stack; choose at least 1 layer")
        self.D = D
        self.layers = nn.ModuleList(Layer(D, P, ceiling=ceiling) for _ in range(L))

    @property
    def systems(self) -> list[S5]:
        """The linear system of each layer."""
        return [layer.system for layer in self.layers if isinstance(layer, Layer)]

    def initial_state(self, batch: int) -> State:
        """Zeros for each layer."""
        return tuple(system.initial_state(batch)[0] for system in self.systems)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """L systems."""
        return {"L": len(self.layers), **self.systems[0].shapes(batch)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment through all layers."""
        return self.through(S5.step, x, state)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments through one layer after the other."""
        return self.through(S5.scan, x, state)

    def scan_with_resets(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """The same, each layer with the resets in its scan."""
        return self.through(lambda system, u, carry: system.scanned(u, carry, reset), x, state)

    def through(self, run: Run, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One layer after the other, each system run by `run`."""
        after: State = ()
        for layer, system, carry in zip(self.layers, self.systems, state, strict=True):
            y, last = run(system, x, (carry,))
            x, after = layer(x, y), after + last
        return x, after
