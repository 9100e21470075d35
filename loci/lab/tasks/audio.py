"""Sounds of eight kinds at 8 kHz: gliding up or down, beating slowly or fast, with all harmonics or the odd ones alone.

Pitch, place of the beats and noise are drawn, so that no single frequency or moment tells the kind. An encoder is pretrained on
sounds without labels and judged by a linear map from what it says, fitted in closed form on few labelled ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from loci.lab.claim import Evidence
from loci.state.encoder.base import Encoder
from loci.state.encoder.masked_patches import MaskedPatches, clustered
from loci.state.encoder.ssamba import SSAMBA, PatchEncoder, normalised
from loci.state.mamba import Mamba

RATE = 8000  # samples a second, of which a clip has one
MEL, FRAMES, PATCH = 32, 64, 8
WINDOW = 512  # samples
KINDS = 8
BEATS = (3.0, 5.0)  # a second
STACKS = ((1, 2, 3, 4), (1, 3, 5, 7))  # harmonics
NOISE = 10 ** (-5 / 10)  # power of the noise beside that of the sound: 5 dB below
HIDDEN = 16  # patches of 32
D, DEPTH, N = 32, 4, 4


class OneWay(Encoder):
    """The same stream with Mamba blocks that read forth alone; the control of SSAMBA, and no method."""

    def __init__(self, width: int, *, depth: int) -> None:
        super().__init__()
        self.D = width
        self.blocks = nn.ModuleList(Mamba(width, N=N) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def encode(self, x: Tensor, heard: Tensor) -> Tensor:
        """Block after block."""
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))[0]
        out: Tensor = self.norm(x)
        return out

    def shapes(self, batch: int) -> dict[str, float]:
        """Its width."""
        return {"D": self.D}


def sounds(kinds: Tensor, random: torch.Generator) -> Tensor:
    """Kinds (B,) from 0 to 7 -> clips (B, 8000): bit 2 is the glide, bit 1 the beat, bit 0 the stack."""
    shape = (len(kinds), 1)
    time = torch.arange(RATE) / RATE
    up = 2.0 * (kinds // 4 % 2).view(shape) - 1
    pitch = 200 * 2 ** torch.rand(shape, generator=random)  # Hz, in the middle of the clip
    rate = up * math.log(2)  # an octave a second
    turns = pitch * ((rate * (time - 0.5)).exp() - 1) / rate  # the integral of pitch 2^(+-(t - 1/2))
    beats = torch.tensor(BEATS)[kinds // 2 % 2].view(shape)
    envelope = (math.pi * (beats * time + torch.rand(shape, generator=random))).cos().square()
    stacks = torch.tensor(STACKS)[kinds % 2]  # (B, 4)
    tone = sum(
        (2 * math.pi * (k := stacks[:, place : place + 1]) * turns).sin() / k.sqrt() for place in range(stacks.shape[1])
    )
    sound = envelope * tone
    loud = sound.square().mean(1, keepdim=True)
    return sound + (NOISE * loud).sqrt() * torch.randn(sound.shape, generator=random)


def log_mel(clips: Tensor) -> Tensor:
    """(B, 8000) -> (B, MEL, FRAMES), by torch.stft and triangles that are even in mel."""
    hop = RATE // FRAMES
    power = torch.stft(
        clips, WINDOW, hop, window=torch.hann_window(WINDOW), center=True, return_complex=True
    ).abs().square()[..., :FRAMES]  # fmt: skip
    return (triangles() @ power + 1e-6).log()


def triangles() -> Tensor:
    """(MEL, WINDOW / 2 + 1): each rises from the middle of the one before it to its own and falls to that of the next."""
    top = 1127 * math.log1p(RATE / 2 / 700)
    middles = 700 * ((torch.linspace(0, top, MEL + 2) / 1127).exp() - 1)  # Hz
    bins = torch.linspace(0, RATE / 2, WINDOW // 2 + 1)
    rise = (bins - middles[:-2, None]) / (middles[1:-1] - middles[:-2])[:, None]
    fall = (middles[2:, None] - bins) / (middles[2:] - middles[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp(min=0)


def spectrograms(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normalised log-mel spectrograms (count, MEL, FRAMES) and their kinds (count,)."""
    kinds = torch.randint(KINDS, (count,), generator=random)
    found = torch.cat([log_mel(sounds(some, random)) for some in torch.split(kinds, 100)])
    return normalised(found, mean=float(found.mean()), std=float(found.std())), kinds


def pretrained(
    encoder: Encoder, clips: Tensor, random: torch.Generator, *, steps: int, lr: float = 5e-3, batch: int = 16
) -> MaskedPatches:
    """The encoder of patches after `steps` updates on masked patches of the clips."""
    model = MaskedPatches(PatchEncoder(encoder, mel=MEL, frames=FRAMES, patch=PATCH))
    if not steps:
        return model
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(clips), (batch,), generator=random)
        masks = [clustered(batch, HIDDEN, grid=model.encoder.grid, random=random) for _ in range(2)]
        optimizer.zero_grad()
        torch.autograd.backward(model(clips[rows], *masks).total)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


def fitted(given: Sequence[Tensor], kinds: Sequence[Tensor], *, ridge: float = 1.0) -> float:
    """Percent right of a linear map from the first vectors and kinds, asked about the second; ridge regression."""
    mean, std = given[0].mean(0), given[0].std(0) + 1e-6
    learned, asked = (torch.cat([(part - mean) / std, part.new_ones(len(part), 1)], 1).double() for part in given)
    wanted = nn.functional.one_hot(kinds[0], KINDS).double()
    gram = learned.T @ learned + ridge * torch.eye(learned.shape[1], dtype=torch.float64)
    said = (asked @ torch.linalg.solve(gram, learned.T @ wanted)).argmax(1)
    return 100 * float((said == kinds[1]).double().mean())


def probed(seed: int, *, steps: int) -> Evidence:
    """Percent right of a linear map from the pooled vectors of SSAMBA after `steps` updates: 200 clips labelled, 400 asked."""
    return _judged(seed, lambda: SSAMBA(D, depth=DEPTH, N=N), steps, _probe)


def repainted(seed: int, *, both_ways: bool, steps: int) -> Evidence:
    """Squared error of hidden patches that were painted again, in clips that were not trained on."""
    make = (lambda: SSAMBA(D, depth=DEPTH, N=N)) if both_ways else (lambda: OneWay(D, depth=DEPTH + 1))
    return _judged(seed, make, steps, _repaint)


def _judged(
    seed: int,
    make: Callable[[], Encoder],
    steps: int,
    judge: Callable[[MaskedPatches, torch.Generator], tuple[float, str]],
) -> Evidence:
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    clips, _ = spectrograms(1500, random)
    model = pretrained(make(), clips, random, steps=steps)
    with torch.no_grad():
        value, unit = judge(model, random)
    kept = sum(part.numel() * part.element_size() for part in model.encoder.parameters())
    return Evidence(round(value, 4), unit, kept)


def _probe(model: MaskedPatches, random: torch.Generator) -> tuple[float, str]:
    clips, kinds = spectrograms(600, random)
    vectors = torch.cat([model.encoder.pooled(some) for some in torch.split(clips, 100)])
    return fitted((vectors[:200], vectors[200:]), (kinds[:200], kinds[200:])), "percent of clips told right"


def _repaint(model: MaskedPatches, random: torch.Generator) -> tuple[float, str]:
    clips, _ = spectrograms(400, random)
    masks = [clustered(len(clips), HIDDEN, grid=model.encoder.grid, random=random) for _ in range(2)]
    return float(model(clips, *masks).generative), "squared error of hidden patches"
