"""SLTT: spiking networks learn step by step; what a membrane remembers is carried forward and never gone back through.

    u_t = lam (u_{t-1} - V s_{t-1}) + W s^{l-1}_t,   L = (1/T) sum_t [(1 - a) CE(o_t, y) + a MSE(o_t, 1)]
    BPTT:  du_{t+1}/du_t = lam (1 - V s'(u_t))       SLTT:  du_{t+1}/du_t := 0,  dL/dW = sum_t e_t (s^{l-1}_t)^T

The graph of a step is complete when o_t is known, so each step has a loss and a backward of its own and memory does not
grow with T. What is left out is small for a short memory (tau = 1.1); where order over time is the label it is what
matters, and BPTT is the form to use. SLTT-K goes back through K of the T steps, chosen anew for each batch.

Paper: Meng, Xiao, Yan, Wang, Lin, Luo, "Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural
Networks", arXiv:2302.14311.
Differs: layers are a chain, without shortcuts inside (a module may have them). Batch norm sees each step on its own,
as in the authors' code.
Keeps: b*(B*(2*d + 2*c) + 1) bytes for backward, d neurons and c classes, whatever T is; BPTT T times as much. Between
steps one membrane for each neuron. Optimizers, momentum and decay act once a batch, after all steps.

>>> trainer = SLTT([16], [8], classes=3, steps=4)
>>> x, y = trainer.draw(2, torch.Generator().manual_seed(0))
>>> len(list(trainer.backward_blocks(x, y))), trainer(x).shape
(4, torch.Size([2, 3]))
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import method
from loci.weights.local.base import LocalTrainer, require_classes, require_input, seeded
from loci.weights.local.layers import Dense, Layer, chain
from loci.weights.local.lif import LIF

_TITLE = "Towards Memory- and Time-Efficient Backpropagation for Training Spiking Neural Networks"
_PAPER = "arXiv:2302.14311"
_BYTES = "b*(B*(2*d + 2*c) + 1)"


@method(
    name="sltt",
    kind="local-trainer",
    title=_TITLE,
    paper=_PAPER,
    says="trains spiking networks with the memory of one time step: backward through space, not through time",
    bytes=_BYTES,
    example={"layers": [24, 24], "shape": [12], "classes": 4, "steps": 4},
    needs=("torch",),
)
class SLTT(LocalTrainer):
    """A chain of layers, neurons after each, and a linear read-out; a loss for each step.

    `layers` are ints (fully connected) or modules such as `Sequential(Conv2d, BatchNorm2d)`. x is (B, *shape), given at
    every step, or (B, T, *shape). `mse_share` is a, towards `means`; None means the classes as one-hot rows.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        shape: Sequence[int],
        *,
        classes: int,
        steps: int = 6,
        tau: float = 1.1,
        threshold: float = 1.0,
        surrogate: str = "triangle",
        mse_share: float = 0.05,
        means: float | None = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps={steps} never runs; give at least 1")
        if classes < 2:
            raise ValueError(f"classes={classes} leaves nothing to tell apart; give at least 2")
        if not 0 <= mse_share <= 1:
            raise ValueError(f"mse_share={mse_share} is no share; give 0 to 1")
        self.shape, self.classes, self.steps = tuple(shape), classes, steps
        self.mse_share, self.means = mse_share, means
        with seeded(seed):
            self.layers, self._sizes = chain(layers, self.shape)
            self.cells = nn.ModuleList(LIF(tau=tau, threshold=threshold, surrogate=surrogate) for _ in self.layers)
            self.head = Dense(math.prod((self.shape, *self._sizes)[-1]), classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) or (B, T, *shape) -> (B, classes): the mean read-out over steps."""
        states, scores = self.rest(), []
        for rows in self._rows(x):
            out, states = self.step(rows, self.carry(states))
            scores.append(out)
        return torch.stack(scores).mean(0)

    def rest(self) -> list[Tensor | None]:
        """The state before the first step."""
        return [None] * len(self.layers)

    def carry(self, states: list[Tensor | None]) -> list[Tensor | None]:
        """What the next step gets of the state, reset and all: its values, not its graph."""
        return [None if v is None else v.detach() for v in states]

    def step(self, x: Tensor, states: list[Tensor | None]) -> tuple[Tensor, list[Tensor | None]]:
        """One time step: the read-out o_t, and the state after it."""
        after: list[Tensor | None] = []
        for layer, cell, v in zip(self.layers, self.cells, states, strict=True):
            x, v = cell(layer(x), v)
            after.append(v)
        return self.head(x), after

    def step_loss(self, out: Tensor, y: Tensor) -> Tensor:
        """(1 - a) CE + a MSE, over T."""
        aim = functional.one_hot(y, self.classes).to(out) if self.means is None else self.means
        squares = (out - aim).square().mean()
        share = self.mse_share
        return ((1 - share) * functional.cross_entropy(out, y) + share * squares) / self.steps

    def trained_steps(self) -> list[bool]:
        """For each step of the next pass, whether it has a loss."""
        return [True] * self.steps

    def block_losses(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """The losses of the trained steps, each over T; the other steps run without a graph."""
        require_classes(x, y, self.classes)
        states = self.rest()
        for rows, trained in zip(self._rows(x.detach()), self.trained_steps(), strict=True):
            if trained:
                out, states = self.step(rows, states)
                loss, states = self.step_loss(out, y), self.carry(states)
                del out
                yield loss
                del loss
            else:
                with torch.no_grad():
                    _, states = self.step(rows, states)

    def blocks(self) -> list[list[nn.Parameter]]:
        """Every step trains everything."""
        return [[param for param in self.parameters() if param.requires_grad]] * self.steps

    def draw(self, batch: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Constant currents of scale 2, and classes."""
        x = 2 * torch.randn(batch, *self.shape, generator=random)
        return x, torch.randint(self.classes, (batch,), generator=random)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """For d neurons, c classes, T steps. Exact for plain layers; meter modules that save more with `Saved`."""
        neurons = sum(math.prod(size) for size in self._sizes)
        return {"B": batch, "b": self.head.weight.element_size(), "d": neurons, "c": self.classes, "T": self.steps}

    def _rows(self, x: Tensor) -> list[Tensor]:
        """What each step gets."""
        if x.dim() == len(self.shape) + 2:
            require_input(x, (self.steps, *self.shape))
            return list(x.unbind(1))
        require_input(x, self.shape)
        return [x] * self.steps


