"""As a multi-head network learns longer memories, it slows down as a network: its timescale grows with N.

N-DMS with 64 units, 3,000 steps of 128 sequences. Of every network that knew its N the timescale is read under fair bits;
the value is Spearman's correlation with N. The control is the same networks, their connections shuffled among the pairs of
different units, so that strengths and time constants are as before and the structure is gone. The threshold, 0.5, was
set before the first run. The pilot did not change it, although it promises little: on the seeds 100 and 101, which the
verdict does not use, the correlations were 0.08 and -0.15, and -0.15 shuffled on 100. These networks remember up to 10 bits
with units whose own correlations fade within 1.5 steps, as those of a delay line do. N-parity, tried on both with an earlier
fit, gave as little.
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def lengthens(seed: int, *, shuffle: bool) -> Evidence:
    """The rank correlation of N and the network's timescale; see tasks/curriculum.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.curriculum:lengthens")(
        "loci.state.timescales:EmergentTimescales", seed, task="dms", n=64, steps=3000, shuffle=shuffle
    )
    return evidence


CLAIM = Claim(
    of="meter/network-timescale",
    says="multi-head N-DMS: network timescale and N have a rank correlation above 0.5, with shuffled connections at most 0.5",
    source="arXiv:2309.12927, section 3.2 (multi-head networks develop long timescales through recurrent connections)",
    run=lambda seed: lengthens(seed, shuffle=False),
    control=lambda seed: lengthens(seed, shuffle=True),
    holds=lambda got, control: got.value > 0.5 and control.value <= 0.5 and got.bytes <= control.bytes,
    tier="long",
)
