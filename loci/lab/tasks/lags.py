"""Long lags: what must be remembered for many moments before it is of use.

The adding problem (Hochreiter, Schmidhuber 1997): of T numbers in [0, 1], two are marked, one in each half; the answer, due
after the last, is their sum. Who always answers 1 errs by 1/6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loci.core.card import load
from loci.lab.claim import Evidence
from loci.state.mixer import Mixer, state_bytes


def adding(count: int, length: int, *, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows (count, length, 2) of numbers and marks, and the sums (count,) of the two marked numbers.

    >>> x, y = adding(3, 10, random=torch.Generator().manual_seed(0))
    >>> x.shape, bool(torch.allclose((x[..., 0] * x[..., 1]).sum(1), y)), x[..., 1].sum(1).tolist()
    (torch.Size([3, 10, 2]), True, [2.0, 2.0, 2.0])
    """
    numbers = torch.rand(count, length, generator=random)
    half = length // 2
    places = torch.stack(
        [torch.randint(half, (count,), generator=random), torch.randint(half, length, (count,), generator=random)], 1
    )
    marks = torch.zeros(count, length).scatter_(1, places, 1.0)
    return torch.stack([numbers, marks], -1), numbers.gather(1, places).sum(1)


def error(entry: str, seed: int, *, n: int, length: int = 50, steps: int = 2000, rate: float = 1e-3) -> Evidence:
    """Mean squared error on 2,000 new rows of the adding problem, after Adam on `steps` batches of 32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        random = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            mixer: Mixer = load(entry)(2, n)
        learn(mixer, length, steps=steps, rate=rate, random=random)
        x, y = adding(2000, length, random=random)
        with torch.no_grad():
            said, state = mixer(x)
        wrong = float((said[:, -1, 0] - y).square().mean())
        return Evidence(wrong, "mean squared error", state_bytes(state) // len(x))
    finally:
        torch.set_num_threads(threads)


def learn(mixer: Mixer, length: int, *, steps: int, rate: float, random: torch.Generator) -> None:
    """Train a mixer two wide to answer in its first output at the last moment; gradients are clipped to norm 1."""
    optimizer = torch.optim.Adam(mixer.parameters(), lr=rate)
    for _ in range(steps):
        x, y = adding(32, length, random=random)
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.mse_loss(mixer(x)[0][:, -1, 0], y))
        nn.utils.clip_grad_norm_(mixer.parameters(), 1.0)
        optimizer.step()
