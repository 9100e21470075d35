"""Self-study: a model asks itself about a corpus piece by piece, and a cartridge learns to answer without the piece.

    1. a span of the corpus, one of five kinds of prompt, and with probability 0.2 a wish for its reasoning     `Turn`
    2. `asks` (model A) sees the span and says a message; `answers` (model B) sees span and message, and says an answer with
       its k likeliest tokens at each of its places
    3. an example is message and answer WITHOUT the span, and what B held likely                               `Example`
    loss(Z) = mean over answered places of - sum_{v in top k} p_B(v) log q_Z(v)

A and B are callables, so an LLM may be behind them (the paper: A at temperature 0.6 with at most 512 tokens, B at 0 with at
most 1024 and k = 20, spans of 512 to 4096 tokens), or templates, or the frozen model itself (`Teacher`).

The loss is not a divergence: it lies above KL by what B itself is unsure of, `teacher_entropy`, which Z does not move; and p_B
is not scaled to sum to 1 over the top k, so it has no meaning as a perplexity. With k = V, loss - teacher entropy = KL.

Paper: Eyuboglu et al., "Cartridges", arXiv:2506.06266.
Differs: batches of padded rows instead of packed ones; one round of message and answer; no tools.
Keeps: nothing; an example is 8 T + 12 k T + T bytes while it is used.

>>> loss = distillation_loss(torch.zeros(1, 4), torch.tensor([[0, 1]]), torch.tensor([[0.5, 0.5]]).log())
>>> round(float(loss - teacher_entropy(torch.tensor([[0.5, 0.5]]).log())), 4)  # KL of a fair coin and a fair four-sided die
0.6931
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from loci.state.context.base import OpenModel, frozen
from loci.state.context.cartridge import Cartridge

KINDS = ("structuring", "summarization", "question", "use_case", "creative")


@dataclass(frozen=True, slots=True)
class Turn:
    """What the asking model is asked for: a kind of message, and whether it should ask for reasoning step by step."""

    kind: str
    thinking: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """Tokens (n,), and for each of them the k likeliest in its place (n, k) and their log-probabilities (n, k)."""

    tokens: Tensor
    ids: Tensor
    logp: Tensor


@dataclass(frozen=True, slots=True)
class Example:
    """Message and answer (T,), without the span. The answer's places come last, one for each row of ids and logp (n, k)."""

    tokens: Tensor
    ids: Tensor
    logp: Tensor


Asks = Callable[[Tensor, Turn, torch.Generator], Tensor]  # a span and a turn -> a message (n,)
Answers = Callable[[Tensor, Tensor], Answer]  # a span and a message -> an answer


def spans(corpus: Tensor, *, low: int, high: int, random: torch.Generator) -> Tensor:
    """A contiguous part of a corpus (T,), of a length between `low` and `high`, both uniformly drawn."""
    high = min(high, len(corpus))
    if corpus.dim() != 1 or not 1 <= low <= high:
        raise ValueError(
            f"low={low}, high={high} do not fit a corpus {tuple(corpus.shape)}; choose 1 <= low <= high <= T"
        )
    length = int(torch.randint(low, high + 1, (), generator=random))
    start = int(torch.randint(len(corpus) - length + 1, (), generator=random))
    return corpus[start : start + length]


def self_study(
    corpus: Tensor,
    *,
    asks: Asks,
    answers: Answers,
    count: int,
    random: torch.Generator,
    sizes: tuple[int, int] = (512, 4096),
    thinking: float = 0.2,
    description: Tensor | None = None,  # a line about the corpus, put before every span
) -> list[Example]:
    """`count` conversations about a corpus (T,), as examples without it."""
    found = []
    for _ in range(count):
        span = spans(corpus, low=sizes[0], high=sizes[1], random=random)
        span = span if description is None else torch.cat([description, span])
        kind = KINDS[int(torch.randint(len(KINDS), (), generator=random))]
        message = asks(span, Turn(kind, float(torch.rand((), generator=random)) < thinking), random)
        answer = answers(span, message)
        found.append(Example(torch.cat([message, answer.tokens]), answer.ids, answer.logp))
    return found


