"""Families of proteins in context: how well is the ninth homolog foretold from the eight before it?

Families are those of tasks/proteins.py, new ones in every batch, so that nothing of a family can be known but from the
homologs before. Without any, a letter costs ln 20 = 3.0 nats; after eight about 0.9, to who counts letters column by
column.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from loci.lab.claim import Evidence
from loci.lab.tasks.proteins import EOS, HOMOLOGS, LENGTH, LETTERS, SYMBOLS, concatenated, family
from loci.state.decoder.base import Decoder
from loci.state.decoder.prot_xlstm import ProtXLSTM
from loci.state.mixer import State, state_bytes


class Placeless(ProtXLSTM):
    """Prot-xLSTM that turns nothing: the control of equal weights, bytes and steps."""

    def places(self, tokens: Tensor, state: State) -> Tensor:
        """Nought everywhere."""
        return torch.zeros_like(tokens)


def texts(count: int, random: np.random.Generator) -> Tensor:
    """(count, 9 * 31) of int64: a family each, every protein behind an EOS."""
    return torch.from_numpy(np.stack([concatenated(family(random)) for _ in range(count)]))


def surprise(model: Decoder, tokens: Tensor) -> Tensor:
    """Nats of each letter given all before it, (count, proteins, LENGTH)."""
    logits: Tensor = model(tokens[:, :-1])[0]
    nats = cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    by_protein = torch.cat([nats, nats[:, :1]], 1).view(len(tokens), -1, LENGTH + 1)
    return by_protein[..., :LENGTH]  # without the EOS that follows


def trained(model: Decoder, seed: int, *, steps: int, batch: int, lr: float) -> Decoder:
    """The model after `steps` batches of new families."""
    random = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        loss = surprise(model, texts(batch, random)).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


def gained(kind: Callable[..., ProtXLSTM], seed: int, *, steps: int, options: dict[str, Any]) -> Evidence:
    """Nats a letter that eight homologs save, on 200 families that were not trained on.

    Against ln 20, the least that a letter costs without homologs, and not against what the model says of the first
    protein: who is wrong about that one would seem to gain from the rest.
    """
    torch.manual_seed(seed)
    model = kind(SYMBOLS, separator=EOS, masks=(), **options)
    trained(model, seed, steps=steps, batch=16, lr=0.01)
    with torch.no_grad():
        last = float(surprise(model, texts(200, np.random.default_rng(1_000_000 + seed)))[:, HOMOLOGS].mean())
    kept = state_bytes(model.initial_state(1))
    return Evidence(round(math.log(LETTERS) - last, 4), "nats a letter saved by 8 homologs", kept)
