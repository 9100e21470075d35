"""The first LARS at a large batch: a trust ratio for each gradient against SGD with momentum at the same bytes, batch 256 and 40 steps.

Each lr is the best of a grid on the seeds 100 and 101, which the verdict does not use: LARS 10 with eta 0.001 (of 1 to 20; 14
diverges), SGD 0.6 (of 0.03 to 1). There LARS led by 0.080 and 0.006 nats: the threshold is that of the later LARS, and may fail.
"""

from __future__ import annotations

from typing import Any

from loci.core.card import load
from loci.lab.claim import Claim
from loci.lab.tasks.training import text, torchs


def lars(model: Any) -> Any:
    """As the paper uses it: biases and norms are neither decayed nor adapted."""
    groups = load("loci.weights.optim.base:split")(model, ["bias", "norm"], adapt=False)
    return load("loci.weights.optim.lamb:LARS2017")(groups, lr=10.0, weight_decay=0.0)


CLAIM = Claim(
    of="optimizer/lars-2017",
    says="at a large batch, held-out loss at least 0.05 nats below SGD with momentum, at its bytes of state",
    source="arXiv:1708.03888, sec. 5 (large batches that SGD with warm-up trains less well)",
    run=lambda seed: text(lars, seed, steps=40, batch=256),
    control=lambda seed: text(torchs("SGD", lr=0.6, momentum=0.9), seed, steps=40, batch=256),
    holds=lambda got, control: got.value <= control.value - 0.05 and got.bytes <= control.bytes,
)
