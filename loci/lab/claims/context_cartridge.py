"""A cartridge by self-study answers about its corpus; one of the same bytes that learned the corpus's wording does not.

Facts in a context (tasks/facts_in_context.py): 16 names of 8 values, told in a corpus of 32 tokens, asked in words that a
corpus never has. The frozen model, two layers of width 64, learned for 400 steps to answer from what stands before. Cartridges
of 8 tokens start as what it keeps of the corpus's first 8, in which 4 facts are told, and learn for 150 steps: by 256 questions
that a template asks and the model answers with a span of the corpus before it, or by the next-token loss of the corpus, which
is the control. 4 corpora; a guess is right in 12.5 %. The card asks for 15 points and 80 % of what the whole corpus gives.

The margins are the proposal made before any run. Sizes are those of the first run, on the seed 100, which the verdict does
not use: there 100 %, the control 28.1, the first 8 tokens untrained 35.9, the whole corpus 100, and 96.9 from vectors drawn at
random in place of the first 8, so that the start matters little in so small a model. What was not chosen: facts of three words
each (a name, an attribute, a value) and of two, which this model did not learn to look up in 600 steps (33 and 27 % right).
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def answered(arm: str, seed: int) -> Evidence:
    """Percent of questions answered right; see tasks/facts_in_context.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.facts_in_context:answered")(arm, seed, p=8, backbone=400, steps=150)
    return evidence


CLAIM = Claim(
    of="context/cartridge",
    says="answers 15 points more often than a cache of equal bytes trained on the corpus's next tokens, and at least 80 %",
    source="arXiv:2506.06266, section 4 (self-study against next-token prediction on the corpus)",
    run=lambda seed: answered("self-study", seed),
    control=lambda seed: answered("wording", seed),
    holds=lambda got, control: got.value >= max(control.value + 15, 80) and got.bytes == control.bytes,
    tier="long",
)
