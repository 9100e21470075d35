"""Do tokens know how deep they should go? Depths that they choose, beside as many of each dealt out by chance.

Words said twice and brackets that close in order (tasks/brackets.py), with the sizes and the 6 * 10^10 operations forward of
decoder_mixture_of_recursions.py; about 230 steps of 32 texts. The control (tasks/random_depths.py) has as many weights, steps
and bytes, the same gates and losses, and as many tokens at each depth as the router of the same seed ended with; which tokens
is drawn anew each time. A router that only spreads tokens evenly, as its balance asks for, is no better than that.

The margin of 0.01 nats is the one of decoder_mixture_of_recursions.py, proposed before any run. One short run on the seed 100,
which the verdict does not use, spoke against the claim: 0.393 nats an answer by choice, 0.364 by chance, 0.360 by chance without
gates. Tokens chose 29, 40 and 32 % for one, two and three rounds, but not the hard ones for more of them: 1.80 on average
where a bracket is to be closed, 1.89 where a word is copied. Nothing was changed after it. Not measured: other weights of the
balance, longer training, larger models.
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def answered(task: str, seed: int) -> Evidence:
    """Nats an answer; see tasks/random_depths.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load(f"loci.lab.tasks.random_depths:{task}")(seed)
    return evidence


CLAIM = Claim(
    of="decoder/mixture-of-recursions-token-choice",
    says="depths that tokens choose give 0.01 nats an answer less than the same depths dealt out by chance",
    source="arXiv:2507.10524, section 2.2 (routers learn which tokens need depth)",
    run=lambda seed: answered("chosen", seed),
    control=lambda seed: answered("drawn", seed),
    holds=lambda got, control: got.value <= control.value - 0.01 and got.bytes <= control.bytes,
    tier="long",
)
