"""Resets inside the scan: a memory that starts afresh at each episode, against the same one that only sees the beginning.

Both are shown where episodes begin; one is also reset there. Learned in 150 updates, asked in rollouts four times as
long. While learning on the seeds 100 and 101, which the verdict does not use, the last batches were 100 % right with
resets and 87 and 62 % without, at a learning rate of 0.01 (30 % at 0.003).
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def played(seed: int, *, resets: bool) -> Evidence:
    """Percent right; see tasks/rollouts.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.rollouts:repeat_first")("loci.state.s5_rl:S5RL", seed, resets=resets)
    return evidence


CLAIM = Claim(
    of="mixer/s5-rl",
    says="RepeatFirst over packed episodes: at least 90 % right with resets in the scan, and 10 more than without",
    source="arXiv:2303.03982, sec. 3.1 and 4.2 (resets let S5 train over rollouts of many episodes)",
    run=lambda seed: played(seed, resets=True),
    control=lambda seed: played(seed, resets=False),
    holds=lambda got, control: got.value >= 90 and got.value >= control.value + 10,
)
