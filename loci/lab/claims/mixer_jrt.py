"""Reading a prompt without a causal mask: which element do two sets share, when the small one may come second?

A causal reader has to keep the set that comes first, be it the large one; who reads both ways may keep either. Two layers of
width 32, state and number of parameters equal: the causal twin has a wider feed-forward net in place of the encoder's
projections. Both learn both orders for 500 steps; the value is that of the worse order. The paper trains 4 layers for 48
epochs on sets of up to 256 of 2,048 elements; here they are of 4 and 16 of 32.
Sizes were chosen on the seeds 100 and 101, which the verdict does not use. With 500 steps on 101 it was 62.7 against 24.7 %,
neither of them done learning. What was not chosen: sets of 4 and 32 of 64, where with 8 or 12 features a head nothing was
learned in 400 steps; one layer, which cannot choose by what it compares, where causal reading was the better (70.5 against
96.6 % with 4 features, 96.9 against 99.8 % with 8, after 800 steps).
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable

D, HEADS, FEATURE, HIDDEN = 32, 2, 4, 64
SPARED = (HEADS * FEATURE + D) // 2  # hidden units, 2 * D weights each, that weigh as much as k_e and v_e


def found(entry: str, seed: int, *, hidden: int) -> Evidence:
    """Percent found; see tasks/disjointness.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.disjointness:found")(
        entry, seed, D=D, options={"heads": HEADS, "feature": FEATURE}, hidden=hidden, lr=0.01, steps=500
    )
    return evidence


CLAIM = Claim(
    of="mixer/jrt",
    says="finds what sets of 4 and 16 share, in the worse order, 10 points more often than causal linear attention of equal "
    "state and parameters",
    source="arXiv:2407.05483 (non-causal models find what sets share in any order)",
    run=lambda seed: found("loci.state.jrt_rnn:JRT", seed, hidden=HIDDEN),
    control=lambda seed: found("loci.state.linear_attention:LinearAttention", seed, hidden=HIDDEN + SPARED),
    holds=lambda got, control: got.value >= control.value + 10 and got.bytes == control.bytes,
    tier="long",
)
