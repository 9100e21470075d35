"""A random subspace is enough to learn step sizes: APOLLO against GaLore, which projects by SVD, at the same rank.

Each lr is the best of a grid on the seeds 100 and 101, which the verdict does not use (APOLLO 0.03; GaLore 0.03, 0.06). There APOLLO
led by 0.057 and 0.046 nats.
"""

from __future__ import annotations

from loci.lab.claim import Claim
from loci.lab.tasks.training import ours, text

CLAIM = Claim(
    of="optimizer/apollo",
    says="held-out loss at least 0.02 nats below GaLore's at the same rank, with fewer bytes of state",
    source="arXiv:2412.05270, table 2",
    run=lambda seed: text(ours("apollo:APOLLO", rank=16, lr=0.03), seed),
    control=lambda seed: text(ours("galore:GaLore", rank=16, lr=0.06, update_proj_gap=50), seed),
    holds=lambda got, control: got.value <= control.value - 0.02 and got.bytes <= control.bytes,
)
