"""A gated short convolution: each moment is mixed with the two before it, and gated by itself.

    [u, g] = W_in x + b,    y = W_out ( silu(conv_W(u)) * g ) + c          conv_W causal, depthwise, of width W = 3

Most layers of Based and of JRT-RNN are these: they compare neighbours, for which linear attention is too blunt.

Paper: Arora et al. (Based), arXiv:2402.18668, and "Just read twice", arXiv:2407.05483; after Arora et al., "Zoology",
arXiv:2312.04927.
Differs: the filter has a bias, as in the authors' fused kernel; their plain form has none.
Keeps: b*B*(W - 1)*E*D/2 bytes, the last inputs of the filter, for an expansion E; b is 4, or 8 in float64.

>>> import torch
>>> y, (last,) = BaseConv(4)(torch.randn(2, 9, 4))
>>> y.shape, last.shape
(torch.Size([2, 9, 4]), torch.Size([2, 2, 8]))
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import method
from loci.state.mixer import Mixer, State
from loci.state.xlstm import CausalConv, carried_dtype


@method(
    name="base-conv",
    kind="mixer",
    title="Just read twice: closing the recall gap for recurrent language models",
    paper="arXiv:2407.05483",
    says="a gated convolution over the last few moments, the layer between those that remember",
    bytes="b*B*(W - 1)*E*D//2",
    example={"D": 4, "expand": 4, "width": 3},
    needs=("torch",),
    system="jrt",
)
class BaseConv(Mixer):
    """`expand` is the width of the input map over D: half of it is filtered, half gates."""

    def __init__(self, D: int, *, expand: int = 4, width: int = 3) -> None:
        super().__init__()
        if D < 1 or expand < 1 or expand * D % 2:
            raise ValueError(f"D={D}, expand={expand} has no two halves; choose D * expand even and at least 2")
        self.D, self.expand = D, expand
        inner = expand * D // 2
        self.inward, self.conv, self.out = nn.Linear(D, 2 * inner), CausalConv(inner, width=width), nn.Linear(inner, D)

    def initial_state(self, batch: int) -> State:
        """Zeros before the first input: (B, W - 1, E*D/2)."""
        weight = self.out.weight
        return (weight.new_zeros(batch, self.conv.width - 1, weight.shape[1], dtype=carried_dtype(weight)),)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows, W the filter's width, E*D channels before they are halved, b bytes of a number of the state."""
        b = carried_dtype(self.out.weight).itemsize
        return {"B": batch, "W": self.conv.width, "E": self.expand, "D": self.D, "b": b}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment beside those before it."""
        y, state = self.scan(x.unsqueeze(1), state)
        return y.squeeze(1), state

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments at once."""
        u, gate = self.inward(x).chunk(2, -1)
        filtered, buffer = self.conv(u, state[0])
        return self.out((functional.silu(filtered) * gate).to(u.dtype)), (buffer,)
