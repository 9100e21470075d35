"""Local reconstruction: a block classifies, and keeps what it was given: its input features, not the image.

    loss_k = lam1_k * |D_k(h_k) - LN(stop(h_{k-1}))|^2 + lam2_k * CE(C_k(h_k), y)          h_0: the first features

The image would bound I(h_k; x) too, at the price of a decoder as large as the image and of details that no later block
needs. Features are the smaller target, and one that the blocks before have already sorted.

Paper: Pathak, Zhang, Samaras, "Local Learning on Transformers via Feature Reconstruction", arXiv:2212.14215.
Differs: no official code exists and the distance is not known for sure; here it is the mean square to targets that are
normalised per token (`normalise=False` takes them raw), since otherwise a block makes its successor's loss small by shrinking.
A small transformer with whole attention and one merging stands for Swin; any model cut into blocks will do.
Keeps: for backward, what one module, its decoder and its head save. Decoders and heads are in no `forward`.

>>> import torch
>>> trainer = ReconstructingTransformer(width=8, heads=2, modules=2, size=8, classes=3)
>>> x, y = trainer.draw(8, torch.Generator().manual_seed(0))
>>> len(list(trainer.backward_blocks(x, y))), trainer(x).shape
(2, torch.Size([8, 3]))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from loci.core.card import method
from loci.weights.local.base import seeded
from loci.weights.local.cut import Criterion, Cut, features
from loci.weights.local.decoders import Decoding, decoder, normalised
from loci.weights.local.heads import Pooled
from loci.weights.local.infopro import Reconstructed, between
from loci.weights.local.nets import Block, merging_transformer


class FeatureLoss(Reconstructed):
    """The target is what the block was given, detached: no gradient goes back to the block before."""

    def __init__(
        self,
        decoder: nn.Module,
        head: nn.Module,
        *,
        lam1: float,
        lam2: float = 1.0,
        criterion: Criterion = nn.functional.cross_entropy,
        normalise: bool = True,
    ) -> None:
        super().__init__(decoder, head, lam1=lam1, lam2=lam2, criterion=criterion)
        self.normalise = normalise

    def reconstruction(self, out: Tensor, given: Tensor, x: Tensor) -> Tensor:
        """The mean square over all elements."""
        target = given.detach()
        return nn.functional.mse_loss(self.decoder(out), normalised(target) if self.normalise else target)


def feature_losses(
    stem: nn.Module,
    blocks: Sequence[nn.Module],
    *,
    shape: Sequence[int],
    classes: int,
    lam1: tuple[float, float] = (1.0, 1.0),
    lam2: tuple[float, float] = (1.0, 1.0),
    decoding: Decoding = "linear",
    heads: int = 4,
) -> list[FeatureLoss]:
    """The losses of every block but the last, sized for a model; weights are linear from the first to the last of them.

    `decoding` is linear, mlp, conv (InfoPro's) or attention (a transformer block of `heads` heads, then linear).
    """
    shapes, count = features(stem, blocks, shape), len(blocks) - 1
    losses = []
    for given, out, one, two in zip(shapes, shapes[1:], between(*lam1, count), between(*lam2, count), strict=False):
        width = out[0] if len(out) == 3 else out[-1]
        block = Block(width, heads) if decoding == "attention" else None
        rebuild = decoder(decoding, out, given, block=block)
        losses.append(FeatureLoss(rebuild, Pooled(width, classes), lam1=one, lam2=two))
    return losses


@method(
    name="local-reconstruction",
    kind="local-trainer",
    title="Local Learning on Transformers via Feature Reconstruction",
    paper="arXiv:2212.14215",
    says="trains a transformer in gradient-isolated modules that classify and rebuild their own input features",
    bytes="4*(B*(T*(L*(16*D + H + 4) + 3*D) + D + N) + 1)",
    example={"width": 16, "heads": 2, "modules": 4, "size": 8, "classes": 3},
    needs=("torch",),
    system="local_reconstruction",
)
class ReconstructingTransformer(Cut):
    """A transformer of plain numbers that merges its patches half-way, cut into modules with linear decoders.

    Any other model: `Cut(stem, blocks, head, feature_losses(stem, blocks, ...), ...)`.
    """

    def __init__(
        self,
        width: int = 64,
        heads: int = 4,
        *,
        layers: int = 4,
        modules: int = 4,
        size: int = 12,
        channels: int = 1,
        patch: int = 2,
        classes: int = 9,
        lam1: tuple[float, float] = (1.0, 1.0),
        lam2: tuple[float, float] = (1.0, 1.0),
        seed: int = 0,
    ) -> None:
        if modules % 2 or layers % modules or modules < 2:
            raise ValueError(f"modules={modules} does not fit {layers} layers; choose an even divisor of {layers}")
        shape = (channels, size, size)
        with seeded(seed):
            stem, blocks, head = merging_transformer(
                width, heads, layers=layers, blocks=modules, shape=shape, patch=patch, classes=classes
            )
            losses = feature_losses(stem, blocks, shape=shape, classes=classes, lam1=lam1, lam2=lam2)
        super().__init__(stem, blocks, head, losses, shape=shape, classes=classes)
        self._sizes = {"T": (size // patch) ** 2, "D": width, "H": heads, "L": layers // modules, "N": classes}

    def shapes(self, batch: int) -> Mapping[str, float]:
        """T tokens, width D, H heads and L layers of the first module, which holds the most."""
        return {"B": batch, **self._sizes}
