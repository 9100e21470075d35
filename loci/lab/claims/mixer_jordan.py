"""A plan that stands still, and a series said by it: what was said is enough to know how far it has come.

16 series of 8 out of 4 letters, learned by heart in 600 steps, a plan for each. 32 units, a context 16 wide that
keeps half of itself. The control is the same network, and never sees what it said: a letter a plan is the best it can do.
On the seed 100, which the verdict does not use, 100 % were right, the control's 41.4.
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def said(entry: str, seed: int) -> Evidence:
    """Percent of letters said right; see tasks/structure.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    lesson = load("loci.lab.tasks.recalling:Lesson")(steps=600, lr=0.01)
    evidence: Evidence = load("loci.lab.tasks.structure:said")(
        entry, seed, D=16, options={"n": 32, "decay": 0.5}, lesson=lesson
    )
    return evidence


CLAIM = Claim(
    of="mixer/jordan",
    says="16 series of 8 letters by their plans: at least 95 % right, where the same network without its context has at most 60",
    source="Jordan 1986 (a constant plan and the last outputs say a series)",
    run=lambda seed: said("loci.state.jordan:Jordan", seed),
    control=lambda seed: said("loci.lab.tasks.ablated:PresentJordan", seed),
    holds=lambda got, control: got.value >= 95 and control.value <= 60 and got.bytes <= control.bytes,
)
