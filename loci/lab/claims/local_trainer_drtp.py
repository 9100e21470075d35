"""DRTP against the same network with untrained hidden layers: does a signal that ignores the layer teach it anything?

lr is the best of a grid up to 0.5 on the seeds 100 and 101, which the verdict does not use: DRTP 0.2, frozen 0.5.
There DRTP was 2.3 and 3.7 points behind backpropagation, frozen layers 21 and 24.
"""

from __future__ import annotations

from loci.lab.claim import Claim
from loci.lab.claims.local_trainer_tpsgd import clusters

CLAIM = Claim(
    of="local-trainer/drtp",
    says="at least 10 points more accurate than untrained hidden layers, two of 32 units",
    source="arXiv:1909.01311 (DRTP against shallow learning)",
    run=lambda seed: clusters("tpsgd:DRTP", seed, lr=0.2),
    control=lambda seed: clusters("tpsgd:TPSGD", seed, lr=0.5, frozen=True),
    holds=lambda got, control: got.value <= control.value - 10,
)
