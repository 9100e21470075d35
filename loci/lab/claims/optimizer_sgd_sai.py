"""Is it the signal-to-noise ratio, or the size of the tensor? SGD-SaI against momentum with lr_i = lr * sqrt(d_i).

The ratio of a gradient of mean zero is sqrt(d), so the plain size rule is the control that the ratio must beat. lr 0.1 is the best of
0.003 to 0.2 for both on the seeds 100 and 101, where they tied to 0.0005 nats (and SGD with one lr for all, 1.0, led by 0.05).
"""

from __future__ import annotations

from typing import Any

from loci.core.card import load
from loci.lab.claim import Claim
from loci.lab.tasks.training import ours, text


def by_size(model: Any) -> Any:
    """SGD with the same running mean, its step on each tensor times the root of the tensor's size."""
    groups = [{"params": [param], "lr": 0.1 * param.numel() ** 0.5} for param in model.parameters()]
    return load("torch.optim:SGD")(groups, lr=0.1, momentum=0.9, dampening=0.9)


CLAIM = Claim(
    of="optimizer/sgd-sai",
    says="held-out loss at least 0.01 nats below momentum scaled by the root of the tensor's size",
    source="arXiv:2412.11768, sec. 3 (the ratio guides the step)",
    run=lambda seed: text(ours("sgd_sai:SGDSaI", lr=0.1, weight_decay=0.0), seed),
    control=lambda seed: text(by_size, seed),
    holds=lambda got, control: got.value <= control.value - 0.01,
    tier="long",
)
