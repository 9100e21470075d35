"""Pretraining on masked patches: tell the hidden ones of a clip apart, and paint them again.

    discriminative   L_d = -mean_i log softmax_j( x_i . c_j )[i],    c = head_c(o)       over the masked patches of one clip
    generative       L_g = mean_i |x_i - r_i|^2 / pixels,            r = head_g(o)
    L = L_d + 10 L_g,    the two under masks of their own

x_i is what is in a masked patch and o_i what the encoder says in its place, having seen one learned vector there. Masks come
in square clusters, so that a hidden patch cannot be had from its neighbours: squares of side c whose first place is uniform,
running on in the next row at an edge, until P places are hidden; c in 3, 4, 5 is drawn once for each clip.

Paper: Shams et al., "SSAMBA: Self-Supervised Audio Representation Learning with Mamba State Space Model", arXiv:2405.11831;
masks and losses from Gong et al., "SSAST: Self-Supervised Audio Spectrogram Transformer", arXiv:2110.09784.
Differs: as in the code, the softmax is over predictions for a given patch, where SSAST's equation (1) has patches for a given
prediction. Of the places drawn last, those drawn first are kept, where the code sorts and drops the highest; place 0 can
be hidden, which the code leaves out by a strict comparison.
Keeps: nothing between calls but the parameters of the heads and of the learned vector.

Shapes: B batch, P hidden patches.

>>> hidden = clustered(2, 6, grid=(4, 8), random=torch.Generator().manual_seed(0))
>>> hidden.shape, [len(set(row.tolist())) for row in hidden]
(torch.Size([2, 6]), [6, 6])
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.state.encoder.ssamba import PatchEncoder

SIDES = (3, 4, 5)  # of a cluster
GENERATIVE = 10.0  # lambda, the weight of the second loss


class Losses(NamedTuple):
    """Both losses, their sum by the paper's weight, and the share of masked patches told right from the others."""

    total: Tensor
    discriminative: Tensor
    generative: Tensor
    accuracy: Tensor


class MaskedPatches(nn.Module):
    """Two heads and the learned vector around an encoder of patches; the heads are left behind after pretraining."""

    def __init__(self, encoder: PatchEncoder) -> None:
        super().__init__()
        D, pixels = encoder.encoder.D, encoder.patch**2
        self.encoder = encoder
        self.hidden = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, D)).squeeze(0))
        self.tell, self.paint = (nn.Sequential(nn.Linear(D, D), nn.ReLU(), nn.Linear(D, pixels)) for _ in range(2))

    def forward(self, spectrogram: Tensor, to_tell: Tensor, to_paint: Tensor) -> Losses:
        """(B, mel, frames) and two masks of places (B, P), as `clustered` draws them."""
        pixels = self.encoder.pixels(spectrogram).detach()
        patches = self.encoder.embed(spectrogram)
        for hidden in (to_tell, to_paint):
            self.require(patches, hidden)
        told, accuracy = contrast(at(pixels, to_tell), self.tell(self.said(patches, to_tell)))
        painted = functional.mse_loss(self.paint(self.said(patches, to_paint)), at(pixels, to_paint))
        return Losses(told + GENERATIVE * painted, told, painted, accuracy)

    def said(self, patches: Tensor, hidden: Tensor) -> Tensor:
        """What the encoder says in the hidden places (B, P) of patches (B, patches, D), not having seen them: (B, P, D)."""
        self.require(patches, hidden)
        mask = torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device).scatter(1, hidden, value=True)
        seen = torch.where(mask.unsqueeze(-1), self.hidden.to(patches.dtype), patches)
        return at(self.encoder.read(seen)[:, 1:], hidden)

    def require(self, patches: Tensor, hidden: Tensor) -> None:
        """Refuse masks that are not places of these patches."""
        count = patches.shape[1]
        fits = hidden.dtype == torch.int64 and hidden.dim() == 2 and len(hidden) == len(patches) and hidden.shape[1] > 0
        if not fits or not 0 <= int(hidden.min()) <= int(hidden.max()) < count:
            raise ValueError(
                f"a mask is {tuple(hidden.shape)} of {str(hidden.dtype).removeprefix('torch.')}; give places int64 "
                f"({len(patches)}, P) from 0 to {count - 1}, as clustered does"
            )


def contrast(patches: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """L_d of (B, P, pixels) both, and how often a prediction is nearer to its own patch than to the clip's others.

    >>> patches = torch.eye(4).unsqueeze(0)
    >>> round(contrast(patches, patches)[0].item(), 4), contrast(patches, patches)[1].item()
    (0.7437, 1.0)
    """
    scores = patches @ predicted.transpose(-1, -2)  # (B, P, P)
    own = torch.arange(scores.shape[-1], device=scores.device)
    loss = -scores.log_softmax(-1).diagonal(dim1=-2, dim2=-1).mean()
    return loss, (scores.argmax(-2) == own).to(loss.dtype).mean()


def clustered(batch: int, P: int, *, grid: tuple[int, int], random: torch.Generator) -> Tensor:
    """Places (batch, P) of patches to hide, no two alike in a row, in squares on a grid of (frequency, time)."""
    if min(grid) < 1 or not 0 < P <= grid[0] * grid[1]:
        raise ValueError(f"P={P} patches cannot be hidden in a grid of {grid}; choose 1 to {grid[0] * grid[1]}")
    return torch.stack([_mask(P, grid, random) for _ in range(batch)])


def _mask(P: int, grid: tuple[int, int], random: torch.Generator) -> Tensor:
    count, width = grid[0] * grid[1], grid[1]
    side = SIDES[int(torch.randint(len(SIDES), (), generator=random))]
    hidden: dict[int, None] = {}  # in the order in which they were drawn
    while len(hidden) < P:
        start = int(torch.randint(count, (), generator=random))
        square = (start + width * i + j for i in range(side) for j in range(side))
        hidden.update(dict.fromkeys(place for place in square if place < count))
    return torch.tensor(list(hidden)[:P])


def at(rows: Tensor, places: Tensor) -> Tensor:
    """The rows (B, n, D) at places (B, P): (B, P, D)."""
    return rows.gather(1, places.unsqueeze(-1).expand(-1, -1, rows.shape[-1]))
