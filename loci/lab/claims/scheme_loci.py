"""The surroundings of a turn are worth more than a model: the default scheme against BM25 on real conversations."""

from __future__ import annotations

from loci.lab.claim import Claim
from loci.lab.measures import locomo

CLAIM = Claim(
    of="scheme/loci",
    says="R@5 of at least 61 on LoCoMo without a model, and 5 points above BM25 from the same bytes",
    source="the floor measured for peers, without any model",
    run=lambda seed: locomo("loci"),
    control=lambda seed: locomo("bm25"),
    holds=lambda got, control: got.value >= 61 and got.value >= control.value + 5,
    seeds=(0,),
)
