"""Do past gradients pay for their bytes? Natural GaLore of rank 4 against GaLore of rank 36: the same bytes to the byte.

The paper compares at equal rank and counts no bytes for the history of 20 gradients. lr 0.06 was the better of 0.03 and 0.06 for both on
seed 100, where GaLore led by 0.17 nats; at equal rank 16 the two tied (2.327 and 2.329, lr 0.03). The claim stands as the paper makes it.
"""

from __future__ import annotations

from loci.lab.claim import Claim
from loci.lab.tasks.training import ours, text

CLAIM = Claim(
    of="optimizer/natural-galore",
    says="held-out loss at least 0.01 nats below GaLore's at equal bytes of state, the history counted",
    source="arXiv:2410.16029, table 1 (better at no additional memory)",
    run=lambda seed: text(ours("natural_galore:NaturalGaLore", rank=4, lr=0.06, update_proj_gap=50), seed),
    control=lambda seed: text(ours("galore:GaLore", rank=36, lr=0.06, update_proj_gap=50), seed),
    holds=lambda got, control: got.value <= control.value - 0.01,
    tier="long",
)
