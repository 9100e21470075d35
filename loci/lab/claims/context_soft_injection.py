"""Which heads a task is mixed into matters: alpha tuned on eight labels answers more than the alpha it starts from.

Mappings in a prompt (tasks/task_mappings.py): 8 permutations of 16 words; the frozen model, three layers of four heads and
width 64, learned them all for 450 steps, and to find out from pairs which is meant. For each permutation the images of 8 words
are known: 50 prompts of them give the embedding, which both arms have, and tuning them one by one for 150 steps gives alpha.
Asked are the other 8 words, without any pair. The control keeps alpha = 1/2, at which tuning starts, in equal bytes.

The margin of 3 points is the card's over a hard selection of heads, proposed before any run. Alpha = 1 everywhere, which the
card has as the arm to beat, is the weaker control: it takes the asked word itself away. On the seed 100, which the verdict
does not use: tuned 81.3 %, alpha = 1/2 76.6, alpha = 1 3.1, no injection 28.1, eight pairs in the prompt 100. So the paper's
headline, better than pairs in the prompt, was not seen in so small a model: what it bought is 816 bytes in place of 49,152 of
keys and values. What was not chosen, all on the seed 100: 16 permutations, four layers and all words asked (73.4, 67.2, 6.3,
17.2, and 97.7 behind ten pairs); three layers (64.1, 54.7, 6.3, 15.6, 98.4); prompts of at most eight pairs and 400 steps, after
which the model does not yet read pairs (20.3, 26.6, 10.2, 18.8, 40.6).
"""

from __future__ import annotations

import importlib.util

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def answered(arm: str, seed: int) -> Evidence:
    """Percent of unshown words answered right; see tasks/task_mappings.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.task_mappings:answered")(arm, seed, backbone=450, steps=150)
    return evidence


CLAIM = Claim(
    of="context/soft-injection",
    says="tuned mixing weights answer 3 points more of the words never shown than alpha = 1/2 in every head, at equal bytes",
    source="arXiv:2507.20906, section 3 (soft head selection)",
    run=lambda seed: answered("tuned", seed),
    control=lambda seed: answered("half", seed),
    holds=lambda got, control: got.value >= control.value + 3 and got.bytes == control.bytes,
    tier="long",
)
