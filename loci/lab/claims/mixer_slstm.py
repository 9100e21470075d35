"""State tracking: a memory that is fed back can be turned by its input, one that is only scaled and added to cannot.

Learned on texts of at most 16 bits, asked in the second half of texts of 64. On the seeds 100 to 102, which the verdict
does not use, sLSTM had 100 % right; on 100 and 101 an mLSTM of more bytes 49 to 51 %, at learning rates of 0.003 and 0.01.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def extrapolated(entry: str, seed: int, **options: Any) -> Evidence:
    """Percent right beyond the trained length; see tasks/parity.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.parity:extrapolated")(
        entry, seed, D=16, options=options, lr=0.01, steps=300
    )
    return evidence


CLAIM = Claim(
    of="mixer/slstm",
    says="parity at four times the trained length: at least 95 % right, where an mLSTM of no fewer bytes has at most 60",
    source="arXiv:2405.04517, sec. 4.1 (formal languages: only memory mixing tracks state)",
    run=lambda seed: extrapolated("loci.state.slstm:SLSTM", seed, heads=2),
    control=lambda seed: extrapolated("loci.state.mlstm:MLSTM", seed, heads=2, inner=16),
    holds=lambda got, control: got.value >= 95 and control.value <= 60 and got.bytes <= control.bytes,
)
