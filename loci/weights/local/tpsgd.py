"""tpSGD: every layer learns, in the forward pass, to give a fixed random image of the class.

    t_i = P_i y*,   J_i(y_i, t_i),   delta_i = dJ_i/dy_i * s'(z_i),   W_i <- W_i - lr * delta_i x_{i-1}^T
    J = ||t - y||_2^2: delta = -2 (t - y) s'(z)        J = ||t - y||_1: delta = -sign(t - y) s'(z)

No error travels between layers, so nothing is kept for it. Recurrent layers take h_{t-1} as given, so nothing is kept
of earlier steps either. L1 moves by steps of constant size: let lr fall.

Paper: Lomnitz, Daniels, Zhang, Piacentino, "Learning with Local Gradients at the Edge", arXiv:2208.08503. DRTP:
Frenkel, Lefebvre, Bol, "Learning without feedback", arXiv:1909.01311.
Differs: the elements of P are uniform over the activation's range (-1 to 1 under tanh), which the paper's abstract
leaves open. No code by the authors was found; the placement of targets in convolutions and over steps follows DRTP
and the text.
Keeps: b*B*(i + 2*o) bytes for backward in the layer that saves most (i floats a row go in, o come out), and the
targets, classes*o floats a layer.

>>> trainer = TPSGD([16, 16], [8], classes=3, loss="l1")
>>> x, y = trainer.draw(4, torch.Generator().manual_seed(0))
>>> optimizer = torch.optim.SGD(trainer.parameters(), lr=0.01)
>>> losses = [float(loss) for loss in trainer.backward_blocks(x, y)]; optimizer.step()
>>> len(losses), trainer(x).shape
(3, torch.Size([4, 3]))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from loci.core.card import method
from loci.weights.local.layers import Layer
from loci.weights.local.projections import ACTIVATIONS, TargetProjection

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_BYTES = "b*max(B*(i + 2*o), B*(h + c) + e)"
_EXAMPLE = {"layers": [16, 16], "shape": [12], "classes": 4}


def l2(y: Tensor, target: Tensor) -> Tensor:
    """Squared distance, a mean over rows."""
    return (target - y).square().flatten(1).sum(1).mean()


def l1(y: Tensor, target: Tensor) -> Tensor:
    """Sum of absolute differences, a mean over rows."""
    return (target - y).abs().flatten(1).sum(1).mean()


def cosine(y: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine, a mean over rows."""
    return 1 - torch.cosine_similarity(y.flatten(1), target.expand_as(y).flatten(1)).mean()


LOSSES: dict[str, Loss] = {"l1": l1, "l2": l2, "cosine": cosine}


@method(
    name="tpsgd",
    kind="local-trainer",
    title="Learning with Local Gradients at the Edge",
    paper="arXiv:2208.08503",
    says="trains each layer in the forward pass on a loss to its own random projection of the class",
    bytes=_BYTES,
    example=_EXAMPLE,
    needs=("torch",),
)
class TPSGD(TargetProjection):
    """A real loss for each layer: by name, any function of (output, target), or a sequence of one for each layer."""

    def __init__(
        self,
        layers: Sequence[Layer],
        shape: Sequence[int],
        *,
        classes: int,
        loss: str | Loss | Sequence[str | Loss] = "l2",
        activation: str = "tanh",
        span: tuple[float, float] | None = None,
        targets: Literal["flat", "channels"] = "flat",
        target_steps: Literal["all", "last"] = "all",
        feed: Literal["old", "new"] = "old",
        head: Literal["cross_entropy", "squares"] = "cross_entropy",
        seed: int = 0,
    ) -> None:
        if span is not None and not span[0] < span[1]:
            raise ValueError(f"span={span} holds no targets; give (low, high) with low < high")
        each = [loss] * len(layers) if isinstance(loss, str) or callable(loss) else list(loss)
        if len(each) != len(layers):
            raise ValueError(f"loss has {len(each)} entries for {len(layers)} layers; give one, or one for each layer")
        unknown = [one for one in each if isinstance(one, str) and one not in LOSSES]
        if unknown:
            raise ValueError(f"loss={unknown[0]!r} is unknown; choose one of {', '.join(LOSSES)}, or give a function")
        self.span = span
        self.losses = [LOSSES[one] if isinstance(one, str) else one for one in each]
        super().__init__(
            layers, shape, classes=classes, activation=activation, targets=targets, target_steps=target_steps,
            feed=feed, head=head, seed=seed,
        )  # fmt: skip

    def bounds(self, shape: Sequence[int], activation: str) -> tuple[float, float]:
        """The activation's range, unless a span was given: a target out of reach only saturates."""
        return self.span or ACTIVATIONS[activation][1]

    def local_loss(self, place: int, y: Tensor, target: Tensor) -> Tensor:
        """J_i."""
        return self.losses[place](y, target)


@method(
    name="drtp",
    kind="local-trainer",
    title="Learning without feedback: fixed random learning signals for feedforward training of deep neural networks",
    paper="arXiv:1909.01311",
    says="trains each layer on a fixed random signal of the class, whatever the layer gives",
    bytes=_BYTES,
    example=_EXAMPLE,
    needs=("torch",),
    system="tpsgd",
)
class DRTP(TargetProjection):
    """delta_i = (B_i y*) s'(z_i): the class alone drives the layer. B is Kaiming-uniform, as in the authors' code."""

    def bounds(self, shape: Sequence[int], activation: str) -> tuple[float, float]:
        """Plus and minus the root of 6 over the layer's size."""
        bound = math.sqrt(6 / math.prod(shape))
        return -bound, bound

    def local_loss(self, place: int, y: Tensor, target: Tensor) -> Tensor:
        """<y, B y*>, whose slope is the signal and which has no minimum: what bounds it is the activation."""
        return (y * target).flatten(1).sum(1).mean()
