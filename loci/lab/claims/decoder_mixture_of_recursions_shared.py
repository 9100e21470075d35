"""Rounds that hear the keys of the first read as well as rounds with keys of their own, with a cache of one pass.

Words said twice and brackets that close in order (tasks/brackets.py), with the sizes and the 6 * 10^10 operations forward of
decoder_mixture_of_recursions.py; about 230 steps of 32 texts. The control is that mixture, which keeps keys round by round: the
same weights, routes by the same rule, as many steps (operations are counted as if later rounds computed keys, so sharing
spends fewer). The shared layer keeps 1 entry a token in place of 2, the ends 2 more: 3 W of 4 W entries, 0.745 of the bytes with
the counts.

The control and the direction of the margin were chosen after one short run on the seed 100, which the verdict does not use:
0.357 nats an answer, the control 0.363; tokens from which a bracket is closed went 2.42 rounds deep on average, those from which a word is
copied 1.20. Whether three rounds are worth having is another question, and the answer there was no: the same three layers gone
through once, with a gate and alpha = 1, at equal operations and the bytes of the shared cache, had 0.341 (1.312 without a
gate). Not measured: caching by rounds with its window cut to equal bytes, where a window of 25 still holds all that these
texts ask for; larger models.
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable

SIZES = {"D": 48, "heads": 2, "hidden": 128, "layers": 1, "recursions": 3}


def answered(entry: str, seed: int) -> Evidence:
    """Nats an answer; see tasks/brackets.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.brackets:answered")(
        f"loci.state.decoder.{entry}", seed, budget=60.0, parts=2, lr=0.005, options=SIZES
    )
    return evidence


CLAIM = Claim(
    of="decoder/mixture-of-recursions-shared",
    says="at most 0.01 nats an answer above the mixture that keeps keys round by round, at 0.75 of its bytes",
    source="arXiv:2507.10524, section 2.2 (recursive KV sharing: less memory at comparable loss)",
    run=lambda seed: answered("shared_recursions:SharedRecursions", seed),
    control=lambda seed: answered("mixture_of_recursions:MixtureOfRecursions", seed),
    holds=lambda got, control: got.value <= control.value + 0.01 and got.bytes <= 0.75 * control.bytes,
    tier="long",
)
