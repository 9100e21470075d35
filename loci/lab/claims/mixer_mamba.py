"""Selective copying wants a system that chooses by what it reads: Mamba against the same block around S5, at equal state.

Four of eight symbols at random places among 28 blanks, said again in order, through two layers of width 16 after 600 updates
at a learning rate of 0.01. S5's P = 256 makes its state as large as Mamba's 32 channels of 8 states, and gives it
more weights. On the seeds 100 and 101, which the verdict does not use, 83 and 96 % were copied against 58 and 79; chance is 12.5. The paper has
4,096 moments and 16 symbols, where what does not select fails altogether; so short a text leaves it a good part.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def copied(entry: str, seed: int, **options: Any) -> Evidence:
    """Percent of symbols copied; see tasks/copying.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.copying:copied")(entry, seed, D=16, options=options, lr=0.01, steps=600)
    return evidence


CLAIM = Claim(
    of="mixer/mamba",
    says="selective copying: at least 10 points more symbols than a time-invariant system (S5) in the same block and bytes",
    source="arXiv:2312.00752, sec. 4.1.1, table 1 (selective copying)",
    run=lambda seed: copied("loci.state.mamba:Mamba", seed, N=8),
    control=lambda seed: copied("loci.lab.tasks.copying:GatedS5", seed, P=256),
    holds=lambda got, control: got.value >= control.value + 10 and got.bytes <= control.bytes,
    tier="long",
)
