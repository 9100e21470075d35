"""MAN: a block's local loss looks one layer ahead, through a slow average of the next block's first layer and a copy of it.

    y_i = EMA_i(h_i) + LB_i(h_i),   loss_i = L_i(y_i),   EMA_i <- m EMA_i + (1 - m) next(i)

next(i) is the first layer of block i + 1. LB_i, the 'learnable bias', is a whole layer: a copy of next(i) that trains with
block i. EMA_i is fixed within a step and lets gradients through; it moves once a step, before the next block is stepped.
Blocks without both are short-sighted: they keep what their own head needs and drop what later blocks would.

Paper: Su, Cai, Zhu, He, Xu, Guan, Si, "Momentum Auxiliary Network for Supervised Local Learning", arXiv:2407.05623.
Differs: averages start at next(i); the authors' code copies before it draws the weights, and draws each copy's anew;
the rest is its step. Any local losses; the authors' are `ImageLoss` with `ConvPooled` heads. As there, only parameters are
averaged: buffers are the average's own.
Keeps: for backward, what one block, two copies of next(i) and a head save. Weights: 2 (K - 1) next(i), one of them without
gradient; nothing of it in `forward`.

>>> trainer = MANResNet(width=4, layers=4, blocks=2, size=6, classes=3)
>>> x, y = trainer.draw(8, torch.Generator().manual_seed(0))
>>> len(list(trainer.backward_blocks(x, y))), trainer(x).shape
(2, torch.Size([8, 3]))
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.weights.local.base import seeded
from loci.weights.local.cut import Classified, Cut, LocalLoss
from loci.weights.local.heads import Pooled
from loci.weights.local.nets import Residual, conv_stem, grouped

Branch: TypeAlias = Callable[[nn.Module], nn.Module]  # made of the next block's first layer


class Copy(nn.Module):
    """LB: a layer that starts as the given one and trains."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = copy.deepcopy(layer)

    def forward(self, h: Tensor) -> Tensor:
        """What the layer makes of it."""
        seen: Tensor = self.layer(h)
        return seen


class Average(Copy):
    """EMA: a layer that starts as the given one and follows it; gradients pass through it and leave it as it is."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(layer)
        self.layer.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def follow(self, layer: nn.Module, momentum: float) -> None:
        """Become m mine + (1 - m) theirs, as new tensors: a graph that is still to go backward keeps the old ones."""
        for mine, theirs in zip(self.layer.modules(), layer.modules(), strict=True):
            for name, value in theirs.named_parameters(recurse=False):
                moved = torch.lerp(mine.get_parameter(name), value, 1 - momentum)
                mine.register_parameter(name, nn.Parameter(moved, requires_grad=False))


class Bias(nn.Module):
    """The other reading of 'learnable bias': a vector, beside an `Average`. Not the paper's; an ablation."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(shape))

    def forward(self, h: Tensor) -> Tensor:
        """The vector, whatever is seen."""
        return self.vector


def first_layer(block: nn.Module) -> nn.Module:
    """The first of a sequence's layers; any other block is one layer."""
    return block[0] if isinstance(block, nn.Sequential) else block


class MAN(Cut):
    """A user's model cut into blocks, each of which looks ahead. `losses` take what `next(i)` gives: mind its width.

    `ahead` says which layer of the next block is borrowed. `branches` is for ablations: `[Average]`, `[Copy]`, `[]`.
    """

    def __init__(
        self,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        head: nn.Module,
        losses: Sequence[LocalLoss],
        *,
        shape: Sequence[int],
        classes: int,
        momentum: float = 0.995,
        ahead: Callable[[nn.Module], nn.Module] = first_layer,
        branches: Sequence[Branch] = (Average, Copy),
    ) -> None:
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum={momentum} is no share; choose one from 0 (follow at once) to 1 (never move)")
        super().__init__(stem, blocks, head, losses, shape=shape, classes=classes)
        self.momentum, self.ahead = momentum, ahead
        self.branches = nn.ModuleList(
            nn.ModuleList(branch(ahead(block)) for branch in branches) for block in blocks[1:]
        )

    def look(self, number: int, out: Tensor) -> Tensor:
        """The sum of the branches, or the output itself when there are none."""
        seen = [branch(out) for branch in self._branches(number)]
        total: Tensor = seen[0] if seen else out
        for other in seen[1:]:
            total = total + other
        return total

    def follow(self, number: int) -> None:
        """Move the block's average towards the layer it follows, as it is now."""
        for branch in self._branches(number):
            if isinstance(branch, Average):
                branch.follow(self.ahead(self.parts[number + 1]), self.momentum)

    def groups(self) -> list[list[nn.Module]]:
        """A block's branches train with it, as far as they train."""
        groups = super().groups()
        for group, branches in zip(groups, self.branches, strict=False):
            group.append(branches)
        return groups

    def helpers(self) -> list[nn.Module]:
        """The local losses and the branches."""
        return [*super().helpers(), self.branches]

    def _branches(self, number: int) -> nn.ModuleList:
        return cast("nn.ModuleList", self.branches[number])


@method(
    name="man",
    kind="local-trainer",
    title="Momentum Auxiliary Network for Supervised Local Learning",
    paper="arXiv:2407.05623",
    says="trains a net in gradient-isolated blocks whose local losses look through a slow average of the next layer",
    bytes="4*(B*((4*R + 2)*C*S*S + C + N) + (4*R + 2)*C + 1)",
    example={"width": 8, "layers": 6, "blocks": 3, "size": 8, "classes": 3},
    needs=("torch",),
)
class MANResNet(MAN):
    """MAN on a residual net of plain numbers: a stem, `layers` residual layers in `blocks` blocks, pooled linear heads."""

    def __init__(
        self,
        width: int = 8,
        layers: int = 6,
        *,
        blocks: int = 6,
        size: int = 12,
        channels: int = 1,
        classes: int = 9,
        momentum: float = 0.995,
        branches: Sequence[Branch] = (Average, Copy),
        seed: int = 0,
    ) -> None:
        with seeded(seed):
            super().__init__(
                conv_stem(channels, width),
                grouped([Residual(width) for _ in range(layers)], blocks),
                Pooled(width, classes),
                [Classified(Pooled(width, classes)) for _ in range(blocks - 1)],
                shape=(channels, size, size),
                classes=classes,
                momentum=momentum,
                branches=branches,
            )
        self._width = width
        self._longest = layers // blocks + (len(branches) if blocks > 1 else 0)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """R is how many residual layers the first loss goes through, those of its branches too: it is the largest."""
        return {"B": batch, "C": self._width, "S": self.shape[-1], "N": self.classes, "R": self._longest}
