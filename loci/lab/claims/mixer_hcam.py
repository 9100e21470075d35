"""Which move came j-th: a memory of whole chunks can say, one of their summaries cannot, and longer programmes are no harder.

Ballet without a stage (tasks/ballet.py): one block of width 32, 16 chunks of 24 moments of which 2 are read, learned on
episodes of 4 events in 800 steps of 64, and asked about 4, 8 and 16; the least of the three counts. The control has the
same state, weights and choice of chunks, and reads the summaries; more of them would not help it, for all events fit.

On seeds 100 and 101, which the verdict does not use: 97.9 and 98.5 % at the worst number of events, the control 19.5 and
19.1, chance is 12.5. After 600 steps, at 4, 8 and 16 events: HCAM 98.1, 98.5, 98.3 and 89.3, 86.7, 84.2; all chunks read
(k = 16) 97.3, 97.1, 94.9; the two newest chunks alone, a window of as many moments as HCAM reads, 16.2, 14.9, 12.8 and
13.2, 11.0, 11.3; an LSTM of 64 cells 12.5, 12.6, 11.4 and 13.1, 11.6, 12.8. The last two had not begun to learn by then.
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def recalled(entry: str, seed: int) -> Evidence:
    """Percent of moves recalled, the least over 4, 8 and 16 events."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    options = {"M": 16, "C": 24, "k": 2, "heads": 2}
    evidence: Evidence = load("loci.lab.tasks.ballet:answered")(
        entry, seed, D=32, options=options, lr=0.003, steps=800, n=4, events=(4, 8, 16)
    )
    return evidence


CLAIM = Claim(
    of="mixer/hcam",
    says="learns on 4 events and recalls at least 80 % of moves of 4, 8 and 16, 25 points above summaries alone",
    source="arXiv:2105.14039, the Ballet experiments (dances are recalled in detail, and in longer episodes than trained)",
    run=lambda seed: recalled("loci.state.hcam:HCAM", seed),
    control=lambda seed: recalled("loci.lab.tasks.ballet:SummaryOnly", seed),
    holds=lambda got, control: got.value >= 80 and got.value >= control.value + 25 and got.bytes <= control.bytes,
    tier="long",
)
