"""Two vectors a matrix do more than a whole momentum: APOLLO-Mini against SGD with momentum.

Each lr is the best of a grid on the seeds 100 and 101, which the verdict does not use: Mini 0.03, 0.06; SGD 0.1, 0.3, 1, 3 (3 diverges).
There Mini led by 0.056 and 0.048 nats.
"""

from __future__ import annotations

from loci.lab.claim import Claim
from loci.lab.tasks.training import ours, text, torchs

CLAIM = Claim(
    of="optimizer/apollo-mini",
    says="held-out loss at least 0.02 nats below SGD with momentum, with a tenth of its bytes of state",
    source="arXiv:2412.05270, abstract and table 2 (SGD-like memory)",
    run=lambda seed: text(ours("apollo:APOLLOMini", rank=1, lr=0.06), seed),
    control=lambda seed: text(torchs("SGD", lr=1.0, momentum=0.9), seed),
    holds=lambda got, control: got.value <= control.value - 0.02 and got.bytes <= control.bytes / 10,
)
