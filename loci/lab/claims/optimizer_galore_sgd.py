"""Low-rank momentum, not low-rank weights: GaLore over SGD against factorised weights of the same rank, byte for byte.

A momentum of (m, r) with a projector of (n, r) is as large as the momenta of two factors. lr and scale are the best of a grid
on the seeds 100 and 101, which the verdict does not use: GaLore 0.6 with scale 4 (0.1 to 10; 0.25 to 8), factorised 1.0 (0.1 to
3). There GaLore led by 0.014 nats and lost by 0.027: the claim is registered as GaLore's own makes it.
"""

from __future__ import annotations

from loci.lab.claim import Claim
from loci.lab.tasks.training import ours, text, torchs

CLAIM = Claim(
    of="optimizer/galore-sgd",
    says="held-out loss at least 0.03 nats below SGD with momentum on factorised weights of the same rank, at its bytes of state",
    source="arXiv:2403.03507, sec. 3 and 4 (any optimizer in the subspace) and table 2",
    run=lambda seed: text(ours("galore:GaLoreSGD", rank=16, lr=0.6, scale=4.0, update_proj_gap=50), seed),
    control=lambda seed: text(torchs("SGD", lr=1.0, momentum=0.9), seed, rank=16),
    holds=lambda got, control: got.value <= control.value - 0.03 and got.bytes <= control.bytes,
)
