"""Mixers one above the other: each hears what the one below says; their states side by side are the state.

    y^0 = x,    y^l_1..T, s^l = layer_l(y^{l-1}_1..T, s^l_0),    y = y^L,    s = (s^1, ..., s^L)

An encoder and a decoder are two stacks of the same layers: the last state of one is where the other starts,
`decoder(y, encoder(x.flip(1))[1])` with the source reversed as in Sutskever, Vinyals, Le 2014.

Paper: Lipton, Berkowitz, Elkan, "A Critical Review of Recurrent Neural Networks for Sequence Learning", arXiv:1506.00019.
Differs: nothing; layers add no residual, norm or dropout of their own.
Keeps: the sum over its layers.

>>> import torch
>>> from loci.state.gru import GRU
>>> y, state = Layers([GRU(3, 5), GRU(3, 7)])(torch.ones(2, 4, 3))
>>> [tuple(part.shape) for part in state]
[(2, 5), (2, 7)]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

from loci.state.mixer import Mixer, State


class Layers(Mixer):
    """Layers of one width, the first of which hears the input; it has no card, it is what its layers are."""

    def __init__(self, layers: Sequence[Mixer]) -> None:
        super().__init__()
        if not layers or len({layer.D for layer in layers}) > 1:
            raise ValueError(f"layers are {[layer.D for layer in layers]} wide; give at least one, all of one width")
        self.D = layers[0].D
        self.layers = nn.ModuleList(layers)
        self.parts = [len(layer.initial_state(1)) for layer in layers]

    def initial_state(self, batch: int) -> State:
        """The layers' initial states side by side."""
        return tuple(part for layer in self._each() for part in layer.initial_state(batch))

    def shapes(self, batch: int) -> Mapping[str, float]:
        """The layers' own names with their place behind a dot."""
        return {f"{k}.{name}": size for k, lay in enumerate(self._each()) for name, size in lay.shapes(batch).items()}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment through all layers."""
        after: list[Tensor] = []
        for layer, own in zip(self._each(), self._split(state), strict=True):
            x, part = layer.step(x, own)
            after.extend(part)
        return x, tuple(after)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Layer by layer: each scans the whole sequence before the next begins."""
        after: list[Tensor] = []
        for layer, own in zip(self._each(), self._split(state), strict=True):
            x, part = layer.scan(x, own)
            after.extend(part)
        return x, tuple(after)

    def _each(self) -> Iterator[Mixer]:
        for layer in self.layers:
            assert isinstance(layer, Mixer)
            yield layer

    def _split(self, state: State) -> list[State]:
        places = [sum(self.parts[:k]) for k in range(len(self.parts) + 1)]
        return [state[start:end] for start, end in pairwise(places)]
