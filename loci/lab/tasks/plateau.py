"""The plateau of meta-training: the loss stays at that of guessing for long, then falls at once. How long, and what helps.

    left = first step with loss < share * ln(classes)               of which guessing is ln(classes)

On the plateau a model holds what is the same in all tasks, and in-context learning needs what is not. What shortens it, all of
it in `Course` of meta_learning.py: a label permutation that a share of every batch has in common (`bias`); few permutations at
first, then more (`widening`, whose schedule is `ways`); larger batches; an epsilon of Adam below the size of its gradients,
which vanish there (`eps`); several base sets in turn. A biased or narrow batch is easier, so its loss says nothing of the
plateau: measure on unseen tasks that are neither, as `watched` does.

Kirsch, Harrison, Sohl-Dickstein, Metz, "General-Purpose In-Context Learning by Meta-Learning Transformers", arXiv:2212.04458.
Differs: the paper speaks of a curriculum from few to many permutations; that their number grows as a power is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def plateau(losses: Sequence[float], classes: int, *, window: int = 20, share: float = 0.9) -> int:
    """Steps until the mean loss of a window falls below a share of that of guessing; all of them if it never does.

    >>> plateau([1.4, 1.4, 1.3, 0.9, 0.4], 4, window=1)
    4
    """
    for end in range(window, len(losses) + 1):
        if sum(losses[end - window : end]) / window < share * math.log(classes):
            return end
    return len(losses)


def ways(step: int, widening: int, classes: int) -> int | None:
    """How many label permutations tasks have between them at a step: 1 at first, classes! by step `widening`, then no limit.

    >>> [ways(step, 4, 4) for step in range(6)]
    [1, 2, 5, 11, None, None]
    """
    return round(math.factorial(classes) ** (step / widening)) if step < widening else None
