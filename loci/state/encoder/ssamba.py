"""SSAMBA: Vision Mamba over patches of a spectrogram; every block reads both ways, with a system of its own for each.

    [u, z] = W_in x,    y = ( system_f(u) + turn(system_b(turn(u))) ) / 2,    block(x) = W_out( y * silu(z) )
    r_{l+1} = 2 r_l + block_{2l}(norm(r_l)) + turn( block_{2l+1}(norm(turn(r_l))) ),    encode(x) = norm(r_L),  r_0 = x

`turn` reverses time within a row's length. Blocks come in pairs, the second of which gets the sequence turned; the paper's
code carries what was said and what came before side by side and adds both over the pair, which is the 2 above: so a
pair counts half as much as the pair before it. A system is that of `loci.state.mamba`.

`PatchEncoder` is what stands around it: patches of a spectrogram, a learned vector for each place and one more, `cls`, in
front. Its pretraining without labels is in `masked_patches`.

Paper: Shams et al., "SSAMBA: Self-Supervised Audio Representation Learning with Mamba State Space Model", arXiv:2405.11831;
blocks from Zhu et al., "Vision Mamba", arXiv:2401.09417 ("v2").
Differs: in the code the last norm is applied twice, which matters for loading weights alone, and the backward Delta starts
at softplus(0), not between 0.001 and 0.1 as the forward one. No DropPath.
Keeps: p*(L*(2*D + 3*D*E + 2*E*(K + 2*r + 3*N + 3)) + 2*D) bytes of parameters for L blocks; in a call, of the order of
T*D, and in training N*E more for each chunk of the scans.

Shapes: B batch, T time, D width, E inner width, N states a channel, K taps, r rank of Delta, L blocks.

>>> encoder = SSAMBA(8, depth=2)
>>> encoder(torch.ones(2, 5, 8)).shape
torch.Size([2, 5, 8])
>>> PatchEncoder(encoder, mel=16, frames=32, patch=8)(torch.ones(2, 16, 32)).shape
torch.Size([2, 8, 8])
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import method
from loci.state.encoder.base import Encoder
from loci.state.encoder.bidirectional import turned
from loci.state.mamba import Selective

EPS = 1e-5
SMALL = 0.02  # scale of learned places at the start, cut off at twice that


class Block(nn.Module):
    """A Mamba block with two systems between one pair of maps: one reads forth, the other from a row's end."""

    def __init__(self, D: int, *, E: int, N: int, K: int, rank: int, chunk: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(D, eps=EPS)
        self.inward = nn.Linear(D, 2 * E, bias=False)
        self.forth, self.back = (Selective(E, N=N, K=K, rank=rank, chunk=chunk) for _ in range(2))
        self.outward = nn.Linear(E, D, bias=False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) and the rows' lengths -> (B, T, D), without the way around it."""
        u, z = self.inward(self.norm(x)).chunk(2, -1)
        forth = self.forth.scan(u, self.forth.initial_state(len(u)))[0]
        back = self.back.scan(turned(u, lengths), self.back.initial_state(len(u)))[0]
        y = (forth + turned(back, lengths)) / 2
        out: Tensor = self.outward(y * functional.silu(z))
        return out


@method(
    name="ssamba",
    kind="encoder",
    title="SSAMBA: Self-Supervised Audio Representation Learning with Mamba State Space Model",
    paper="arXiv:2405.11831",
    says="reads a sequence both ways by selective state spaces: memory linear in its length, pretrained on masked patches",
    bytes="p*(L*(2*D + 3*D*E + 2*E*(K + 2*r + 3*N + 3)) + 2*D)",
    example={"D": 6, "depth": 2, "N": 3, "chunk": 5},
    needs=("torch",),
)
class SSAMBA(Encoder):
    """The encoder alone, (B, T, D) -> (B, T, D), without patches and places: 24 blocks of 192, 384 or 768 in the paper."""

    def __init__(
        self,
        D: int,
        *,
        depth: int = 24,
        N: int = 16,
        K: int = 4,
        expand: int = 2,
        rank: int | None = None,  # ceil(D / 16) unless given
        chunk: int = 64,
    ) -> None:
        super().__init__()
        if min(D, expand) < 1 or depth < 2 or depth % 2:
            raise ValueError(
                f"D={D}, expand={expand}, depth={depth} makes no pairs of blocks; choose at least 1, 1 and an even depth"
            )
        self.D, self.E, self.N, self.K, self.depth = D, expand * D, N, K, depth
        self.rank = math.ceil(D / 16) if rank is None else rank
        self.blocks = nn.ModuleList(Block(D, E=self.E, N=N, K=K, rank=self.rank, chunk=chunk) for _ in range(depth))
        self.norm = nn.LayerNorm(D, eps=EPS)
        with torch.no_grad():
            for block in self.blocks:
                block.get_parameter("outward.weight").div_(math.sqrt(depth))

    def encode(self, x: Tensor, heard: Tensor) -> Tensor:
        """Pair after pair."""
        lengths = heard.sum(1)
        for straight, turn in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            x = 2 * x + straight(x, lengths) + turned(turn(turned(x, lengths), lengths), lengths)
        out: Tensor = self.norm(x)
        return out

    def shapes(self, batch: int) -> Mapping[str, float]:
        """L blocks D wide, of E channels with N states, K taps and rank r, of p bytes a number."""
        sizes = {"D": self.D, "E": self.E, "N": self.N, "K": self.K, "r": self.rank, "L": self.depth}
        return {**sizes, "p": self.norm.weight.element_size()}


class PatchEncoder(nn.Module):
    """Log-mel spectrograms (B, mel, frames) -> one vector for each patch, in the order of frequency, then time."""

    def __init__(self, encoder: Encoder, *, mel: int = 128, frames: int = 1024, patch: int = 16) -> None:
        super().__init__()
        if min(mel, frames, patch) < 1 or mel % patch or frames % patch:
            raise ValueError(f"patch={patch} does not tile {mel} x {frames}; choose a common divisor")
        D = encoder.D
        self.encoder, self.patch, self.grid = encoder, patch, (mel // patch, frames // patch)
        self.project = nn.Conv2d(1, D, patch, stride=patch)
        self.cls = nn.Parameter(nn.init.trunc_normal_(torch.empty(D), std=SMALL, a=-2 * SMALL, b=2 * SMALL))
        places = torch.empty(1 + self.grid[0] * self.grid[1], D)
        self.places = nn.Parameter(nn.init.trunc_normal_(places, std=SMALL, a=-2 * SMALL, b=2 * SMALL))

    def embed(self, spectrogram: Tensor) -> Tensor:
        """The patches as they are, each by itself and without its place: (B, patches, D)."""
        self.require(spectrogram)
        seen: Tensor = self.project(spectrogram.unsqueeze(1))
        return seen.flatten(2).transpose(1, 2)

    def pixels(self, spectrogram: Tensor) -> Tensor:
        """What is in each patch: (B, patches, patch * patch)."""
        self.require(spectrogram)
        return functional.unfold(spectrogram.unsqueeze(1), self.patch, stride=self.patch).transpose(1, 2)

    def read(self, patches: Tensor) -> Tensor:
        """`cls` in front, places added, encoded: (B, patches, D) -> (B, 1 + patches, D)."""
        cls = self.cls.to(patches.dtype).expand(len(patches), 1, -1)
        out: Tensor = self.encoder(torch.cat([cls, patches], 1) + self.places)
        return out

    def forward(self, spectrogram: Tensor) -> Tensor:
        """(B, mel, frames) -> (B, patches, D)."""
        return self.read(self.embed(spectrogram))[:, 1:]

    def pooled(self, spectrogram: Tensor) -> Tensor:
        """One vector a clip, the mean over its patches and not `cls`: (B, D)."""
        return self(spectrogram).mean(1)  # type: ignore[no-any-return]

    def require(self, spectrogram: Tensor) -> None:
        """Refuse what is not (B, mel, frames) of floats."""
        due = tuple(count * self.patch for count in self.grid)
        if spectrogram.dim() != 3 or tuple(spectrogram.shape[1:]) != due or not spectrogram.is_floating_point():
            raise ValueError(
                f"spectrogram is {tuple(spectrogram.shape)} of {str(spectrogram.dtype).removeprefix('torch.')}; give floats "
                f"(B, {due[0]}, {due[1]})"
            )


class ClipClassifier(nn.Module):
    """What is fine-tuned: the pooled vector of a clip through a norm and a linear map, (B, mel, frames) -> (B, classes)."""

    def __init__(self, encoder: PatchEncoder, classes: int) -> None:
        super().__init__()
        D = encoder.encoder.D
        self.encoder, self.head = encoder, nn.Sequential(nn.LayerNorm(D), nn.Linear(D, classes))

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.encoder.pooled(spectrogram))  # type: ignore[no-any-return]


def normalised(log_mel: Tensor, *, mean: float = -4.2677393, std: float = 4.5689974) -> Tensor:
    """(x - mean) / (2 std), by default with the figures of AudioSet and LibriSpeech that the paper's code has."""
    return (log_mel - mean) / (2 * std)
