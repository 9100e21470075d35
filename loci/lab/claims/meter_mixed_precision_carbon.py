"""Honest statistics of energy: tests over runs err as often as they say, tests over samples find what is not there.

Two thousand simulated studies a seed, each of two equal modes with five runs each by turns, sd 5 W between runs, every
run read by the meter. Control: the same runs, with their samples taken for independent measurements. 3.5 and 6.5 % are
5 % give or take three standard errors of 2,000 studies. Pilot on the seeds 100 and 101, which the verdict does not use,
1,000 studies each: 4.6 and 5.4 % by run, 73 % by sample; a true gap of 9 W was found in 64 and 65 %.
"""

from __future__ import annotations

from loci.core.card import load
from loci.lab.claim import Claim, Evidence


def wrong(seed: int, *, unit: str) -> Evidence:
    """Percent of studies of equal modes that find a difference."""
    evidence: Evidence = load("loci.lab.tasks.carbon:found")(seed, gap=0.0, unit=unit)
    return evidence


CLAIM = Claim(
    of="meter/mixed-precision-carbon",
    says="with the run as the unit, 3.5 to 6.5 % of studies of two equal modes find a difference at the 5 % level",
    source="arXiv:2409.07853 (ANOVA and t test find no significant difference in watts)",
    run=lambda seed: wrong(seed, unit="run"),
    control=lambda seed: wrong(seed, unit="sample"),
    holds=lambda got, control: 3.5 <= got.value <= 6.5 and got.bytes <= control.bytes,
)
