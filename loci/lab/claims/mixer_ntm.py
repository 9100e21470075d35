"""Who has learned how to copy, and has slots, copies longer texts than any it learned: 1 to 5 symbols, then 10.

A neural Turing machine of 32 cells and 16 slots of 8, against an LSTM of 116 cells, which keeps as many bytes and has seven times
as many weights. 1,200 steps on 32 texts at a learning rate of 0.01. On the seed 100, which the verdict does not use, 99.3 %
were right (81.5 after 800 steps), of the LSTM 37.5; chance is 12.5.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def copied(entry: str, seed: int, *, lr: float, **options: Any) -> Evidence:
    """Percent of symbols copied; see tasks/longer_copying.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    lesson = load("loci.lab.tasks.recalling:Lesson")(steps=1200, lr=lr, batch=32)
    evidence: Evidence = load("loci.lab.tasks.longer_copying:copied")(entry, seed, D=16, options=options, lesson=lesson)
    return evidence


CLAIM = Claim(
    of="mixer/ntm",
    says="copies twice as many symbols as it ever learned, at least 80 % right, and 25 points more than an LSTM of equal bytes",
    source="arXiv:1410.5401, section 4.1 (copies beyond the trained length, where LSTM does not)",
    run=lambda seed: copied("loci.state.ntm:NTM", seed, lr=0.01, n=32, N=16, M=8),
    control=lambda seed: copied("loci.state.lstm:LSTM", seed, lr=0.01, n=116),
    holds=lambda got, control: got.value >= 80 and got.value >= control.value + 25 and got.bytes <= control.bytes,
    tier="long",
)
