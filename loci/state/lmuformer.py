"""LMUFormer: a classifier of streams that looks a few frames around itself, remembers by Legendre memories, mixes channels.

    e = four times BN(relu(conv3(.))) of x,    e <- e + conv3(e)
    e <- e + BN(W LMU(e)),    e <- e + relu(BN(W_2 gelu(BN(W_1 e))))          in each block
    logits = mean over time of (V e + c)

Each of the five convolutions sees one frame ahead, so a stream is answered with a delay of five frames; `finish` says
what the frames after the end, which are zeros, make of the last five. Normalisation by batches ties the rows of a batch
together in training, so that this is no mixer: streams want `eval()`.

Paper: Liu, Datta, Li, Beerel, "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory Units",
arXiv:2402.04882.
Differs: one mean of features is kept in a stream and the head is applied to it, which is the same number.
Keeps: b*B*(2*(C + 4*D) + depth*N + D) + 8*B bytes in a stream.

Shapes: B batch, T time, C channels of a frame, D width, N order of the memories.

>>> import torch
>>> model = LMUFormer(6, 8, classes=3, theta=16.0).eval()
>>> frames, state = torch.ones(2, 9, 6), model.initial_state(2)
>>> for t in range(9):
...     logits, state = model.step(frames[:, t], state)
>>> torch.allclose(model.finish(state), model(frames), atol=1e-5)
True
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from loci.state.lmu import LMU
from loci.state.mixer import State

DELAY = 5  # frames that the embedding sees ahead


class Embedding(nn.Module):
    """Four convolutions over three frames and a fifth that is added: (B, T, C) -> (B, T, D)."""

    def __init__(self, C: int, D: int) -> None:
        super().__init__()
        self.C, self.D = C, D
        widths = [C, *[D] * DELAY]
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, 3, padding=1, bias=False) for before, after in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(D) for _ in range(DELAY - 1))

    def forward(self, x: Tensor) -> Tensor:
        """All frames at once."""
        e = x.transpose(1, 2)
        for conv, norm in zip(self.convs, self.norms, strict=False):
            e = norm(conv(e).relu())
        added: Tensor = e + self.convs[-1](e)
        return added.transpose(1, 2)

    def initial_state(self, batch: int) -> State:
        """The last two frames that each convolution saw: zeros, as in its padding."""
        like = self.get_parameter("convs.0.weight")
        return tuple(like.new_zeros(batch, 2, width) for width in (self.C, *[self.D] * (DELAY - 1)))

    def step(self, frame: Tensor, state: State, *, place: Tensor, end: Tensor) -> tuple[Tensor, State]:
        """One frame (B, C) at `place` (B) -> what stands five places before it (B, D); nothing is at `end` or after it."""
        after: list[Tensor] = []
        for k, (conv, seen) in enumerate(zip(self.convs, state, strict=True)):
            at = place - k  # each convolution is one frame later than the one before it
            frame = torch.where(((at >= 0) & (at < end)).unsqueeze(-1), frame, 0.0)
            three = torch.cat([seen, frame.unsqueeze(1)], 1)
            after.append(three[:, 1:].clone())
            out = torch.einsum("btc,dct->bd", three, conv.get_parameter("weight"))
            frame = seen[:, 1] + out if k == DELAY - 1 else self.norms[k](out.relu())
        return frame, tuple(after)


class Block(nn.Module):
    """A memory and a mixer of channels, each with a way around it."""

    def __init__(self, D: int, N: int, *, theta: float, ratio: int) -> None:
        super().__init__()
        self.lmu = LMU(D, N, theta=theta)
        self.out, self.wide, self.narrow = nn.Linear(D, D), nn.Linear(D, ratio * D), nn.Linear(ratio * D, D)
        self.out_norm, self.wide_norm, self.narrow_norm = (nn.BatchNorm1d(width) for width in (D, ratio * D, D))

    def mixed(self, e: Tensor, y: Tensor) -> Tensor:
        """Frames (B, D) or (B, T, D) and what the memory made of them -> (B, D) or (B, T, D)."""
        shape, e = e.shape, e.flatten(0, -2)
        e = e + self.out_norm(self.out(y.flatten(0, -2)))
        inner = gelu(self.wide_norm(self.wide(e)))
        e = e + self.narrow_norm(self.narrow(inner)).relu()
        return e.view(shape)

    def forward(self, e: Tensor) -> Tensor:
        """All frames at once, from an empty memory."""
        return self.mixed(e, self.lmu(e)[0])

    def step(self, e: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        """One frame (B, D) and the memory (B, N)."""
        y, (after,) = self.lmu.step(e, (m,))
        return self.mixed(e, y), after


class LMUFormer(nn.Module):
    """Frames (B, T, C) -> logits (B, classes): at once by `forward`, or frame by frame by `step` in constant memory."""

    def __init__(
        self,
        C: int,
        D: int = 256,
        *,
        classes: int,
        N: int | None = None,
        theta: float = 128.0,
        depth: int = 1,
        ratio: int = 4,
    ) -> None:
        super().__init__()
        if min(C, D, classes, depth, ratio) < 1:
            raise ValueError(
                f"C={C}, D={D}, classes={classes}, depth={depth}, ratio={ratio}: each is a count; choose at least 1"
            )
        self.embedding = Embedding(C, D)
        self.blocks = nn.ModuleList(Block(D, N or D, theta=theta, ratio=ratio) for _ in range(depth))
        self.head = nn.Linear(D, classes)

    def features(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, D)."""
        e: Tensor = self.embedding(x)
        for block in self.blocks:
            e = block(e)
        return e

    def forward(self, x: Tensor) -> Tensor:
        """The mean over time of each frame's logits."""
        if x.dim() != 3 or x.shape[2] != self.embedding.C or not x.shape[1]:
            raise ValueError(
                f"x is {tuple(x.shape)}, this LMUFormer takes (B, T, {self.embedding.C}) with T >= 1; give frames of that width"
            )
        logits: Tensor = self.head(self.features(x)).mean(1)
        return logits

    def initial_state(self, batch: int) -> State:
        """Frames seen (B), the embedding's last frames, the memories, the sum of features (B, D)."""
        like = self.head.weight
        memories = tuple(block.lmu.initial_state(batch)[0] for block in self.each_block)
        seen = torch.zeros(batch, dtype=torch.int64, device=like.device)
        return (seen, *self.embedding.initial_state(batch), *memories, like.new_zeros(batch, self.embedding.D))

    @property
    def each_block(self) -> list[Block]:
        """The blocks, by their type."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """One frame (B, C) -> logits of all features so far, which begin five frames late, and the state after it."""
        if self.training:
            raise ValueError("batch statistics of one frame are none; call eval() before a stream")
        never = torch.full_like(state[0], torch.iinfo(torch.int64).max)
        after = self.advance(frame, state, never)
        return self.said(after), after

    def finish(self, state: State) -> Tensor:
        """The logits at the end of the stream: those of `forward`. The state may be stepped on as if nothing was asked."""
        if self.training:
            raise ValueError("batch statistics of one frame are none; call eval() before a stream")
        end, nothing = state[0], state[1].new_zeros(len(state[0]), self.embedding.C)
        for _ in range(DELAY):
            state = self.advance(nothing, state, end)
        return self.said(state)

    def advance(self, frame: Tensor, state: State, end: Tensor) -> State:
        """The state one frame later."""
        seen, rows, memories, total = state[0], state[1 : DELAY + 1], state[DELAY + 1 : -1], state[-1]
        e, rows = self.embedding.step(frame, rows, place=seen, end=end)
        begun, after = (seen >= DELAY).unsqueeze(-1), []
        for block, m in zip(self.each_block, memories, strict=True):
            e, later = block.step(e, m)
            after.append(torch.where(begun, later, m))
        return (seen + 1, *rows, *after, torch.where(begun, total + e, total))

    def said(self, state: State) -> Tensor:
        """The head on the mean of the features so far."""
        count = (state[0] - DELAY).clamp(min=1).unsqueeze(-1)
        logits: Tensor = self.head(state[-1] / count)
        return logits
