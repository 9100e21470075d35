"""A short gated convolution compares neighbours, for which linear attention is too blunt: pairs of two tokens, recalled.

A key is known from its value by what stands beside it. Two layers of width 32: the first is a gated convolution over three
moments, or linear attention as the second is, which takes no fewer weights and more bytes. 4 pairs, then the keys in another
order; 400 steps on 64 texts at a learning rate of 0.01. On the seed 100, which the verdict does not use, all were right, and 33.5 %
of two layers of linear attention; who takes any of the four values is right in a quarter. With another model and a head
that is tied to the symbols 35.1 % were right after 500 steps on 1 to 4 pairs: that model was not chosen.
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable

D = 32
SECOND = ("loci.state.linear_attention:LinearAttention", {"heads": 2, "feature": 10})
MIXERS = [("loci.state.short_conv:BaseConv", {"expand": 2}), SECOND]
CONTROL = [SECOND, SECOND]


def recalled(parts: list[tuple[str, dict[str, int]]], seed: int) -> Evidence:
    """Percent of values recalled; see tasks/pairs.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.pairs:recalled")(
        "loci.lab.tasks.recalling:layered",
        seed,
        D=D,
        options={"parts": parts},
        lr=0.01,
        steps=400,
        pairs=4,
        symbols=32,
    )
    return evidence


CLAIM = Claim(
    of="mixer/base-conv",
    says="4 pairs: at least 90 % recalled below linear attention, and 30 points more than by two layers of it, of no fewer weights",
    source="arXiv:2402.18668 (short gated convolutions beside linear attention, which is blunt on local shifts and comparisons)",
    run=lambda seed: recalled(MIXERS, seed),
    control=lambda seed: recalled(CONTROL, seed),
    holds=lambda got, control: got.value >= 90 and got.value >= control.value + 30 and got.bytes <= control.bytes,
    tier="long",
)
