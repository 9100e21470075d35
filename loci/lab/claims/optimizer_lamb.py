"""Less to tune at a large batch: how far the loss moves when lr is off, LAMB against AdamW, batch 256 and 40 steps.

Both are run at lr / sqrt(3), lr and lr * sqrt(3) around their optimum on seed 100, which the verdict does not use: LAMB 0.06 (of 0.01 to
0.3), AdamW 0.022 (of 0.003 to 0.1). There the best losses were 2.492 and 2.510, and LAMB's was not the flatter: the claim is registered
as the card proposed it before the pilot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loci.core.card import load
from loci.lab.claim import Claim, Evidence
from loci.lab.tasks.training import text, torchs


def lamb(lr: float) -> Callable[[Any], Any]:
    """LAMB as its paper uses it: biases and norms are neither decayed nor adapted."""

    def build(model: Any) -> Any:
        groups = load("loci.weights.optim.base:split")(model, ["bias", "norm"], weight_decay=0.0, adapt=False)
        return load("loci.weights.optim.lamb:LAMB")(groups, lr=lr, weight_decay=0.0)

    return build


def spread(build: Callable[[float], Callable[[Any], Any]], lr: float, seed: int) -> Evidence:
    """Largest less smallest loss over a threefold range of lr around `lr`."""
    runs = [text(build(lr * 3.0**power), seed, steps=40, batch=256) for power in (-0.5, 0.0, 0.5)]
    values = [run.value for run in runs]
    return Evidence(
        round(max(values) - min(values), 4), "nats between best and worst lr of a threefold range", runs[0].bytes
    )


CLAIM = Claim(
    of="optimizer/lamb",
    says="over a threefold range of lr the loss moves at most half as far as AdamW's",
    source="arXiv:1904.00962, sec. 4 (little tuning when the batch grows)",
    run=lambda seed: spread(lamb, 0.06, seed),
    control=lambda seed: spread(lambda lr: torchs("AdamW", lr=lr, weight_decay=0.0), 0.022, seed),
    holds=lambda got, control: got.value <= control.value / 2,
    tier="long",
)
