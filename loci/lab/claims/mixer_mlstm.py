"""A matrix memory holds more pairs than a vector of as many bytes: eight of them, recalled in another order.

Both read the pairs through one layer of width 32 and learn for 400 steps, each at the better one of the learning rates
0.003 and 0.01 on seed 100, which the verdict does not use. There mLSTM had 28 and 84 % right, LSTM 8 and 5; chance is 3.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def recalled(entry: str, seed: int, *, lr: float, **options: Any) -> Evidence:
    """Percent of values recalled; see tasks/pairs.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.pairs:recalled")(entry, seed, D=32, options=options, lr=lr, steps=400)
    return evidence


CLAIM = Claim(
    of="mixer/mlstm",
    says="recalls values by their keys at least 40 points more often than an LSTM of no fewer bytes of state",
    source="arXiv:2405.04517, sec. 4.1 (multi-query associative recall: memory capacity)",
    run=lambda seed: recalled("loci.state.mlstm:MLSTM", seed, lr=0.01, heads=1, inner=16),
    control=lambda seed: recalled("loci.state.lstm:LSTM", seed, lr=0.003, n=161),
    holds=lambda got, control: got.value >= control.value + 40 and got.bytes <= control.bytes,
    tier="long",
)
