"""Training towards projected targets: each layer has a fixed random image of the classes, and a loss of its own to it.

    t_i = P_i y*,  y_i = s(z_i),  z_i = W_i x_{i-1} + b_i (+ U_i h_i, constant),  x_i = y_i without its graph

P_i is drawn once and never trained. The last layer has the classes themselves as its target. A member says how P is
drawn and what the loss of y_i to t_i is.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.weights.local.base import LocalTrainer, require_classes, require_input, seeded
from loci.weights.local.layers import Dense, Layer, Recurrent, chain

Activation: TypeAlias = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, tuple[Activation, tuple[float, float]]] = {  # with the range that its targets are drawn from
    "tanh": (torch.tanh, (-1.0, 1.0)),
    "sigmoid": (torch.sigmoid, (0.0, 1.0)),
    "relu": (torch.relu, (0.0, 1.0)),
    "identity": (lambda z: z, (-1.0, 1.0)),
}


class Targets(nn.Module):
    """One fixed target for each class: the columns of P, so that P y* is a lookup."""

    P: Tensor

    def __init__(self, classes: int, shape: Sequence[int], low: float, high: float) -> None:
        super().__init__()
        self.register_buffer("P", torch.empty(classes, *shape).uniform_(low, high))

    def forward(self, y: Tensor) -> Tensor:
        """(B,) -> (B, ...)."""
        return self.P[y]


class TargetProjection(LocalTrainer):
    """Layers trained one by one on targets of their own; with `Recurrent` layers, step by step too.

    `layers` are the hidden ones: ints are fully connected, modules are taken as they are and without their activation.
    `shape` is that of one row of x, (T, D) when a layer is recurrent. A layer whose parameters are all frozen has no
    loss: freeze what has been trained to go layer by layer, or all but an adaptor.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        shape: Sequence[int],
        *,
        classes: int,
        activation: str = "tanh",
        targets: Literal["flat", "channels"] = "flat",
        target_steps: Literal["all", "last"] = "all",
        feed: Literal["old", "new"] = "old",
        head: Literal["cross_entropy", "squares"] = "cross_entropy",
        seed: int = 0,
    ) -> None:
        super().__init__()
        _one_of("activation", activation, ACTIVATIONS)
        _one_of("targets", targets, ("flat", "channels"))
        _one_of("target_steps", target_steps, ("all", "last"))
        _one_of("feed", feed, ("old", "new"))
        _one_of("head", head, ("cross_entropy", "squares"))
        if classes < 2:
            raise ValueError(f"classes={classes} leaves nothing to tell apart; give at least 2")
        self.shape, self.classes, self.activation = tuple(shape), classes, ACTIVATIONS[activation][0]
        self.target_steps, self.feed, self.head_loss = target_steps, feed, head
        self.recurrent = any(isinstance(layer, Recurrent) for layer in layers)
        self.steps = self.shape[0] if self.recurrent else 1
        row = self.shape[1:] if self.recurrent else self.shape
        with seeded(seed):
            self.layers, self._sizes = chain(layers, row)
            self.head = Dense(math.prod((row, *self._sizes)[-1]), classes)
            shapes = [_target_shape(size, targets) for size in self._sizes]
            self.targets = nn.ModuleList(Targets(classes, size, *self.bounds(size, activation)) for size in shapes)

    @abstractmethod
    def bounds(self, shape: Sequence[int], activation: str) -> tuple[float, float]:
        """Between what the elements of a target of this shape are drawn, uniformly."""

    @abstractmethod
    def local_loss(self, place: int, y: Tensor, target: Tensor) -> Tensor:
        """The loss of a hidden layer's output, a mean over rows."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, *shape) -> (B, classes): of the last step, if there are several."""
        require_input(x, self.shape)
        states: list[Tensor | None] = [None] * len(self.layers)
        for rows in self._steps(x):
            carried = rows
            for place in range(len(self.layers)):
                carried = states[place] = self._layer(place, carried, states[place])
        scores: Tensor = self.head(carried)
        return scores

    def block_losses(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """A loss for each step and trained layer, then that of the head."""
        require_input(x, self.shape)
        require_classes(x, y, self.classes)
        states: list[Tensor | None] = [None] * len(self.layers)
        for turn, rows in enumerate(self._steps(x.detach())):
            carried = rows
            for place in range(len(self.layers)):
                given, before = carried, states[place]
                trained = self._is_due(turn) and _trains(self.layers[place])
                if trained:
                    loss, carried = self._with_loss(place, given, before, y)
                    yield loss
                    del loss
                if self.feed == "new" or not trained:
                    with torch.no_grad():
                        carried = self._layer(place, given, before)
                states[place] = carried
        if _trains(self.head):
            yield self._head_loss(self.head(carried), y)

    def blocks(self) -> list[list[nn.Parameter]]:
        """The parameters of each step's trained layers, then those of the head."""
        hidden = [layer for turn in range(self.steps) if self._is_due(turn) for layer in self.layers]
        return [_trained(layer) for layer in (*hidden, self.head) if _trains(layer)]

    def helpers(self) -> list[nn.Module]:
        """The projections."""
        return list(self.targets)

    def draw(self, batch: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Normal rows and uniform classes."""
        x = torch.randn(batch, *self.shape, generator=random)
        return x, torch.randint(self.classes, (batch,), generator=random)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """For each row, i floats go into the hidden layer that saves most, o out, h into the head, c out; e is one more.

        What comes from x is not counted, the own state of a recurrent layer is. Exact for plain layers under tanh,
        sigmoid or relu and losses that save their residual; meter other modules with `Saved`.
        """
        outs = [math.prod(size) for size in self._sizes]
        ins = [0, *outs]
        pairs = [
            (i + (o if isinstance(layer, Recurrent) else 0), o)
            for layer, i, o in zip(self.layers, ins, outs, strict=False)
            if _trains(layer)
        ]
        i, o = max(pairs, key=lambda pair: pair[0] + 2 * pair[1], default=(0, 0))
        width = self.head.weight.element_size()
        head = {"h": ins[-1], "c": self.classes, "e": int(self.head_loss == "cross_entropy")}
        return {"B": batch, "b": width, "i": i, "o": o, **head}

    def _steps(self, x: Tensor) -> Iterator[Tensor]:
        return (x[:, turn] for turn in range(self.steps)) if self.recurrent else iter((x,))

    def _is_due(self, turn: int) -> bool:
        return self.target_steps == "all" or turn == self.steps - 1

    def _layer(self, place: int, x: Tensor, state: Tensor | None) -> Tensor:
        layer = self.layers[place]
        return self.activation(layer(x, state) if isinstance(layer, Recurrent) else layer(x))

    def _with_loss(self, place: int, x: Tensor, state: Tensor | None, y: Tensor) -> tuple[Tensor, Tensor]:
        out = self._layer(place, x, state)
        return self.local_loss(place, out, self.targets[place](y)), out.detach()

    def _head_loss(self, scores: Tensor, y: Tensor) -> Tensor:
        if self.head_loss == "cross_entropy":
            return functional.cross_entropy(scores, y)
        return (scores - functional.one_hot(y, self.classes).to(scores)).square().sum(1).mean()


def _target_shape(size: tuple[int, ...], targets: str) -> tuple[int, ...]:
    return size if targets == "flat" else (size[0], *(1 for _ in size[1:]))


def _trained(layer: nn.Module) -> list[nn.Parameter]:
    return [param for param in layer.parameters() if param.requires_grad]


def _trains(layer: nn.Module) -> bool:
    return bool(_trained(layer))


def _one_of(name: str, given: str, known: Sequence[str] | Mapping[str, object]) -> None:
    if given not in known:
        raise ValueError(f"{name}={given!r} is unknown; choose one of {', '.join(known)}")
