"""Soft injection: a task as one mean activation a head, mixed into the heads at the prompt's last token.

    t_lh = mean over n of h_lh(last token of the n-th prompt with examples)                   heads, before the output projection
    h'_lh = (1 - alpha_lh) h_lh + alpha_lh t_lh,    alpha = sigmoid(a)                        at the last token of a bare prompt

Layers run in order, so that deeper heads already stand on injected ones. Keys and values of all other tokens are untouched,
and what is said after the prompt is not injected. t is gathered once from prompts with examples (`task_embedding`); a alone
is trained, L*H numbers, on prompts without any (`tuned`). No example is read again: nothing grows with a request.

Paper: Park, Rhee, "Soft Injection of Task Embeddings Outperforms Prompt-Based In-Context Learning", arXiv:2507.20906.
Differs: the best checkpoint is the best one (the official loop never updates its best loss, so it keeps the last it
validated); prompts of one token are injected too, and what the output projection says of other tokens is not recomputed.
Keeps: b*L*H*(d + 1) bytes for a task.

Shapes: B batch, T time, L layers, H heads of queries, d width of a head.

>>> from loci.state.context.open_transformer import OpenTransformer
>>> model, tokens = OpenTransformer(11, D=8, heads=2), torch.tensor([[3, 1, 4], [1, 5, 0]])
>>> injection = SoftInjection.of(model, task_embedding(model, [(tokens, torch.tensor([3, 2]))]))
>>> injection(model, tokens, lengths=torch.tensor([3, 2])).shape, injection.a.shape
(torch.Size([2, 3, 11]), torch.Size([2, 2]))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from loci.core.card import method
from loci.state.context.base import Context, OpenModel, frozen
from loci.state.context.open_transformer import Edit

Prompts = tuple[Tensor, Tensor]  # tokens (B, T), padded on the right, and lengths (B,)
Asked = tuple[Tensor, Tensor, Tensor]  # the same, and the token that is due after each prompt (B,)


@method(
    name="soft-injection",
    kind="context",
    title="Soft Injection of Task Embeddings Outperforms Prompt-Based In-Context Learning",
    paper="arXiv:2507.20906",
    says="a task as one mean activation and one mixing weight a head, in place of examples in the prompt",
    bytes="b*L*H*(d + 1)",
    example={"L": 2, "H": 2, "d": 4},
    needs=("torch",),
)
class SoftInjection(Context):
    """`a` (L, H) is trained, from alpha = 1/2 on; `t` (L, H, d) is the task's embedding, zero until it is given."""

    trained: ClassVar[frozenset[str]] = frozenset({"a"})
    t: Tensor

    def __init__(self, L: int, H: int, *, d: int) -> None:
        super().__init__()
        if min(L, H, d) < 1:
            raise ValueError(f"L={L}, H={H}, d={d} is no injection; choose sizes of at least 1")
        self.L, self.H, self.d = L, H, d
        self.register_buffer("t", torch.zeros(L, H, d))
        self.a = nn.Parameter(torch.zeros(L, H))

    @classmethod
    def of(cls, model: OpenModel, t: Tensor, *, alpha: float = 0.5) -> Self:
        """For a model, with a task's embedding (L, H, d) and the same alpha, 0 to 1, everywhere."""
        if t.shape != cls.sizes_of(model) or not 0 <= alpha <= 1:
            raise ValueError(f"t is {tuple(t.shape)}, alpha={alpha}; give t {cls.sizes_of(model)} and alpha 0 to 1")
        L, H, d = t.shape
        injection = cls(L, H, d=d).to(t)
        with torch.no_grad():
            injection.t.copy_(t)
            injection.a.copy_(torch.logit(torch.full_like(injection.a, alpha)))  # -inf and inf are 0 and 1 exactly
        return injection

    @staticmethod
    def sizes_of(model: OpenModel) -> tuple[int, int, int]:
        """Layers, heads of queries, and their width."""
        return model.L, model.H, model.d

    @property
    def alpha(self) -> Tensor:
        """How much of each head is the task's, (L, H)."""
        return torch.sigmoid(self.a)

    def edit(self, lengths: Tensor) -> Edit:
        """Mix at each row's last token of the prompt."""
        rows = torch.arange(len(lengths), device=lengths.device)
        alpha = self.alpha.unsqueeze(-1)

        def mixed(layer: int, heads: Tensor) -> Tensor:
            h = heads[rows, lengths - 1]  # (B, H, d)
            put = (1 - alpha[layer]) * h + alpha[layer] * self.t[layer]
            return heads.index_put((rows, lengths - 1), put.to(heads.dtype))

        return mixed

    def neutral(self) -> Self:
        """The same task with alpha = 0."""
        twin = type(self)(self.L, self.H, d=self.d).to(self.t)
        with torch.no_grad():
            twin.t.copy_(self.t)
            twin.a.fill_(-torch.inf)
        return twin

    def shapes(self) -> Mapping[str, float]:
        """L layers of H heads, d wide, b bytes for a number."""
        return {"L": self.L, "H": self.H, "d": self.d, "b": self.a.element_size()}