@dataclass(frozen=True, slots=True)
class Teacher:
    """The frozen model as B: it reads span and message, says `count` tokens, the likeliest each, and what else was likely."""

    model: OpenModel
    count: int
    k: int = 20

    @torch.no_grad()
    def __call__(self, span: Tensor, message: Tensor) -> Answer:
        """Greedily, as at temperature 0."""
        read = torch.cat([span, message])
        rows = []
        for _ in range(self.count):
            logp = self.model(read.unsqueeze(0))[0, -1].float().log_softmax(-1)
            rows.append(logp.topk(min(self.k, len(logp))))
            read = torch.cat([read, rows[-1].indices[:1]])
        ids, values = (torch.stack([getattr(row, part) for row in rows]) for part in ("indices", "values"))
        return Answer(read[len(span) + len(message) :], ids, values)


def distillation_loss(logits: Tensor, ids: Tensor, logp: Tensor) -> Tensor:
    """- sum_k p log q, the mean over places: logits (n, V), the teacher's ids (n, k) and log-probabilities (n, k)."""
    q = logits.log_softmax(-1).gather(-1, ids)
    loss: Tensor = -(logp.to(q.dtype).exp() * q).sum(-1).mean()
    return loss


def teacher_entropy(logp: Tensor) -> Tensor:
    """- sum_k p log p, the mean over places: what the loss cannot go below where k = V."""
    entropy: Tensor = -torch.special.xlogy(logp.exp(), logp.exp()).sum(-1).mean()
    return entropy


def example_loss(cartridge: Cartridge, model: OpenModel, examples: Sequence[Example]) -> Tensor:
    """The loss of a batch of examples with the cartridge in the span's place."""
    tokens = pad_sequence([example.tokens for example in examples], batch_first=True)
    logits = cartridge(model, tokens)
    asked = [  # the answer's first token is said by the message's last
        logits[row, len(example.tokens) - len(example.ids) - 1 : len(example.tokens) - 1]
        for row, example in enumerate(examples)
    ]
    ids, logp = (torch.cat([getattr(example, part) for example in examples]) for part in ("ids", "logp"))
    return distillation_loss(torch.cat(asked), ids, logp)


def studied(
    cartridge: Cartridge,
    model: OpenModel,
    examples: Sequence[Example],
    *,
    steps: int,
    random: torch.Generator,
    batch: int = 64,
    lr: float = 2e-2,  # caches want it large: 1e-4 does nothing
) -> list[float]:
    """Train the cartridge on examples drawn in batches, by Adam; the loss of every step."""
    if not examples or any(len(example.tokens) <= len(example.ids) for example in examples):
        raise ValueError(
            f"{len(examples)} examples, or a message without tokens; give some whose answers follow a message"
        )
    optimizer = torch.optim.Adam([cartridge.Z], lr=lr)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(examples), (batch,), generator=random).tolist()
        loss = example_loss(cartridge, model, [examples[row] for row in rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def corpus_loss(cartridge: Cartridge, model: OpenModel, corpus: Tensor) -> Tensor:
    """What self-study replaces, kept to compare with: the next-token loss of the raw corpus (T,), read behind the cartridge.

    It learns how the corpus is worded, and not how it is asked for.
    """
    logits = cartridge(model, corpus.unsqueeze(0))[0, :-1]
    return torch.nn.functional.cross_entropy(logits, corpus[1:])


def mean_divergence(model: OpenModel, cartridge: Cartridge, span: Tensor, tokens: Tensor) -> Tensor:
    """KL(F(. | span + x) || F_Z(. | x)), the mean over the places of x (T,)."""
    with torch.no_grad():
        p = frozen(model, torch.cat([span, tokens]).unsqueeze(0))[0, len(span) :].log_softmax(-1)
    q = cartridge(model, tokens.unsqueeze(0))[0].log_softmax(-1)
    divergence: Tensor = (p.exp() * (p - q)).sum(-1).mean()
    return divergence
