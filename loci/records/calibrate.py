"""Does memory hold the answer at all? A calibrated probability, learned without labels.

    known = P(the content is there) * P(it is about whom the question names | the content is there)

names one speaker:    sigmoid(a0 + a1 cov + logit(.95)) * sigmoid(b diff + logit(1 - pi))
names two or more:    sigmoid(a0 + a1 cov + logit(.95))
names none:           sigmoid(u0 + u1 cov)

cov (0..1) is the idf share of the question's words that the best candidate contains, a word of a neighbouring turn
counting GAMMA. diff (-1..1) is the share that the best candidate says *about the named speaker*, less the share that
the best one says about somebody else; whom a sentence is about is read from its pronouns and from whether it asks.

The null models need no labels. Mirror null: swapping the name in a question turns diff into -diff, so every question
brings its own counter-example, and the mixture (1 - pi) sigmoid(b d) + pi sigmoid(-b d) gives pi (`fit`). Foreign null:
a0, a1, u0, u1 are logistic fits of cov, a scope's own questions against questions of other scopes; they ship as constants.

The stated error of a decision at threshold 0.5 is min(known, 1 - known); its mean over questions is the expected
share of wrong decisions. docs/recall.md compares it with what was observed on conversations that were held out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from loci.records import analysis
from loci.records.view import View

THRESHOLD = 0.5
GAMMA = 0.6
CANDIDATES = 12
STATE = "known"  # the name under which a scope's pi is saved

_FIRST = frozenset("i i'm i've i'd i'll my me mine myself we our us we're we've we'll we'd ours ourselves".split())
_SECOND = frozenset("you your you're you've you'd you'll yours yourself u".split())
# (asks, has a first person, has a second person) -> weight (about the speaker, about the one spoken to)
_ABOUT: Mapping[tuple[bool, bool, bool], tuple[float, float]] = {
    (False, True, False): (1.0, 0.0), (False, False, True): (0.3, 0.8),
    (False, True, True): (0.9, 0.4), (False, False, False): (0.8, 0.3),
    (True, True, False): (0.8, 0.3), (True, False, True): (0.1, 1.0),
    (True, True, True): (0.4, 0.8), (True, False, False): (0.15, 0.85),
}  # fmt: skip
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[^\W_]+(?:'[a-z]+)?")
_SHARES = re.compile(r" \[shares ([^\]]*)\]$")
_READ = 20_000  # characters of a text that are read: longer ones say nothing more of one question


@dataclass(frozen=True, slots=True)
class Model:
    """Constants of the formula above."""

    b: float = 8.0
    pi: float = 0.25  # share of questions that put words into the wrong mouth
    a0: float = -3.10
    a1: float = 6.40
    u0: float = -5.25
    u1: float = 11.0
    prior: float = 0.95  # that the content is there, when the question names a speaker of the scope


@dataclass(frozen=True, slots=True)
class Features:
    """What is measured of a question: cov, diff, and how many speakers of the scope it names."""

    cov: float
    diff: float
    named: int


@dataclass(frozen=True, slots=True)
class Belief:
    """Probability that the answer is in memory, and the stated error of deciding by it."""

    known: float
    threshold: float = THRESHOLD

    @property
    def error(self) -> float:
        """Expected error of answering when known >= threshold, else abstaining."""
        return 1 - self.known if self.known >= self.threshold else self.known


def known(query: str, view: View) -> Belief:
    """How likely it is that the items of a view answer a query."""
    if not len(view):
        return Belief(0.0)
    saved = view.state(STATE)
    model = Model(pi=json.loads(saved)["pi"]) if saved else Model()
    return Belief(probability(features(query, view), model))


def probability(of: Features, model: Model) -> float:
    """The formula."""
    if not of.named:
        return _sigmoid(model.u0 + model.u1 * of.cov)
    content = _sigmoid(model.a0 + model.a1 * of.cov + _logit(model.prior))
    return content if of.named > 1 else content * _sigmoid(model.b * of.diff + _logit(1 - model.pi))


def features(query: str, view: View) -> Features:
    """Measure a question against the best candidates by BM25, with the turns beside them."""
    ledger = view.ledger
    words = dict.fromkeys(analysis.query_tokens(query))
    named = {number for name, number in ledger.speakers.items() if words.keys() & set(analysis.tokens(name))}
    names = {term for name, number in ledger.speakers.items() if number in named for term in analysis.tokens(name)}
    terms = view.postings([word for word in words if word not in names])
    size = max(len(view), 1)
    idf = {w: math.log1p((size - n + 0.5) / (n + 0.5)) for w in words if w not in names
           for n in [min(len(terms[w][0]), size) if w in terms else 0]}  # fmt: skip
    total = sum(idf.values())
    if not total:
        return Features(0.0, 0.0, len(named))
    own = np.zeros(len(ledger))
    for places, part in terms.values():
        own[places] += part
    best = view.top(own, CANDIDATES)
    subject = next(iter(named)) if len(named) == 1 else None
    found = [_share(idf, near, subject) for near in _neighbours(view, best.tolist())]
    cov, mine, theirs = (max((row[column] for row in found), default=0.0) / total for column in range(3))
    return Features(cov, mine - theirs if subject is not None else 0.0, len(named))


Near = list[tuple[Mapping[str, tuple[float, float]], int, float]]  # (about, speaker, weight)


def _neighbours(view: View, best: Sequence[int]) -> list[Near]:
    """Each candidate with the live turns beside it in its session."""
    ledger = view.ledger
    groups = []
    for place in best:
        beside = [
            at
            for at in (place - 1, place + 1)
            if 0 <= at < len(ledger) and view.live[at] and ledger.session[at] == ledger.session[place] >= 0
        ]
        groups.append([place, *beside])
    wanted = sorted({at for group in groups for at in group})
    texts = dict(zip(wanted, view.texts(wanted), strict=True))
    return [
        [(about(texts[at][:_READ]), int(ledger.speaker[at]), 1.0 if at == group[0] else GAMMA) for at in group]
        for group in groups
    ]


def _share(idf: Mapping[str, float], near: Near, subject: int | None) -> tuple[float, float, float]:
    """Of one candidate: weight of the words it contains, says about the subject, says about others."""
    cov = mine = theirs = 0.0
    for word, weight in idf.items():
        here = me = them = 0.0
        for said, speaker, gamma in near:
            own = said.get(word)
            if own is None:
                continue
            here = max(here, gamma)
            if subject is not None:
                a, b = own if speaker == subject else own[::-1]
                me, them = max(me, gamma * a), max(them, gamma * b)
        cov, mine, theirs = cov + weight * here, mine + weight * me, theirs + weight * them
    return cov, mine, theirs


@lru_cache(maxsize=20_000)
def about(text: str) -> Mapping[str, tuple[float, float]]:
    """For each term of a turn, how much it is said about the speaker and about the one spoken to."""
    speaker = analysis.speaker(text)
    said = text[len(speaker) + 2 :] if speaker else text
    said = _SHARES.sub(r". I shares \1", said)  # a shared picture belongs to who shares it
    found: dict[str, tuple[float, float]] = {}
    for sentence in _SENTENCE.split(said):
        words = set(_WORD.findall(sentence.lower().replace("\u2019", "'")))
        a, b = _ABOUT[sentence.rstrip().endswith("?"), bool(words & _FIRST), bool(words & _SECOND)]
        for term in analysis.tokens(sentence):
            held = found.get(term, (0.0, 0.0))
            found[term] = max(held[0], a), max(held[1], b)
    return found


def fit(diffs: Iterable[float], *, model: Model | None = None, prior: tuple[float, float] = (4.0, 12.0)) -> float:
    """Pi from a scope's own questions, by their diffs: the most likely mixture under a Beta prior (mean 0.25).

    >>> fit([0.5] * 90 + [-0.5] * 10) < fit([0.5] * 50 + [-0.5] * 50)
    True
    """
    model = model or Model()
    s = np.array([_sigmoid(model.b * d) for d in diffs if abs(d) > 1e-9])
    grid = np.arange(1, 50) / 100
    likely = np.log((1 - grid[:, None]) * s + grid[:, None] * (1 - s)).sum(1)
    likely += (prior[0] - 1) * np.log(grid) + (prior[1] - 1) * np.log(1 - grid)
    return float(grid[int(likely.argmax())])


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, x))))


def _logit(p: float) -> float:
    return math.log(p / (1 - p))
