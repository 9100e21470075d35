"""Bytes alive over a run, by what they are for: a list of births and deaths, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Kind: TypeAlias = Literal["parameters", "gradients", "optimizer", "activations", "temporaries"]
KINDS: tuple[Kind, ...] = ("parameters", "gradients", "optimizer", "activations", "temporaries")


@dataclass(frozen=True, slots=True)
class Peak:
    """The most bytes alive at once, what they were for, and in which phase."""

    bytes: int
    split: dict[Kind, int]
    phase: str

    def plus(self, kind: Kind, size: int) -> Peak:
        """The same moment with `size` more bytes of a kind."""
        return Peak(self.bytes + size, {**self.split, kind: self.split[kind] + size}, self.phase)


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """E births and deaths in order: signed bytes (E,), places in KINDS (E,), names of phases (E)."""

    deltas: NDArray[np.int64]
    kinds: NDArray[np.int8]
    phases: tuple[str, ...]

    @classmethod
    def of(cls, deltas: Sequence[int], kinds: Sequence[int], phases: Sequence[str]) -> Timeline:
        """From plain lists."""
        return cls(np.array(deltas, np.int64), np.array(kinds, np.int8), tuple(phases))

    def since(self, event: int) -> Timeline:
        """From that event on; what was alive before it comes first, one entry a kind.

        >>> Timeline.of([8, 4, -4, 2], [0, 3, 3, 2], ["forward", "forward", "forward", "step"]).since(3).live().tolist()
        [8, 8, 8, 8, 8, 10]
        """
        before = self.curves()[:, event - 1] if event else np.zeros(len(KINDS), np.int64)
        return Timeline(
            np.concatenate([before, self.deltas[event:]]),
            np.concatenate([np.arange(len(KINDS), dtype=np.int8), self.kinds[event:]]),
            (self.phases[event] if event < len(self.phases) else "",) * len(KINDS) + self.phases[event:],
        )

    def live(self) -> NDArray[np.int64]:
        """Bytes alive after each event (E,)."""
        return np.cumsum(self.deltas)

    def curves(self) -> NDArray[np.int64]:
        """Bytes alive after each event, one row a kind (5, E)."""
        rows = [np.where(self.kinds == place, self.deltas, 0) for place in range(len(KINDS))]
        return np.cumsum(np.array(rows, np.int64).reshape(len(KINDS), -1), axis=1)

    def peak(self) -> Peak:
        """The first moment with the most bytes alive.

        >>> Timeline.of([8, 4, -4, 2], [0, 3, 3, 2], ["forward", "forward", "forward", "step"]).peak().bytes
        12
        """
        if not len(self.deltas):
            return Peak(0, dict.fromkeys(KINDS, 0), "")
        at = int(self.live().argmax())
        curves = self.curves()
        return Peak(
            int(curves[:, at].sum()),
            {kind: int(curves[place, at]) for place, kind in enumerate(KINDS)},
            self.phases[at],
        )
