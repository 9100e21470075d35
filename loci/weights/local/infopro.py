"""InfoPro: a block keeps what its image is made of, beside what its class asks for. The baseline of both methods here.

    loss_k = lam1_k * BCE(D_k(h_k), image) + lam2_k * L(C_k(h_k), y),    lam linear from block 1 to block K - 1

Paper: Wang, Ni, Song, Yang, Huang, "Revisiting Locally Supervised Learning: an Alternative to End-to-end Training",
arXiv:2101.10832.
Differs: the decoder gives logits and the sigmoid is in the loss; a weight of 0 builds no graph for its term.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from loci.weights.local.cut import Classified, Criterion, features
from loci.weights.local.decoders import decoder
from loci.weights.local.heads import Pooled


class Reconstructed(Classified):
    """lam1 times the distance of the decoder's output to a target, plus the head's loss."""

    def __init__(
        self,
        decoder: nn.Module,
        head: nn.Module,
        *,
        lam1: float,
        lam2: float = 1.0,
        criterion: Criterion = nn.functional.cross_entropy,
    ) -> None:
        super().__init__(head, lam2=lam2, criterion=criterion)
        self.decoder, self.lam1 = decoder, lam1

    def reconstruction(self, out: Tensor, given: Tensor, x: Tensor) -> Tensor:
        """The distance, unweighted."""
        raise NotImplementedError

    def forward(self, out: Tensor, given: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Both terms; those of weight 0 are not computed."""
        if self.lam1 == 0:
            return super().forward(out, given, x, y)
        rebuilt = self.lam1 * self.reconstruction(out, given, x)
        return rebuilt if self.lam2 == 0 else rebuilt + super().forward(out, given, x, y)


class ImageLoss(Reconstructed):
    """The target is the image. `restore` undoes the normalisation of inputs; pixels are in [0, 1]."""

    def __init__(
        self,
        decoder: nn.Module,
        head: nn.Module,
        *,
        lam1: float,
        lam2: float = 1.0,
        criterion: Criterion = nn.functional.cross_entropy,
        restore: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        super().__init__(decoder, head, lam1=lam1, lam2=lam2, criterion=criterion)
        self.restore = restore

    def reconstruction(self, out: Tensor, given: Tensor, x: Tensor) -> Tensor:
        """Binary cross-entropy per pixel."""
        pixels = self.restore(x)
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"pixels range from {low:.3g} to {high:.3g}, not within 0 to 1; give restore= that brings them there"
            )
        return nn.functional.binary_cross_entropy_with_logits(self.decoder(out), pixels)


def image_losses(
    stem: nn.Module,
    blocks: Sequence[nn.Module],
    *,
    shape: Sequence[int],
    classes: int,
    lam1: tuple[float, float],
    lam2: tuple[float, float] = (1.0, 1.0),
    restore: Callable[[Tensor], Tensor] = lambda x: x,
) -> list[ImageLoss]:
    """The losses of every block but the last, sized for a model: convolutional decoders, pooled linear heads."""
    outs, count = features(stem, blocks, shape)[1:], len(blocks) - 1
    widths = [out[0] if len(out) == 3 else out[-1] for out in outs]
    return [
        ImageLoss(decoder("conv", out, shape), Pooled(width, classes), lam1=one, lam2=two, restore=restore)
        for out, width, one, two in zip(outs, widths, between(*lam1, count), between(*lam2, count), strict=False)
    ]


def between(first: float, last: float, count: int) -> list[float]:
    """The weights of `count` local losses, linear from the first block's to the last's.

    >>> between(5.0, 0.0, 3), between(5.0, 0.0, 1)
    ([5.0, 2.5, 0.0], [5.0])
    """
    return [first + (last - first) * (k / (count - 1) if count > 1 else 0) for k in range(count)]
