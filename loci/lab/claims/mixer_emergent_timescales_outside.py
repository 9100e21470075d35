"""Whether units become slow depends on the curriculum: single-head networks have slower units than multi-head ones.

N-DMS with 64 units of the cell whose leak is outside, 3,000 steps of 128 sequences; the value is the mean time constant
when the largest N was known. The threshold, 0.3 steps, was set before the first run. The pilot did not change it, although
it promises little: on the seed 100, which the verdict does not use, both reached N = 10, from 1.54 at the start to 1.39
single-head and 1.25 multi-head. The order is the paper's, but at this size the units of neither become slower.
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def slows(curriculum: str, seed: int) -> Evidence:
    """The mean time constant of the units at the largest N; see tasks/curriculum.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.curriculum:slows")(
        "loci.state.timescales_outside:OutsideTimescales", seed, task="dms", curriculum=curriculum, n=64, steps=3000
    )
    return evidence


CLAIM = Claim(
    of="mixer/emergent-timescales-outside",
    says="N-DMS, equal steps: the mean time constant of a single-head network is 0.3 steps above that of a multi-head one",
    source="arXiv:2309.12927, section 3.1 (single-head networks slow their units with N, multi-head ones keep them fast)",
    run=lambda seed: slows("single", seed),
    control=lambda seed: slows("multi", seed),
    holds=lambda got, control: got.value >= control.value + 0.3 and got.bytes <= control.bytes,
    tier="long",
)
