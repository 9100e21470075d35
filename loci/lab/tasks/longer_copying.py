"""Copying beyond what was learned: symbols are read and said again, on longer texts than any that were trained on.

    1 to `longest` symbols while learning, `asked` of them afterwards

Who has learned what to do, and has room, goes on; who has learned one mapping for each length does not.

Source: Graves, Wayne, Danihelka, "Neural Turing Machines", arXiv:1410.5401, section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from loci.lab.claim import Evidence
from loci.lab.tasks.copying import copying
from loci.lab.tasks.mqar import NOTHING
from loci.lab.tasks.recalling import Lesson, between, learn, right, surprise


def texts(rows: int, count: int, *, symbols: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Texts (rows, 2 * count + 1, symbols + 2), one-hot, and what is due (rows, 2 * count + 1), NOTHING while it is read.

    >>> shown, due = texts(1, 2, symbols=4, random=torch.Generator().manual_seed(0))
    >>> shown.shape, bool((shown.argmax(-1)[:, :2] == due[:, 3:]).all()), due[0, :3].tolist()
    (torch.Size([1, 5, 6]), True, [-100, -100, -100])
    """
    ids, answers = copying(rows, count, 1, symbols, random)
    due = torch.cat([torch.full((rows, count + 1), NOTHING), answers], 1)
    return functional.one_hot(ids, symbols + 2).float(), due


def copied(
    entry: str,
    seed: int,
    *,
    D: int,
    options: Mapping[str, Any],
    lesson: Lesson,
    longest: int = 5,
    asked: int = 10,
    symbols: int = 8,
) -> Evidence:
    """Percent of symbols said again right in texts of `asked` symbols, after training on 1 to `longest`."""
    random = torch.Generator().manual_seed(seed)
    model = between(entry, seed, D=D, options=options, inputs=symbols + 2, outputs=symbols)

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        count = int(torch.randint(1, longest + 1, (), generator=random))
        return texts(rows, count, symbols=symbols, random=random)

    learn(model, draw, surprise, lesson)
    with torch.no_grad():
        shown, due = texts(256, asked, symbols=symbols, random=random)
        percent = right(model(shown), due)
    return Evidence(percent, "percent of symbols copied", model.kept())
