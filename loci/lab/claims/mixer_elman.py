"""A network that sees what it was predicts the third bit of exclusive ors in a stream, of which nothing else can be known.

16 units, 1,000 steps on streams of 30 bits. The control is the same network, and never sees what it was: in the stream every
bit alone says nothing about the next. On the seed 100, which the verdict does not use, 100 % were right, the control's 50.1.
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def predicted(entry: str, seed: int) -> Evidence:
    """Percent of third bits predicted; see tasks/structure.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    lesson = load("loci.lab.tasks.recalling:Lesson")(steps=1000, lr=0.01)
    evidence: Evidence = load("loci.lab.tasks.structure:predicted")(entry, seed, D=4, options={"n": 16}, lesson=lesson)
    return evidence


CLAIM = Claim(
    of="mixer/elman",
    says="exclusive or in time: at least 90 % of third bits, where the same network without its context has at most 60",
    source="Elman 1990, section on exclusive or (the error falls at every third bit)",
    run=lambda seed: predicted("loci.state.elman:Elman", seed),
    control=lambda seed: predicted("loci.lab.tasks.ablated:PresentElman", seed),
    holds=lambda got, control: got.value >= 90 and control.value <= 60 and got.bytes <= control.bytes,
    tier="long",
)
