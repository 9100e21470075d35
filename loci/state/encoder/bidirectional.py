"""Two mixers over the same sequence, one of them from its end: every output knows the past and the future.

    y_t = forth(x_1..t) + back(x_T..t)

With a linear readout in each of the two this is y_t = V_f h^f_t + V_b h^b_t + c. The past comes through the first mixer
alone and the future through the second alone. A row is turned within its own length.

Paper: Schuster, Paliwal, "Bidirectional Recurrent Neural Networks", 1997 (over LSTM cells: Graves, Schmidhuber 2005), in the
notation of Lipton, Berkowitz, Elkan, "A Critical Review of Recurrent Neural Networks for Sequence Learning", arXiv:1506.00019.
Differs: nothing.
Keeps: the parameters of the two; nothing between calls, and during one b*B*T*D bytes for each direction.

>>> from loci.state.lstm import LSTM
>>> Bidirectional(LSTM(3, 5), LSTM(3, 5))(torch.ones(2, 4, 3)).shape
torch.Size([2, 4, 3])
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from loci.state.encoder.base import Encoder
from loci.state.mixer import Mixer


class Bidirectional(Encoder):
    """The sum of what two mixers say, the second of which reads backwards; it has no card, it is what its mixers are."""

    def __init__(self, forth: Mixer, back: Mixer) -> None:
        super().__init__()
        if forth.D != back.D:
            raise ValueError(f"forth is {forth.D} wide, back {back.D}; give two mixers of one width")
        if forth is back:
            raise ValueError("forth and back are the same mixer; give two, or copy.deepcopy one")
        self.D, self.forth, self.back = forth.D, forth, back

    def encode(self, x: Tensor, heard: Tensor) -> Tensor:
        """Each row forth, and backwards from its own end."""
        lengths, batch = heard.sum(1), len(x)
        past = self.forth.scan(x, self.forth.initial_state(batch))[0]
        future = self.back.scan(turned(x, lengths), self.back.initial_state(batch))[0]
        return past + turned(future, lengths)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """The mixers' own names behind a dot: their states, since parameters are the mixers' own."""
        sides = (("forth", self.forth), ("back", self.back))
        return {f"{side}.{name}": size for side, mixer in sides for name, size in mixer.shapes(batch).items()}


def turned(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Time reversed within each row's length; what lies beyond it stays. Its own inverse.

    >>> turned(torch.tensor([[[1], [2], [3], [0]]]), torch.tensor([3])).flatten().tolist()
    [3, 2, 1, 0]
    """
    if lengths is None:
        return x.flip(1)
    places = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
    mirrored = lengths.unsqueeze(1) - 1 - places
    return x.gather(1, torch.where(mirrored >= 0, mirrored, places).unsqueeze(-1).expand_as(x))
