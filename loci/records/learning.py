"""Learning from feedback: the fusion follows what was useful, and is used only once it has proved itself.

Two things are learned, online, from the hits that were rewarded for a question:

* the weight of each part of the score: one step of REINFORCE on a softmax over the candidates,
      w += eta * r * (f_rewarded - sum_i p_i f_i),    p = softmax(f w / tau)
* words for items: the question's terms are kept with a rewarded item, so that it is found by how it was asked for.

Both are a challenger. Before each step the challenger and the plain scheme rank the same candidates, and the gain d in
reciprocal rank of what was rewarded is bet on: wealth *= 1 + d / 2. If feedback carries nothing, the wealth is a
supermartingale and exceeds 1 / alpha with probability at most alpha, ever (Ville, 1939); below that the plain scheme serves.
So shuffled feedback cannot make recall worse, but for that chance.

Paper: Tan et al., "In Prospect and Retrospect: Reflective Memory Management", arXiv:2503.08026, sec. 5 (REINFORCE with
rewards of what the generator used). Differs: a linear reranker over named parts instead of two d x d maps, no sampling
noise at recall, and the betting guard; so every score stays explained and the state is some hundred bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from loci.records.ledger import F64

STATE = "fusion"
ALPHA = 0.05
ETA = 0.05
TAU = 0.1
LEARNED = "learned"  # the part that words kept with items give
WORDS_OF_ITEM = 64
_CAP = 1e6


@dataclass(slots=True)
class Policy:
    """What was learned in a scope: weights of the parts (1 where not named), and the guard's wealth."""

    weights: dict[str, float] = field(default_factory=dict)
    wealth: float = 1.0
    steps: int = 0

    @property
    def trusted(self) -> bool:
        """Whether the challenger has proved itself."""
        return self.wealth >= 1 / ALPHA

    def dumps(self) -> bytes:
        """As it is kept in the file."""
        return json.dumps({"weights": self.weights, "wealth": self.wealth, "steps": self.steps}).encode()

    @classmethod
    def loads(cls, data: bytes | None) -> Policy:
        """As it was kept; a fresh one when there is none."""
        return cls(**json.loads(data)) if data else cls()

    def vector(self, names: Sequence[str]) -> F64:
        """The weights of parts, in order."""
        return np.array([self.weights.get(name, 1.0) for name in names])


def step(policy: Policy, shares: Mapping[str, F64], useful: Sequence[int], reward: float) -> Policy:
    """One feedback: `shares` are the parts of every candidate's score, `useful` the places of the rewarded ones."""
    names = list(shares)
    table = np.stack([shares[name] for name in names], axis=1)
    table = table / max(float(table.sum(1).max(initial=0)), 1e-12)
    plain = np.array([0.0 if name == LEARNED else 1.0 for name in names])
    w = policy.vector(names)
    wealth = policy.wealth
    if reward > 0:
        gain = _reciprocal(table @ w, useful) - _reciprocal(table @ plain, useful)
        wealth = min(wealth * (1 + gain / 2), _CAP)
    z = table @ w / TAU
    p = np.exp(z - z.max())
    p /= p.sum()
    w = np.maximum(w + ETA * reward * (table[list(useful)].mean(0) - p @ table), 0.0)
    return Policy(dict(zip(names, w.tolist(), strict=True)), wealth, policy.steps + 1)


def _reciprocal(scores: F64, useful: Sequence[int]) -> float:
    """Mean reciprocal rank of the useful places; ties count half, so that ignorance is not rewarded."""
    ranks = [1 + (scores > scores[at]).sum() + ((scores == scores[at]).sum() - 1) / 2 for at in useful]
    return float(np.mean(1 / np.array(ranks)))


def words(held: bytes | None, terms: Sequence[str], reward: float) -> bytes | None:
    """The words kept with an item after it was rewarded (or blamed) for a question; None when none are left."""
    kept: dict[str, float] = json.loads(held) if held else {}
    for term in dict.fromkeys(terms):
        kept[term] = kept.get(term, 0.0) + reward
    kept = {term: min(weight, 3.0) for term, weight in kept.items() if weight > 0}
    strongest = sorted(kept.items(), key=lambda pair: (-pair[1], pair[0]))[:WORDS_OF_ITEM]
    return json.dumps(dict(strongest)).encode() if strongest else None
