"""A rounder: a format, a mode and a seed of its own. What layers, optimizers and operations are given as Q.

>>> import numpy as np
>>> from loci.budget.precision.floating import FloatFormat
>>> Q = Rounder(FloatFormat(5, 2), "stochastic", seed=1)
>>> sorted(set(Q(np.full(100, 1.1)).tolist()))
[1.0, 1.25]
"""

from __future__ import annotations

import sys
from typing import Any, TypeVar

import numpy as np

from loci.budget.precision import arrays
from loci.budget.precision.format import NumberFormat
from loci.budget.precision.modes import DRAWN, Mode, require_mode

A = TypeVar("A")


class Rounder:
    """Q(x) with generators of its own, one for numpy and one for each torch device, each begun at `seed`."""

    def __init__(self, format: NumberFormat, mode: Mode = "nearest-even", *, seed: int = 42) -> None:  # noqa: A002
        require_mode(mode)
        self.format, self.mode, self.seed = format, mode, seed
        self._random: dict[str, Any] = {}

    def __call__(self, x: A) -> A:
        """Round x to the format's numbers; the gradient of a tensor passes straight through."""
        return self.format.round(x, self.mode, random=self._generator(x) if self.mode in DRAWN else None)

    def __repr__(self) -> str:
        """The call that makes it."""
        return f"Rounder({self.format!r}, {self.mode!r}, seed={self.seed})"

    def state_dict(self) -> dict[str, Any]:
        """Where its generators are, so that a run resumes exactly."""
        return {place: _state(random) for place, random in self._random.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        fresh = {place: self._begun(place) for place in state}
        for place, random in fresh.items():
            if isinstance(random, np.random.Generator):
                random.bit_generator.state = state[place]
            else:
                random.set_state(state[place].cpu())
        self._random = fresh

    def _generator(self, x: Any) -> Any:
        arrays.namespace(x)
        place = str(x.device) if arrays.is_torch(x) else "numpy"
        if place not in self._random:
            self._random[place] = self._begun(place)
        return self._random[place]

    def _begun(self, place: str) -> Any:
        if place == "numpy":
            return np.random.default_rng(self.seed)
        return sys.modules["torch"].Generator(place).manual_seed(self.seed)


def _state(random: Any) -> Any:
    return random.bit_generator.state if isinstance(random, np.random.Generator) else random.get_state()
