"""What claims about optimizers share: how one is built for a model. Free of torch until a claim runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from loci.core.card import load
from loci.lab.claim import Evidence, NotTestable

INNER = (r"(attn|mlp).*weight",)  # the matrices that low-rank papers train; the rest takes the plain rule


def text(build: Callable[[Any], Any], seed: int, **options: Any) -> Evidence:
    """Held-out loss and optimizer bytes of a tiny transformer on tinyshakespeare; see tasks/language.py."""
    if importlib.util.find_spec("torch") is None:
        raise NotTestable('torch is not installed; pip install "loci[torch]"')
    evidence: Evidence = load("loci.lab.tasks.language:train")(build, seed, **options)
    return evidence


def ours(entry: str, *, rank: int | None = None, lr: float, **options: Any) -> Callable[[Any], Any]:
    """Builds an optimizer of this house by its entry, over a model's inner matrices when a rank is given."""

    def build(model: Any) -> Any:
        member = load(f"loci.weights.optim.{entry}")
        if rank is None:
            return member(model.named_parameters(), lr=lr, **options)
        return member(load("loci.weights.optim.base:split")(model, INNER, rank=rank), lr=lr, **options)

    return build


def torchs(name: str, *, lr: float, **options: Any) -> Callable[[Any], Any]:
    """Builds one of torch's own optimizers."""
    return lambda model: load(f"torch.optim:{name}")(model.parameters(), lr=lr, **options)
