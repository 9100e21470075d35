"""Mappings in a prompt: a task turns symbols into symbols, a prompt shows pairs of it, the last symbol's image is asked for.

    Q x_1 A y_1   Q x_2 A y_2   ...   Q x A ?                    y = pi_task(x)

There are `TASKS` permutations, drawn once from a seed. `model_of` is a small language model that has learned them all and does
not know which is meant until it has seen pairs; that is what pairs in a prompt do for a large one. Without pairs it can but
guess among the tasks, unless it is told the task in another way.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

from loci.lab.claim import Evidence
from loci.state.context.open_transformer import OpenTransformer
from loci.state.context.soft_injection import SoftInjection, last_logits, task_embedding, tuned

TASKS, WORDS = 8, 16
QUESTION, ANSWER = WORDS, WORDS + 1
SHOTS = 10
KNOWN = 8  # words of a new user's task whose images are known
Arm = Literal["tuned", "uniform", "half", "bare", "shown"]


def mappings(seed: int) -> Tensor:
    """The images of all words under every task, (TASKS, WORDS)."""
    return torch.rand(TASKS, WORDS, generator=torch.Generator().manual_seed(seed)).argsort(1)


def prompts(images: Tensor, shots: int, random: torch.Generator, *, among: Tensor | None = None) -> Tensor:
    """Prompts (B, 4 * n) of pairs, no two alike, the last of which is asked for: n is shots + 1, or all there are.

    `images` (B, words) are those of the words `among`, of all words unless given.

    >>> one = prompts(torch.arange(WORDS).view(1, -1), 1, torch.Generator().manual_seed(0))
    >>> one.shape, bool((one[:, 1::4] == one[:, 3::4]).all()), one[0, ::4].tolist()
    (torch.Size([1, 8]), True, [16, 16])
    """
    words = torch.arange(images.shape[1]) if among is None else among
    drawn = torch.rand(images.shape, generator=random).argsort(1)[:, : shots + 1]
    x, y = words[drawn], images.gather(1, drawn)
    return torch.stack([torch.full_like(x, QUESTION), x, torch.full_like(x, ANSWER), y], 2).flatten(1)


def bare(words: Tensor) -> tuple[Tensor, Tensor]:
    """Prompts without pairs (B, 3), and their lengths."""
    tokens = torch.stack([torch.full_like(words, QUESTION), words, torch.full_like(words, ANSWER)], 1)
    return tokens, torch.full((len(words),), 3)


@functools.lru_cache(maxsize=1)
def model_of(seed: int, steps: int) -> OpenTransformer:
    """A language model that knows every task and finds out from pairs which is meant; all arms of a seed stand on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OpenTransformer(WORDS + 2, D=64, heads=4, depth=3)
    random, pi = torch.Generator().manual_seed(seed), mappings(seed)
    optimizer = torch.optim.Adam(model.parameters(), 0.003, betas=(0.9, 0.98))
    schedule = OneCycleLR(optimizer, 0.003, total_steps=steps, pct_start=0.1)
    for _ in range(steps):
        tokens = prompts(pi[torch.randint(TASKS, (32,), generator=random)], SHOTS, random)
        logits = model(tokens)[:, 2::4]  # what is said after every A
        loss = cross_entropy(logits.flatten(0, 1), tokens[:, 3::4].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.requires_grad_(False)


def injected(
    arm: Arm, model: OpenTransformer, pi: Tensor, *, known: Tensor, steps: int, random: torch.Generator
) -> SoftInjection:
    """An injection of one task, pi (WORDS,): its embedding from 50 prompts with pairs, its alpha by the arm.

    Of `known` words the images are known: pairs are of them alone, and so are the prompts that alpha is tuned on.
    """
    shown = prompts(pi[known].expand(50, -1), min(SHOTS, len(known) - 1), random, among=known)[:, :-1]
    t = task_embedding(model, [(shown, torch.full((50,), shown.shape[1]))])
    injection = SoftInjection.of(model, t, alpha={"uniform": 1.0, "bare": 0.0}.get(arm, 0.5))
    if arm == "tuned":
        train = *bare(known), pi[known]
        tuned(injection, model, train, validation=train, random=random, steps=steps)
    return injection


def answered(arm: Arm, seed: int, *, backbone: int, steps: int = 150, count: int = TASKS) -> Evidence:
    """Percent of words answered right whose images were never shown, from `count` tasks: bare and injected, or behind pairs."""
    model, right, due, held = model_of(seed, backbone), 0, 0, 0
    for task, pi in enumerate(mappings(seed)[:count]):
        random = torch.Generator().manual_seed(1_000_000 + 100 * seed + task)
        order = torch.rand(WORDS, generator=random).argsort()
        known, unseen = order[:KNOWN], order[KNOWN:]
        injection = injected(arm, model, pi, known=known, steps=steps, random=random)
        tokens, lengths = bare(unseen)
        if arm == "shown":
            pairs = prompts(pi[known].expand(len(unseen), -1), SHOTS, random, among=known)
            with torch.no_grad():
                said = model(torch.cat([pairs, tokens], 1))[:, -1]
        else:
            with torch.no_grad():
                said = last_logits(injection, model, tokens, lengths)
        right += int((said.argmax(-1) == pi[unseen]).sum())
        due += len(unseen)
        held = sum(part.numel() * part.element_size() for part in (injection.a, injection.t))
    return Evidence(round(100 * right / due, 2), "percent of unshown words answered right", held)
