"""A model cut into a stem, blocks and a head; every block but the last learns by a local loss, the last by the head's.

    h_k = E_k(stop(h_{k-1})),    loss_k = L_k(h_k) for k < K,    loss_K = cross-entropy(head(h_K), y)

The stem trains with block 1. With classifiers for the L_k this is greedy local learning (Belilovsky et al.,
arXiv:1812.11446); with one block and no local loss it is end-to-end training. Methods change what a block's loss
looks at (`look`) or which losses are given.

>>> trainer = Cut(nn.Flatten(), [nn.Linear(4, 8), nn.Linear(8, 8)], nn.Linear(8, 3), [Classified(nn.Linear(8, 3))],
...               shape=(2, 2), classes=3)
>>> x, y = trainer.draw(5, torch.Generator().manual_seed(0))
>>> [loss.ndim for loss in trainer.backward_blocks(x, y)], trainer(x).shape
([0, 0], torch.Size([5, 3]))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from loci.weights.local.base import LocalTrainer, require_classes, require_input

Criterion = Callable[[Tensor, Tensor], Tensor]


class LocalLoss(nn.Module):
    """What a block learns by; its own parameters (heads, decoders) train with the block and are in no `forward` of a model."""

    def forward(self, out: Tensor, given: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """A scalar, from what the block made (or what `look` made of it), what it was given, the input and the classes."""
        raise NotImplementedError


class Classified(LocalLoss):
    """lam2 times a criterion of an auxiliary head: cross-entropy, or `contrast` on the head's features."""

    def __init__(
        self, head: nn.Module, *, lam2: float = 1.0, criterion: Criterion = nn.functional.cross_entropy
    ) -> None:
        super().__init__()
        self.head, self.lam2, self.criterion = head, lam2, criterion

    def forward(self, out: Tensor, given: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The head's loss."""
        return self.criterion(self.head(out), y) if self.lam2 == 1 else self.lam2 * self.criterion(self.head(out), y)


class Cut(LocalTrainer):
    """A user's model, block by block. `shape` is that of one input without its batch, `classes` how many there are.

    `losses` has one loss fewer than there are blocks. The trained model is `stem`, `parts` and `head`.
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
    ) -> None:
        super().__init__()
        if len(losses) != len(blocks) - 1:
            raise ValueError(
                f"{len(losses)} local losses do not fit {len(blocks)} blocks; give one to every block but the last, "
                "which learns by the head"
            )
        self.stem, self.parts, self.head = stem, nn.ModuleList(blocks), head
        self.losses = nn.ModuleList(losses)
        self.shape, self.classes = tuple(shape), classes
        self._refuse_shared()

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (B, classes)."""
        require_input(x, self.shape)
        h = self.stem(x)
        for part in self.parts:
            h = part(h)
        scores: Tensor = self.head(h)
        return scores

    def look(self, number: int, out: Tensor) -> Tensor:
        """What the loss of a block is taken of: here the block's output itself."""
        return out

    def follow(self, number: int) -> None:
        """Called once a training step for every block with a local loss, after its forward: averages move here."""

    def block_losses(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """Each block's loss, lazily; what is kept from one to the next is the detached output of a block."""
        require_input(x, self.shape)
        require_classes(x, y, self.classes)
        h = x = x.detach()
        for number in range(len(self.losses)):
            loss, h = self._local(number, h, x, y)
            yield loss
            del loss  # so that its graph is free while the next one grows
        yield nn.functional.cross_entropy(self.head(self.parts[-1](self._given(len(self.losses), h))), y)

    def blocks(self) -> list[list[nn.Parameter]]:
        """The stem, block 1 and its loss; each further block and its loss; the last block and the head."""
        return [_trained(group) for group in self.groups()]

    def groups(self) -> list[list[nn.Module]]:
        """The modules that each loss trains."""
        groups: list[list[nn.Module]] = [[part] for part in self.parts]
        groups[0].insert(0, self.stem)
        for group, loss in zip(groups, self.losses, strict=False):
            group.append(loss)
        groups[-1].append(self.head)
        return groups

    def helpers(self) -> list[nn.Module]:
        """The local losses: their heads and decoders."""
        return [self.losses]

    def draw(self, batch: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Uniform inputs in [0, 1), as pixels are, and uniform classes."""
        return torch.rand(batch, *self.shape, generator=random), torch.randint(self.classes, (batch,), generator=random)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """The batch alone: a formula over a user's own model is his; `Saved` measures any."""
        return {"B": batch}

    def _given(self, number: int, h: Tensor) -> Tensor:
        given: Tensor = self.stem(h) if number == 0 else h
        return given

    def _local(self, number: int, h: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        given = self._given(number, h)
        out = self.parts[number](given)
        loss = self.losses[number](self.look(number, out), given.detach(), x, y)
        if self.training:
            self.follow(number)
        return loss, out.detach()

    def _refuse_shared(self) -> None:
        """A parameter in two blocks would let a loss reach the other block."""
        owner: dict[int, int] = {}
        for number, group in enumerate(map(_trained, Cut.groups(self))):
            for param in group:
                if owner.setdefault(id(param), number) != number:
                    raise ValueError(
                        f"a parameter {tuple(param.shape)} is in block {owner[id(param)]} and in block {number}, as tied "
                        "weights are; untie it, or put both uses into one block"
                    )


def features(stem: nn.Module, blocks: Sequence[nn.Module], shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The shapes, without batch, of what each block is given and of what the last one gives: to size decoders and heads.

    >>> features(nn.Conv2d(1, 4, 3, padding=1), [nn.Conv2d(4, 8, 3, stride=2, padding=1)], (1, 6, 6))
    [(4, 6, 6), (8, 3, 3)]
    """
    parts = [stem, *blocks]
    modes = [(module, module.training) for part in parts for module in part.modules()]
    like = next((param for part in parts for param in part.parameters()), torch.zeros(()))  # for its device and dtype
    h, shapes = like.new_zeros(1, *shape), []
    try:
        with torch.no_grad():
            for part in parts:
                h = part.eval()(h)
                shapes.append(tuple(h.shape[1:]))
    finally:
        for module, training in modes:
            module.training = training
    return shapes


def _trained(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    return [param for param in nn.ModuleList(modules).parameters() if param.requires_grad]
