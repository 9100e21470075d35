"""Is it the momentum? MAN against two trained copies of the next layer: the same weights, the same activations.

Blocks that classify by the mean over places are short-sighted on gratings, and anything between a block and its head helps. The
plain greedy blocks are no fair control: they have no layer ahead. Two trained copies have all that MAN has but the average.

Percent right on the seeds 100 and 101, which the verdict does not use: end to end 52.2, 57.2; MAN 46.5, 36.4; two copies 50.6,
39.7; greedy 38.1, 39.5. With a constant lr, batch norm's averages lag and MAN had 30.5, 45.3, two copies 60.1, 56.2.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from loci.core.card import load
from loci.lab.claim import Claim, Evidence, NotTestable


def gratings(seed: int, branches: Sequence[str]) -> Evidence:
    """Percent right of a residual net in six blocks whose losses look through these branches."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    layers = [load(f"loci.weights.local.man:{branch}") for branch in branches]
    build = load("loci.weights.local.man:MANResNet")
    score, peak = load("loci.lab.tasks.gratings:score")(lambda seed: build(seed=seed, branches=layers), seed, epochs=4)
    return Evidence(score, "% right on ordered pairs of gratings", peak)


CLAIM = Claim(
    of="local-trainer/man",
    says="at least 1 point more right than with two trained copies of the next layer in place of its average, in no more bytes",
    source="arXiv:2407.05623, ablations (the average and the learnable copy beside each alone)",
    run=lambda seed: gratings(seed, ["Average", "Copy"]),
    control=lambda seed: gratings(seed, ["Copy", "Copy"]),
    holds=lambda got, control: got.value >= control.value + 1 and got.bytes <= control.bytes,
    tier="long",
)
