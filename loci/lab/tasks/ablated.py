"""Members of a kind with the one thing taken away that their papers are about: controls, and no methods.

Each is otherwise what it comes from: as many weights, as many bytes, the same maps around it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loci.state.elman import Elman
from loci.state.irnn import IRNN
from loci.state.jordan import Jordan
from loci.state.mixer import State
from loci.state.omega import Fed
from loci.state.recurrent import Recurrent
from loci.state.s5 import S5
from loci.state.titans import Titans


class UnforgettingTitans(Titans):
    """Titans whose memory keeps all of itself: alpha is 1."""

    def _fed(self, x: Tensor, buffer: Tensor) -> tuple[Fed, Tensor]:
        fed, after = super()._fed(x, buffer)
        return fed._replace(log_alpha=torch.zeros_like(fed.log_alpha)), after


class RealS5(S5):
    """S5 whose eigenvalues start at -1, -2, ..., as those of S4D-Real (arXiv:2206.11893), and so do not turn."""

    def __init__(self, D: int, P: int = 64) -> None:
        super().__init__(D, P)
        with torch.no_grad():
            self.Lambda[:, 0] = -torch.arange(1.0, P // 2 + 1)
            self.Lambda[:, 1] = 0.0


class RandomIRNN(IRNN):
    """The rectified units of IRNN whose recurrent weights start as torch starts those of its own cells."""

    def __init__(self, D: int, n: int) -> None:
        super().__init__(D, n)
        nn.init.uniform_(self.recurrent.weight, -(n**-0.5), n**-0.5)


class PresentElman(Elman):
    """Elman's network that never sees what it was."""

    scan = Recurrent.scan

    def advance(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment after nothing."""
        return super().advance(driven, tuple(map(torch.zeros_like, state)))


class PresentJordan(Jordan):
    """Jordan's network that never sees what it said."""

    def speak(self, driven: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment after nothing."""
        return super().speak(driven, tuple(map(torch.zeros_like, state)))
