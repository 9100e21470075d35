"""Two tasks of the first recurrent networks: to predict a stream by its structure, and to say a series by its plan.

Exclusive or in time: bits come in threes, two at random and then whether they differ; the next bit is to be said, and
one in three can be known. Nothing but the start of a stream marks where a three begins. Series: a plan is shown, the same all
the time, and its letters are due one after the other.

Source: Elman, "Finding Structure in Time", 1990, section "Exclusive-OR"; Jordan, "Serial Order", 1986.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from loci.lab.claim import Evidence
from loci.lab.tasks.mqar import NOTHING
from loci.lab.tasks.recalling import Lesson, between, learn, right, surprise


def threes(count: int, length: int, random: torch.Generator) -> Tensor:
    """Bits (count, 3 * length).

    >>> bits = threes(2, 5, torch.Generator().manual_seed(0)).view(2, 5, 3)
    >>> bool((bits.sum(-1) % 2 == 0).all())
    True
    """
    drawn = torch.randint(2, (count, length, 2), generator=random)
    return torch.cat([drawn, drawn.sum(-1, keepdim=True) % 2], -1).flatten(1)


def predicted(
    entry: str, seed: int, *, D: int, options: Mapping[str, Any], lesson: Lesson, length: int = 10
) -> Evidence:
    """Percent of third bits said before they come, in streams of so many threes; all next bits were trained on."""
    random = torch.Generator().manual_seed(seed)
    model = between(entry, seed, D=D, options=options, inputs=2, outputs=2)

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        bits = threes(rows, length, random)
        return functional.one_hot(bits[:, :-1], 2).float(), bits[:, 1:]

    learn(model, draw, surprise, lesson)
    with torch.no_grad():
        shown, after = draw(1000)
        known = torch.arange(after.shape[1]) % 3 == 1
        percent = right(model(shown), torch.where(known, after, NOTHING))
    return Evidence(percent, "percent of third bits predicted", model.kept())


def said(
    entry: str,
    seed: int,
    *,
    D: int,
    options: Mapping[str, Any],
    lesson: Lesson,
    plans: int = 16,
    length: int = 8,
    letters: int = 4,
) -> Evidence:
    """Percent of letters of all series said right, after they were trained on: a plan each, letters drawn at random."""
    random = torch.Generator().manual_seed(seed)
    series = torch.randint(letters, (plans, length), generator=random)
    shown = functional.one_hot(torch.arange(plans), plans).float().unsqueeze(1).expand(-1, length, -1)
    model = between(entry, seed, D=D, options=options, inputs=plans, outputs=letters)
    learn(model, lambda _: (shown, series), surprise, lesson)
    with torch.no_grad():
        percent = right(model(shown), series)
    return Evidence(percent, "percent of letters said right", model.kept())
