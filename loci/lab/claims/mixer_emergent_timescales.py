"""One network learns longer and longer memories; whether it keeps the old ones is decided by its curriculum.

N-parity with 64 units, 4,000 steps of 128 sequences, the next N when 98 % are right. Multi-head adds it to those before,
single-head puts it in their place; network, steps and optimiser are the same, and every N has its own head, so that what is
forgotten is forgotten by the units. The paper has 500 units, batches of 256 and up to 600,000 steps. On the seeds 100 and
101, which the verdict does not use, the multi-head network reached N = 7 and knew all 6 at the end; the single-head one
reached N = 5 and knew none, since it was on its way to 6.
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def knows(curriculum: str, seed: int) -> Evidence:
    """How many N are known at the end; see tasks/curriculum.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.curriculum:knows")(
        "loci.state.timescales:EmergentTimescales", seed, task="parity", curriculum=curriculum, n=64, steps=4000
    )
    return evidence


CLAIM = Claim(
    of="mixer/emergent-timescales",
    says="N-parity, equal steps: multi-head knows at least 4 of the N at the end, and at least 3 more than single-head",
    source="arXiv:2309.12927, abstract and section 3 (multi-head reaches larger N faster; single-head forgets)",
    run=lambda seed: knows("multi", seed),
    control=lambda seed: knows("single", seed),
    holds=lambda got, control: got.value >= 4 and got.value >= control.value + 3 and got.bytes <= control.bytes,
    tier="long",
)