def prompt_lengths(mask: Tensor) -> Tensor:
    """The lengths (B,) of prompts padded on the right, from an attention mask (B, T).

    >>> prompt_lengths(torch.tensor([[1, 1, 0], [1, 1, 1]])).tolist()
    [2, 3]
    """
    heard = mask.bool()
    if mask.dim() != 2 or bool((heard[:, 1:] & ~heard[:, :-1]).any()) or not bool(heard[:, :1].all()):
        raise ValueError(
            f"mask {tuple(mask.shape)} has gaps, padding on the left or empty rows; pad (B, T) on the right"
        )
    return heard.sum(1)


@torch.no_grad()
def gathered(model: OpenModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """What the heads say at the last token of each prompt, (B, L, H, d)."""
    rows, seen = torch.arange(len(tokens), device=tokens.device), []

    def look(layer: int, heads: Tensor) -> Tensor:
        seen.append(heads[rows, lengths - 1])
        return heads

    frozen(model, tokens, edit=look)
    return torch.stack(seen, 1)


def task_embedding(model: OpenModel, prompts: Iterable[Prompts]) -> Tensor:
    """The mean t (L, H, d) of `gathered` over all prompts with examples, kept as one running mean in float64."""
    mean, count = torch.zeros(()), 0
    for tokens, lengths in prompts:
        heads = gathered(model, tokens, lengths)
        count += len(heads)
        mean = mean + (heads.double() - mean).sum(0) / count  # Welford's, for a batch at once
        dtype = heads.dtype
    if not count:
        raise ValueError("no prompts were given; give at least one")
    return mean.to(dtype)


def last_logits(injection: SoftInjection, model: OpenModel, tokens: Tensor, lengths: Tensor) -> Tensor:
    """What is said after each prompt, (B, V)."""
    logits: Tensor = injection(model, tokens, lengths=lengths)
    return logits[torch.arange(len(tokens), device=tokens.device), lengths - 1]


def tuned(
    injection: SoftInjection,
    model: OpenModel,
    train: Asked,
    *,
    validation: Asked,
    random: torch.Generator,
    steps: int = 400,
    every: int = 50,
    batch: int = 1,
    lr: float = 0.2,
) -> list[float]:
    """Choose alpha by Adam on prompts without examples; keeps the best that was validated, returns every validated loss."""
    if steps < 1 or every < 1 or batch < 1 or not len(train[0]):
        raise ValueError(
            f"steps={steps}, every={every}, batch={batch} on {len(train[0])} prompts; choose each at least 1"
        )
    optimizer = torch.optim.Adam([injection.a], lr=lr)
    best, losses = injection.a.detach().clone(), []
    for step in range(1, steps + 1):
        rows = torch.randint(len(train[0]), (batch,), generator=random)
        loss = asked_loss(injection, model, [part[rows] for part in train])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if step % every == 0 or step == steps:
            with torch.no_grad():
                losses.append(float(asked_loss(injection, model, validation)))
            if losses[-1] <= min(losses):
                best = injection.a.detach().clone()
    with torch.no_grad():
        injection.a.copy_(best)
    return losses


def asked_loss(injection: SoftInjection, model: OpenModel, asked: Sequence[Tensor]) -> Tensor:
    """The cross-entropy of the tokens that are due."""
    tokens, lengths, due = asked
    return cross_entropy(last_logits(injection, model, tokens, lengths), due)
