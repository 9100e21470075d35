"""Spiking LMUFormer: LMUFormer whose matrices are multiplied by zeros and ones, all but the one that meets the frames.

    e = conv3(x),    three times e <- conv3(fire(e)),    e <- e + conv3(fire(e))
    e <- SpikingBlock(e)                                                      in each block
    logits = mean over time of (V fire(e) + c)

fire is a batch normalisation and a `LIF` neuron, whose potential runs along the sequence (a "membrane shortcut": what goes
around is the current, not the spikes). As in LMUFormer, a stream is answered with a delay of five frames.

Paper: Liu, Datta, Li, Beerel, "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory Units",
arXiv:2402.04882, the model with membrane shortcuts.
Differs: in a stream, neurons keep their potentials and memories make the spikes that the parallel form makes (the authors'
recurrent code goes over all frames again at each, and leaves the memories' spikes out); what is read by
normalisations alone has no bias, which they would cancel.
Keeps: b*B*(2*C + 6*D + depth*(2*N + (3 + ratio)*D + 1) + K) + 8*B*D + 8*B bytes in a stream, b = 4 or 8: half precision is
for autocast. The 8*B*D are spikes of the embedding, a byte each.

Shapes: B batch, T time, C channels of a frame, D width, N order of the memories, K classes.

>>> import torch
>>> model = SpikingLMUFormer(6, 8, classes=3, theta=16.0).double().eval()
>>> frames, state = torch.ones(2, 9, 6, dtype=torch.float64), model.initial_state(2)
>>> for t in range(9):
...     logits, state = model.step(frames[:, t], state)
>>> torch.allclose(model.finish(state), model(frames))
True
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.classifier.delayed import DELAY, Delayed, convolutions, convolved, embedded, inside
from loci.state.mixer import State, choose
from loci.state.spiking_lmu import Firing, SpikingBlock

OWN = 2 * DELAY  # parts of the embedding's state
EACH = 7  # parts of a block's


class SpikingEmbedding(nn.Module):
    """Four convolutions with neurons between them, and a fifth that is added: (B, T, C) -> currents (B, T, D)."""

    def __init__(self, C: int, D: int) -> None:
        super().__init__()
        self.C, self.D = C, D
        self.convs = convolutions(C, D)
        self.fires = nn.ModuleList(Firing(D) for _ in range(DELAY - 1))

    def forward(self, x: Tensor) -> Tensor:
        """All frames at once."""
        first, *others = self.convs
        e: Tensor = first(x.transpose(1, 2)).transpose(1, 2)
        for k, (conv, fire) in enumerate(zip(others, self.each_fire, strict=True)):
            spikes, _ = fire.scan(e, e.new_zeros(len(e), self.D))
            made = conv(spikes.transpose(1, 2)).transpose(1, 2)
            e = made if k < len(others) - 1 else e + made
        return e

    @property
    def each_fire(self) -> list[Firing]:
        """The neurons, by their type."""
        return [fire for fire in self.fires if isinstance(fire, Firing)]

    def initial_state(self, batch: int) -> State:
        """Two frames, four times two moments of spikes, four potentials, one moment of currents: zeros."""
        like = self.get_parameter("convs.0.weight")
        spikes = (like.new_zeros(batch, 2, self.D, dtype=torch.bool) for _ in self.fires)
        potentials = (like.new_zeros(batch, self.D) for _ in self.fires)
        return (like.new_zeros(batch, 2, self.C), *spikes, *potentials, like.new_zeros(batch, self.D))

    def step(self, frame: Tensor, state: State, *, place: Tensor, end: Tensor) -> tuple[Tensor, State]:
        """One frame (B, C) at `place` (B) -> currents five places before it (B, D); nothing is at `end` or after it."""
        seen, potentials, held = state[0], state[DELAY:-1], state[-1]
        three = torch.cat([seen, torch.where(inside(place, end), frame, 0.0).unsqueeze(1)], 1)
        rows, after = [three[:, 1:].clone()], []
        e = made = convolved(self.convs[0], three)
        layers = zip(self.each_fire, self.convs[1:], state[1:DELAY], potentials, strict=True)
        for k, (fire, conv, spikes, v) in enumerate(layers, 1):
            e, there = made, inside(place - k, end)  # e stands k places before the frame
            spike, later = fire.step(e, v)
            after.append(torch.where(there, later, v))
            three = torch.cat([spikes, ((spike > 0) & there).unsqueeze(1)], 1)
            rows.append(three[:, 1:].clone())
            made = convolved(conv, three.to(e.dtype))
        return held + made, (*rows, *after, e)


@method(
    name="spiking-lmuformer",
    kind="stream-classifier",
    title="LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre Memory Units",
    paper="arXiv:2402.04882",
    says="LMUFormer with binary activations: neurons that leak, integrate and fire along the stream stand before each matrix",
    bytes="b*B*(2*C + 6*D + depth*(2*N + (3 + ratio)*D + 1) + K) + 8*B*D + 8*B",
    example={"C": 3, "D": 6, "classes": 4, "N": 5, "theta": 8.0, "depth": 2},
    needs=("torch",),
    system="lmuformer",
)
class SpikingLMUFormer(Delayed):
    """The state: frames heard (B), the embedding's parts, those of each block, the head's potentials, the sum of logits."""

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
        self.embedding = SpikingEmbedding(C, D)
        self.blocks = nn.ModuleList(SpikingBlock(D, N, theta=theta, ratio=ratio) for _ in range(depth))
        for block in self.each_block:
            for layer in (block.signal, block.read, block.out, block.out_norm, block.wide, block.narrow):
                layer.register_parameter("bias", None)  # all that reads it begins with a normalisation
        self.fire, self.head = Firing(D), nn.Linear(D, classes)

    @property
    def each_block(self) -> list[SpikingBlock]:
        """The blocks, by their type."""
        return [block for block in self.blocks if isinstance(block, SpikingBlock)]

    def features(self, frames: Tensor) -> Tensor:
        """(B, T, C) -> the spikes that the head is given, (B, T, D)."""
        e: Tensor = self.embedding(frames)
        for block in self.blocks:
            e, _ = block(e)
        spikes, _ = self.fire.scan(e, e.new_zeros(len(e), e.shape[-1]))
        return spikes

    def classify(self, frames: Tensor) -> Tensor:
        """The mean over time of each moment's logits."""
        logits: Tensor = self.head(self.features(frames)).mean(1)
        return logits

    def initial_state(self, batch: int) -> State:
        """Zeros."""
        like = self.head.weight
        blocks = [part for block in self.each_block for part in block.initial_state(batch)]
        heard = torch.zeros(batch, dtype=torch.int64, device=like.device)
        last = (like.new_zeros(batch, width) for width in (self.embedding.D, self.classes))
        return (heard, *self.embedding.initial_state(batch), *blocks, *last)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """Counts, and b bytes for a real number."""
        first = self.each_block[0]
        return {
            "B": batch, "C": self.C, "D": first.D, "N": first.N, "K": self.classes, "depth": len(self.blocks),
            "ratio": first.wide.out_features // first.D, "b": self.head.weight.element_size(),
        }  # fmt: skip

    def advance(self, frame: Tensor, state: State, end: Tensor) -> State:
        """The state one frame later; blocks, head and sum begin with the first frame that the embedding is done with."""
        heard, own, rest = state[0], state[1 : OWN + 1], state[OWN + 1 :]
        e, own = self.embedding.step(frame, own, place=heard, end=end)
        later: list[Tensor] = []
        for place, block in enumerate(self.each_block):
            e, parts = block.step(e, rest[EACH * place : EACH * (place + 1)])
            later.extend(parts)
        spikes, v = self.fire.step(e, rest[-2])
        later += [v, rest[-1] + self.head(spikes)]
        return (heard + 1, *own, *choose(heard >= DELAY, tuple(later), rest))

    def said(self, state: State) -> Tensor:
        """The mean of the logits so far."""
        return state[-1] / embedded(state)
