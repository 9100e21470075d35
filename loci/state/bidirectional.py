"""Two mixers over the same sequence, one of them from its end: every output knows the past and the future.

    y_t = forth(x_1..t) + back(x_T..t)

With a linear readout in each of the two this is y_t = V_f h^f_t + V_b h^b_t + c. It is no causal map, has no state to carry
and cannot speak before it has heard all, so it is no Mixer. Its laws are its own: the past comes through the first mixer
alone and the future through the second alone; rows do not mix; what is padded is neither read nor said.

Paper: Schuster, Paliwal, "Bidirectional Recurrent Neural Networks", 1997 (over LSTM cells: Graves, Schmidhuber 2005), in the
notation of Lipton, Berkowitz, Elkan, "A Critical Review of Recurrent Neural Networks for Sequence Learning", arXiv:1506.00019.
Differs: nothing.
Keeps: nothing between calls; during one, b*B*T*D bytes for each direction.

>>> from loci.state.lstm import LSTM
>>> Bidirectional(LSTM(3, 5), LSTM(3, 5))(torch.ones(2, 4, 3)).shape
torch.Size([2, 4, 3])
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loci.state.mixer import Mixer


class Bidirectional(nn.Module):
    """The sum of what two mixers say, the second of which reads backwards."""

    def __init__(self, forth: Mixer, back: Mixer) -> None:
        super().__init__()
        if forth.D != back.D:
            raise ValueError(f"forth is {forth.D} wide, back {back.D}; give two mixers of one width")
        if forth is back:
            raise ValueError("forth and back are the same mixer; give two, or copy.deepcopy one")
        self.forth, self.back = forth, back

    def forward(self, x: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """(B, T, D) and the rows' lengths (B,), T each if not given -> (B, T, D); zeros from a row's length on."""
        if lengths is None:
            return self.forth(x)[0] + turned(self.back(turned(x))[0])  # type: ignore[no-any-return]
        if tuple(lengths.shape) != (len(x),) or lengths.dtype.is_floating_point:
            raise ValueError(
                f"lengths is {tuple(lengths.shape)} of {str(lengths.dtype).removeprefix('torch.')}; "
                f"give one whole number for each of {len(x)} rows"
            )
        if len(x) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= x.shape[1]:
            raise ValueError(f"lengths={lengths.tolist()} do not fit {x.shape[1]} moments; give 0 to {x.shape[1]}")
        heard = (torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(1)).unsqueeze(-1)
        x = torch.where(heard, x, 0.0)  # padding may hold anything
        y = self.forth(x)[0] + turned(self.back(turned(x, lengths))[0], lengths)
        return torch.where(heard, y, 0.0)


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
