"""Broad Mamba: context from both sides through a gated state space block, then broad nodes that take it apart.

    u, z = split(W_in norm(x)),    u = SiLU(conv(u)),    X = x + W_out (TwoSided(u) * SiLU(z))
    Z = X W_e + b_e,    H = tanh(Z W_h + b_h),    O = [Z | H] W_o

`conv` is causal and each channel's own, so that the future comes through the backward kernel alone: with K_b = 0 the
encoder is causal. Cost and memory grow as T log T and T.

Paper: Li et al., "Revisiting Multi-modal Emotion Learning with Broad State Space Models and Probability-guidance Fusion",
arXiv:2404.17858. The paper has one of these for each of text, audio and video, and fuses them: `fusion`.
Differs: see `two_sided` and `broad`; no official code was found, so what the paper leaves open is as in Mamba's block
(arXiv:2312.00752) with the two-sided system in place of the selective scan.
Keeps: b*(2*D + 3*D*E + E*(K + 1) + 2*E*(1 + 3*N) + (D + 1)*Z + (Z + 1)*H + (Z + H)*D) bytes, all of it parameters.

Shapes: B batch, T time, D width, E inner width, N state, K taps, Z feature nodes, H enhancement nodes.

>>> encoder = BroadMamba(4, 8, N=2, Z=5, H=6)
>>> encoder(torch.ones(2, 7, 4), lengths=torch.tensor([7, 3])).shape
torch.Size([2, 7, 4])
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import method
from loci.state.encoder.base import Encoder
from loci.state.encoder.broad import BroadNodes
from loci.state.encoder.two_sided import TwoSided


class TwoSidedBlock(nn.Module):
    """Mamba's gated block around a two-sided system."""

    def __init__(self, D: int, E: int = 64, *, N: int = 16, K: int = 4) -> None:
        super().__init__()
        if K < 1:
            raise ValueError(f"K={K} taps convolve nothing; choose K >= 1")
        self.norm = nn.LayerNorm(D)
        self.inward = nn.Linear(D, 2 * E, bias=False)
        self.conv = nn.Conv1d(E, E, K, groups=E, padding=K - 1)
        self.system = TwoSided(E, N)
        self.outward = nn.Linear(E, D, bias=False)

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        """(B, T, D) and which of it is heard, (B, T) -> (B, T, D)."""
        u, z = self.inward(self.norm(x)).chunk(2, -1)
        u = functional.silu(self.conv(u.mT)[..., : x.shape[1]].mT)
        u = torch.where(heard.unsqueeze(-1), u, 0.0)  # norm and conv have biases, which padding would say to all
        out: Tensor = x + self.outward(self.system(u) * functional.silu(z))
        return out


@method(
    name="broad-mamba",
    kind="encoder",
    title="Revisiting Multi-modal Emotion Learning with Broad State Space Models and Probability-guidance Fusion",
    paper="arXiv:2404.17858",
    says="context from both sides of a dialogue by one convolution, then broad learning nodes",
    bytes="b*(2*D + 3*D*E + E*(K + 1) + 2*E*(1 + 3*N) + (D + 1)*Z + (Z + 1)*H + (Z + H)*D)",
    example={"D": 4, "E": 6, "N": 3, "Z": 5, "H": 7},
    needs=("torch",),
    system="broad_mamba",
)
class BroadMamba(Encoder):
    """One modality's encoder: a two-sided gated block and broad nodes."""

    def __init__(self, D: int, E: int = 64, *, N: int = 16, K: int = 4, Z: int = 64, H: int = 64) -> None:
        super().__init__()
        self.D = D
        self.sizes = {"D": D, "E": E, "N": N, "K": K, "Z": Z, "H": H}
        self.block = TwoSidedBlock(D, E, N=N, K=K)
        self.broad = BroadNodes(D, Z, H=H)

    def encode(self, x: Tensor, heard: Tensor) -> Tensor:
        """Block, then nodes."""
        out: Tensor = self.broad(self.block(x, heard))
        return out

    def shapes(self, batch: int) -> Mapping[str, float]:
        """The sizes it was built with, and b bytes for a real number."""
        return {**self.sizes, "b": self.block.inward.weight.element_size()}
