"""LMUFormer: a classifier of streams that looks a few frames around itself, remembers by Legendre memories, mixes channels.

    e = four times BN(relu(conv3(.))) of x,    e <- e + conv3(e)
    e <- e + BN(W LMU(e)),    e <- e + relu(BN(W_2 gelu(BN(W_1 e))))          in each block
    logits = mean over time of (V e + c)

Each of the five convolutions sees one frame ahead, so a stream is answered with a delay of five frames; `finish` says
what the frames after the end, which are zeros, make of the last five.

Paper: Liu, Datta, Li, Beerel, "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory Units",
arXiv:2402.04882.
Differs: one mean of features is kept in a stream and the head is applied to it, which is the same number; what stands
before a normalisation has no bias, which the normalisation would cancel.
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

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from loci.core.card import method
from loci.state.classifier.delayed import DELAY, Delayed, convolutions, convolved, embedded, inside
from loci.state.lmu import LMU
from loci.state.mixer import State


class Embedding(nn.Module):
    """Four convolutions over three frames and a fifth that is added: (B, T, C) -> (B, T, D)."""

    def __init__(self, C: int, D: int) -> None:
        super().__init__()
        self.C, self.D = C, D
        self.convs = convolutions(C, D)
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
            frame = torch.where(inside(place - k, end), frame, 0.0)  # each convolution is a frame later than the last
            three = torch.cat([seen, frame.unsqueeze(1)], 1)
            after.append(three[:, 1:].clone())
            out = convolved(conv, three)
            frame = seen[:, 1] + out if k == DELAY - 1 else self.norms[k](out.relu())
        return frame, tuple(after)


class Block(nn.Module):
    """A memory and a mixer of channels, each with a way around it."""

    def __init__(self, D: int, N: int, *, theta: float, ratio: int) -> None:
        super().__init__()
        self.lmu = LMU(D, N, theta=theta)
        self.out = nn.Linear(D, D, bias=False)
        self.wide, self.narrow = nn.Linear(D, ratio * D, bias=False), nn.Linear(ratio * D, D, bias=False)
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


@method(
    name="lmuformer",
    kind="stream-classifier",
    title="LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory Units",
    paper="arXiv:2402.04882",
    says="classifies a stream by convolutions over nearby frames and Legendre memories: trains by FFT, runs frame by frame",
    bytes="b*B*(2*(C + 4*D) + depth*N + D) + 8*B",
    example={"C": 3, "D": 6, "classes": 4, "N": 5, "theta": 8.0, "depth": 2},
    needs=("torch",),
)
class LMUFormer(Delayed):
    """The state: frames heard (B), the embedding's last frames, the memories, the sum of features (B, D)."""

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
        self.C, self.classes = C, classes
        self.embedding = Embedding(C, D)
        self.blocks = nn.ModuleList(Block(D, N or D, theta=theta, ratio=ratio) for _ in range(depth))
        self.head = nn.Linear(D, classes)

    def features(self, frames: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, D)."""
        e: Tensor = self.embedding(frames)
        for block in self.blocks:
            e = block(e)
        return e

    def classify(self, frames: Tensor) -> Tensor:
        """The mean over time of each frame's logits."""
        logits: Tensor = self.head(self.features(frames)).mean(1)
        return logits

    def initial_state(self, batch: int) -> State:
        """Zeros."""
        like = self.head.weight
        memories = tuple(block.lmu.initial_state(batch)[0] for block in self.each_block)
        heard = torch.zeros(batch, dtype=torch.int64, device=like.device)
        return (heard, *self.embedding.initial_state(batch), *memories, like.new_zeros(batch, self.embedding.D))

    def shapes(self, batch: int) -> Mapping[str, float]:
        """Counts, and b bytes for a real number."""
        first, D = self.each_block[0].lmu, self.embedding.D
        return {
            "B": batch, "C": self.C, "D": D, "N": first.N, "depth": len(self.blocks), "b": self.head.weight.element_size()
        }  # fmt: skip

    @property
    def each_block(self) -> list[Block]:
        """The blocks, by their type."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def advance(self, frame: Tensor, state: State, end: Tensor) -> State:
        """The state one frame later; memories and sum begin with the first frame that the embedding is done with."""
        heard, rows, memories, total = state[0], state[1 : DELAY + 1], state[DELAY + 1 : -1], state[-1]
        e, rows = self.embedding.step(frame, rows, place=heard, end=end)
        begun, after = (heard >= DELAY).unsqueeze(-1), []
        for block, m in zip(self.each_block, memories, strict=True):
            e, later = block.step(e, m)
            after.append(torch.where(begun, later, m))
        return (heard + 1, *rows, *after, torch.where(begun, total + e, total))

    def said(self, state: State) -> Tensor:
        """The head on the mean of the features so far."""
        logits: Tensor = self.head(state[-1] / embedded(state))
        return logits
