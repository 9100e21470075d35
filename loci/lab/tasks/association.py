"""Association: pairs of a key and a value, one pair a token, read once or twice and asked for by their keys.

`streamed` feeds the memory of a mixer by hand, with fixed steps and no training: what its rule can hold. `trained` learns
the layer around the memory, gates too, on texts whose neighbouring keys are alike, so that to write one is to disturb another,
or whose keys come again with other values.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import load
from loci.lab.claim import Evidence


def streamed(
    seed: int, *, n: int, window: int, degree: int, step: float, d: int = 8, passes: int = 2, rows: int = 10
) -> Evidence:
    """Percent of signs right over all pairs, after `passes` over n random unit keys with values of d signs.

    The memory is OmegaNet's matrix from zero, token by token; a step is that of the squared error's half.
    """
    random = torch.Generator().manual_seed(seed)
    k = functional.normalize(torch.randn(rows, 1, n, d, generator=random), dim=-1)
    v = torch.randint(0, 2, (rows, 1, n, d), generator=random) * 2.0 - 1
    mixer = load("loci.state.omeganet:OmegaNet")(d, heads=1, window=window, degree=degree, chunk=1, conv=1)
    read, keep = torch.cat([k] * passes, 2), torch.zeros(rows, 1, n * passes)
    fed = load("loci.state.omega:Fed")(
        read, read, torch.cat([v] * passes, 2), gamma=keep + 1, log_alpha=keep, eta=keep + step / 2, log_theta=keep
    )
    with torch.no_grad():
        held = mixer.moments(fed, mixer.empty(rows))[1]
        said = mixer.phi(k) @ held.M[0].mT
    right = (said > 0) == (v > 0)
    return Evidence(round(100 * float(right.float().mean()), 2), "percent of signs right", _kept(mixer))


def alike(rows: int, n: int, d: int, cosine: float, random: torch.Generator) -> Tensor:
    """Unit keys (rows, n, d), each at this cosine to the one before it.

    >>> keys = alike(2, 5, 8, 0.5, torch.Generator().manual_seed(0))
    >>> (keys[:, 1:] * keys[:, :-1]).sum(-1).mul(10).round().unique().tolist()
    [5.0]
    """
    drawn = torch.randn(rows, n, d, generator=random)
    keys = [functional.normalize(drawn[:, 0], dim=-1)]
    for fresh in drawn[:, 1:].unbind(1):
        last = keys[-1]
        across = fresh - (fresh * last).sum(-1, keepdim=True) * last
        keys.append(cosine * last + (1 - cosine**2) ** 0.5 * functional.normalize(across, dim=-1))
    return torch.stack(keys, 1)


def texts(
    rows: int, *, pairs: int, d: int, values: int, cosine: float, rounds: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Tokens (rows, (rounds + 1) * pairs, d + values) of a key and a value, and the answers (rows, pairs) to the last ones.

    The keys are gone through `rounds` times, the first time as they were drawn and then in other orders, with new values
    each time; questions, in another order, have no value, and the newest one counts.
    """
    keys = alike(rows, pairs, d, cosine, random)
    order, read = torch.arange(pairs).expand(rows, pairs), []
    for turn in range(rounds + 1):
        order = torch.rand(rows, pairs, generator=random).argsort(1) if turn else order
        if turn < rounds:
            given = torch.randint(0, values, (rows, pairs), generator=random)  # of each key
        shown = functional.one_hot(given.gather(1, order), values) * (turn < rounds)
        asked = keys.gather(1, order.unsqueeze(-1).expand_as(keys))
        read.append(torch.cat([asked * d**0.5, shown], -1))
    return torch.cat(read, 1), given.gather(1, order)


class Recaller(nn.Module):
    """Tokens (B, T, I) -> logits (B, T, values): one mixer between two linear maps, nothing beside it."""

    def __init__(self, mixer: nn.Module, inputs: int, values: int, *, D: int) -> None:
        super().__init__()
        self.inward, self.mixer = nn.Linear(inputs, D), mixer
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, values)

    def forward(self, x: Tensor) -> Tensor:
        """What each token's key says."""
        return self.head(self.norm(self.mixer(self.inward(x))[0]))  # type: ignore[no-any-return]


def trained(
    entry: str,
    seed: int,
    *,
    options: dict[str, Any],
    steps: int,
    lr: float = 0.01,
    pairs: int = 32,
    d: int = 8,
    values: int = 8,
    cosine: float = 0.5,
    rounds: int = 1,
    D: int = 32,
    batch: int = 32,
) -> Evidence:
    """Percent of values recalled in texts that were not trained on; see `texts`."""
    torch.manual_seed(seed)
    mixer = load(entry)(D, **options)
    model = Recaller(mixer, d + values, values, D=D)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    draw = partial(texts, pairs=pairs, d=d, values=values, cosine=cosine, rounds=rounds, random=random)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)

    for _ in range(steps):
        x, answers = draw(batch)
        loss = functional.cross_entropy(model(x)[:, -pairs:].transpose(1, 2), answers)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        x, answers = draw(512)
        right = model(x)[:, -pairs:].argmax(-1) == answers
    return Evidence(round(100 * float(right.float().mean()), 2), "percent of values recalled", _kept(mixer))


def _kept(mixer: Any) -> int:
    kept: int = load("loci.state.mixer:state_bytes")(mixer.initial_state(1))
    return kept
