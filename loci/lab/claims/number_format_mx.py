"""A scale for every 32 neighbours, or one for all: what a few outlier channels do to everybody else's precision.

Activations (256, 1024) are normal, four channels 60 times as large, as in language models; they are multiplied by normal
weights. On the seeds 100 and 101, which the verdict does not use, blocks erred 0.16 and 0.17 times as much.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from loci.core.card import load
from loci.lab.claim import Claim, Evidence


def product_error(kind: Any, seed: int) -> Evidence:
    """How far a product with rounded activations is from the exact one, in the Frobenius norm."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((256, 1024))
    x[:, random.choice(1024, 4, replace=False)] *= 60
    w = random.standard_normal((1024, 64))
    error = np.linalg.norm((kind.round(x) - x) @ w) / np.linalg.norm(x @ w)
    return Evidence(round(float(error), 5), "relative error of a matrix product", kind.nbytes(x.shape))


CLAIM = Claim(
    of="number-format/mx",
    says="with outlier channels int8 in blocks errs at most a quarter as much as int8 under one scale, for at most 4 % more bytes",
    source="OCP Microscaling Formats (MX) v1.0; Rouhani et al., arXiv:2310.10537, sec. 2",
    run=lambda seed: product_error(load("loci.budget.precision.mx:MX")("int8"), seed),
    control=lambda seed: product_error(load("loci.budget.precision.integer:IntegerFormat")(8), seed),
    holds=lambda got, control: got.value <= 0.25 * control.value and got.bytes <= 1.04 * control.bytes,
)
