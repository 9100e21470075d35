"""Mamba, whose state cannot amplify errors, ends closer to float32 in half precision than a transformer does.

Both learn one source of text and are fine-tuned on a shifted one, whole and by LoRA, in float32, bfloat16 and
float16; the value is the mean absolute difference of held-out accuracies to float32. The transformer has a fifth more
weights. That the exponent of a Mamba layer is at most 0, and that of an RNN of gain 1.5 above it, is a theorem and is
tested, not claimed. Pilot on the seed 100, which the verdict does not use: 0.047 points against 0.010, both so small
that the order may be chance.
"""

from __future__ import annotations

import importlib.util
from typing import Literal

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def diverged(kind: Literal["mamba", "transformer"], seed: int) -> Evidence:
    """Points of accuracy between float32 and half precision."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.divergence:diverged")(kind, seed)
    return evidence


CLAIM = Claim(
    of="meter/mamba-lyapunov",
    says="fine-tuned in half precision, Mamba's accuracy differs less from float32 than a transformer's",
    source="arXiv:2406.00209, abstract (Mamba deviates less between full and mixed precision, with and without PEFT)",
    run=lambda seed: diverged("mamba", seed),
    control=lambda seed: diverged("transformer", seed),
    holds=lambda got, control: got.value < control.value and got.bytes <= control.bytes,
    tier="long",
)
