"""An LSTM whose cells are matrices: what it stores is written as an outer product and read by a query.

    i, f, g, o, k, q = W x_t + U h_{t-1} + b                     rows of n, each split into H heads of d = n / H
    C_t = sigmoid(f) * C_{t-1} + (sigmoid(i) * tanh(g)) (x) tanh(k) / sqrt(d)         f gates the rows of C, d by d
    h_t = sigmoid(o) * tanh(C_t tanh(q)),        y_t = V h_t + c

The state grows with the square of the units while the weights are half as many again as those of an LSTM, so it tells the
size of a state from the number of weights: with one head it remembers n^2 numbers where an LSTM remembers n. Every write is
bounded and every row decays, so C is bounded. The next gates need h_t: there is no parallel form.

Paper: Kirsch, Harrison, Sohl-Dickstein, Metz, "General-Purpose In-Context Learning by Meta-Learning Transformers",
arXiv:2212.04458, which compares an LSTM with an outer-product update of its cell and an inner-product readout.
Differs: no code is public and the exact gates were not at hand; this is the LSTM with that one change, where g is the value
and k, q are two further rows of the same map. The paper has one head. tanh bounds keys and queries and 1/sqrt(d) scales them;
the forget gate's bias starts at 1, as in lstm.py.
Keeps: b*B*(n + n*n/H) bytes.

>>> cell = OuterProductLSTM(3, 6, heads=2)
>>> y, (h, C) = cell(torch.ones(2, 4, 3))
>>> h.shape, C.shape
(torch.Size([2, 6]), torch.Size([2, 2, 3, 3]))
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.mixer import State
from loci.state.recurrent import Recurrent


@method(
    name="outer-product-lstm",
    kind="mixer",
    title="General-Purpose In-Context Learning by Meta-Learning Transformers",
    paper="arXiv:2212.04458",
    says="an LSTM whose cell is a matrix: written by outer products, read by a query, so its state is the square of its units",
    bytes="b*B*(n + n*n//H)",
    example={"D": 4, "n": 6, "heads": 2},
    needs=("torch",),
    system="gpicl",
)
class OuterProductLSTM(Recurrent):
    """n units over H matrices of n/H by n/H; the state is (h, C)."""

    gates = 6

    def __init__(self, D: int, n: int, *, heads: int = 1, forget_bias: float = 1.0) -> None:
        if heads < 1 or n % heads:
            raise ValueError(f"heads={heads} does not divide n={n} units; choose a divisor")
        super().__init__(D, n)
        self.heads, self.d = heads, n // heads
        nn.init.constant_(self.inward.bias[n : 2 * n], forget_bias)

    def initial_state(self, batch: int) -> State:
        """Zeros: h (B, n) and C (B, H, d, d)."""
        like = self.readout.weight
        return like.new_zeros(batch, self.n), like.new_zeros(batch, self.heads, self.d, self.d)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows of n units in H heads, of b bytes each."""
        return {**super().shapes(batch), "H": self.heads}

    def advance(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """Gate, write an outer product, read by the query, show."""
        h, C = state
        parts = (driven + self.recurrent(h)).unflatten(-1, (6, self.heads, self.d))
        i, f, o = torch.sigmoid(parts[:, [0, 1, 3]]).unbind(1)  # (B, H, d) each
        g, k, q = torch.tanh(parts[:, [2, 4, 5]]).unbind(1)
        C = f.unsqueeze(-1) * C + (i * g).unsqueeze(-1) * (k / math.sqrt(self.d)).unsqueeze(-2)
        h = (o * torch.tanh(C @ q.unsqueeze(-1)).squeeze(-1)).flatten(1)
        return h, (h, C)
