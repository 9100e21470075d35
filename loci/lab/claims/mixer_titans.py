"""A memory that forgets can tell new from old: 12 keys whose values change once, and the newest is asked for.

The whole text of 36 tokens is one chunk, so that all gradients are those at its start and no write sees what was written: what
lets the newer value win is alpha, and momentum does the contrary, since it goes on adding the older one. The control is the
same memory with alpha = 1. One head of 16 channels, 400 steps on 32 texts at a learning rate of 0.01. On the seed 100, which
the verdict does not use, 84.1 % were right, without forgetting 58.4; who takes either of the two values is right in 56.
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def recalled(entry: str, seed: int) -> Evidence:
    """Percent of values recalled; see tasks/association.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.association:trained")(
        entry, seed, options={"heads": 1, "head": 16, "conv": 1, "chunk": 64}, steps=400, pairs=12, d=16, cosine=0.0, rounds=2
    )  # fmt: skip
    return evidence


CLAIM = Claim(
    of="mixer/titans",
    says="12 keys given anew with other values: the newer is recalled 10 points oftener than without forgetting, at equal bytes",
    source="arXiv:2501.00663, section 3.1 (forgetting mechanism) and the ablation of its parts (without weight decay it is worse)",
    run=lambda seed: recalled("loci.state.titans:Titans", seed),
    control=lambda seed: recalled("loci.lab.tasks.ablated:UnforgettingTitans", seed),
    holds=lambda got, control: got.value >= control.value + 10 and got.bytes <= control.bytes,
    tier="long",
)
