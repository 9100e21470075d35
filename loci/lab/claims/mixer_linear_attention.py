"""The same model, asked to read twice: which element do two sets share, when the small one may come second?

In one reading the state has to hold the set that came first, be it the large one; in the second reading the first set comes
again, after the second was seen. State, weights and steps are equal, and the prompt is twice as long, which is the price.
The control reads once. Two layers of width 32 learn both orders for 500 steps; the value is that of the worse order.
Sizes were chosen on the seeds 100 and 101, which the verdict does not use. With 500 steps on 101 it was 47.9 against 35.5 %,
neither of them done learning. What was not chosen: sets of 4 and 32 of 64, where with 8 or 12 features a head nothing was
learned in 400 steps; one layer, which cannot choose by what it compares, where reading once was the better (80.0 against
93.2 % with 4 features, both 100 % with 8, after 800 steps).
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def found(seed: int, *, readings: int) -> Evidence:
    """Percent found; see tasks/disjointness.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.disjointness:found")(
        "loci.state.linear_attention:LinearAttention", seed, D=32, options={"heads": 2, "feature": 4}, hidden=64, lr=0.01,
        steps=500, readings=readings,
    )  # fmt: skip
    return evidence


CLAIM = Claim(
    of="mixer/linear-attention",
    says="finds what sets of 4 and 16 share, in the worse order, 5 points more often reading twice than once, with equal state",
    source="arXiv:2407.05483 (JRT-Prompt: reading twice makes the order of a prompt matter less)",
    run=lambda seed: found(seed, readings=2),
    control=lambda seed: found(seed, readings=1),
    holds=lambda got, control: got.value >= control.value + 5 and got.bytes == control.bytes,
    tier="long",
)
