"""A layer that looks back at every moment recalls 32 pairs; a gated convolution of no fewer weights recalls none.

One layer of width 32: attention over the whole text, 4,096 weights, or the gated convolution of `tasks/copying.py`, whose
filters are short taps and a system of S5, the same for every text, 4,312 weights. NOT at equal bytes, which is the point:
attention keeps every key and value, 16,136 bytes, where the convolution keeps 448, however long the text is. A pair is one
token, so that nothing has to be bound first. 300 steps on 32 texts at a learning rate of 0.01. On the seed 100, which the
verdict does not use, attention had 99.6 % right, the convolution 12.6; chance is 12.5. What was not chosen: a key and its
value as two tokens with a short convolution below (3.1 to 8.2 % of 16 pairs after 500 steps: it had not begun to learn).
"""

from __future__ import annotations

import importlib.util
from typing import Any

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def recalled(entry: str, seed: int, **options: Any) -> Evidence:
    """Percent of values recalled; see tasks/association.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.association:trained")(
        entry, seed, options=options, steps=300, pairs=32, d=16, cosine=0.0
    )
    return evidence


CLAIM = Claim(
    of="mixer/attention",
    says="32 pairs at width 32: at least 90 % recalled, and 50 points more than by a gated convolution of no fewer weights",
    source="arXiv:2312.04927, abstract (recall is what gated convolutions lack beside attention)",
    run=lambda seed: recalled("loci.state.attention:Attention", seed, heads=1, window=64),
    control=lambda seed: recalled("loci.lab.tasks.copying:GatedS5", seed, P=16, expand=1),
    holds=lambda got, control: got.value >= 90 and got.value >= control.value + 50,
    tier="long",
)
