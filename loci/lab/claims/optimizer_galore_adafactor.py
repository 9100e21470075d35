"""A subspace hardly slows Adafactor down: how far GaLore over it stays behind the same rule on whole gradients.

The control is the gap of factorised weights of the same rank, trained by the same rule. Each lr is the best of a grid on the
seeds 100 and 101, which the verdict does not use: GaLore 0.05 (of 0.003 to 0.3), whole 0.01 (of 0.001 to 0.03), factorised 0.01
(of 0.001 to 0.03). There the gaps were 0.097 and 0.106 nats, of the control 0.209 and 0.158; 0.15 is the bound of the card for
AdamW. Not asked, since it is false: without a first moment Adafactor on whole gradients keeps fewer bytes than the projector.
"""

from __future__ import annotations

from functools import cache

from loci.lab.claim import Claim, Evidence
from loci.lab.tasks.training import ours, text

RULE = "galore:GaLoreAdafactor"  # without a rank it is Adafactor


@cache
def whole(seed: int) -> float:
    """Held-out loss of Adafactor on whole gradients."""
    return text(ours(RULE, lr=0.01), seed).value


def behind(end: Evidence, seed: int) -> Evidence:
    """A loss as its distance from Adafactor's."""
    return Evidence(round(end.value - whole(seed), 4), "held-out nats above Adafactor on whole gradients", end.bytes)


CLAIM = Claim(
    of="optimizer/galore-adafactor",
    says="at most 0.15 nats above Adafactor on whole gradients, and 0.03 closer to it than factorised weights of the same rank",
    source="arXiv:2403.03507, fig. 3 (other optimizers converge as before) and table 2",
    run=lambda seed: behind(text(ours(RULE, rank=16, lr=0.05, update_proj_gap=50), seed), seed),
    control=lambda seed: behind(text(ours(RULE, lr=0.01), seed, rank=16), seed),
    holds=lambda got, control: got.value <= 0.15 and got.value <= control.value - 0.03,
    tier="long",
)