@method(
    name="sltt-k",
    kind="local-trainer",
    title=_TITLE,
    paper=_PAPER,
    says="trains spiking networks with the memory of one time step, going back through K random steps of T",
    bytes=_BYTES,
    example={"layers": [24, 24], "shape": [12], "classes": 4, "k": 2, "steps": 4},
    needs=("torch",),
    system="sltt",
)
class SLTTK(SLTT):
    """SLTT on k of the steps, drawn for each batch; losses are still over T. The draws are in the state dict."""

    def __init__(
        self,
        layers: Sequence[Layer],
        shape: Sequence[int],
        *,
        classes: int,
        k: int,
        steps: int = 6,
        tau: float = 1.1,
        threshold: float = 1.0,
        surrogate: str = "triangle",
        mse_share: float = 0.05,
        means: float | None = 1.0,
        seed: int = 0,
    ) -> None:
        if not 1 <= k <= steps:
            raise ValueError(f"k={k} does not fit steps={steps}; choose 1 <= k <= {steps}")
        super().__init__(
            layers, shape, classes=classes, steps=steps, tau=tau, threshold=threshold, surrogate=surrogate,
            mse_share=mse_share, means=means, seed=seed,
        )  # fmt: skip
        self.k = k
        self.random = torch.Generator().manual_seed(seed)

    def trained_steps(self) -> list[bool]:
        """Any k of the steps, each set equally likely."""
        chosen = set(torch.randperm(self.steps, generator=self.random)[: self.k].tolist())
        return [turn in chosen for turn in range(self.steps)]

    def blocks(self) -> list[list[nn.Parameter]]:
        """Every trained step trains everything."""
        return super().blocks()[: self.k]

    def get_extra_state(self) -> Tensor:
        """Where the draws are."""
        return self.random.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on with the draws from there."""
        self.random.set_state(state.cpu())


class BPTT(SLTT):
    """The plain form, and the reference: one graph over all steps, membranes included."""

    def carry(self, states: list[Tensor | None]) -> list[Tensor | None]:
        """The state with its graph."""
        return states

    def block_losses(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """One loss, the sum of those of all steps."""
        require_classes(x, y, self.classes)
        states, losses = self.rest(), []
        for rows in self._rows(x.detach()):
            out, states = self.step(rows, states)
            losses.append(self.step_loss(out, y))
        yield torch.stack(losses).sum()

    def blocks(self) -> list[list[nn.Parameter]]:
        """One block."""
        return super().blocks()[:1]
