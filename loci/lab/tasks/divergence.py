"""How far fine-tuning in mixed precision ends from fine-tuning in float32: Mamba against a transformer.

Text is drawn from logits A[x_{t-1}] + B[x_{t-2}] over 32 characters. A model learns it, then is fine-tuned on text with
another B, all weights or LoRA, in float32, bfloat16 and float16, from the same weights and batches each time. The
divergence is the mean absolute difference of held-out accuracies between float32 and the same in half precision.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from loci.core.card import load
from loci.lab.claim import Evidence
from loci.lab.tasks.language import Transformer
from loci.lab.tasks.lowrank import adapt
from loci.lab.tasks.ssm import Mamba

V, T, D = 32, 32, 64
Kind: TypeAlias = Literal["mamba", "transformer"]
TARGETS = {"mamba": ("x_proj",), "transformer": ("q", "v")}
HALVES = (torch.bfloat16, torch.float16)


class MambaReader(nn.Module):
    """Two layers of Mamba over characters; expand=3 brings it near the size of the transformer."""

    def __init__(self, V: int, *, D: int = 64, expand: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, D)
        self.norms = nn.ModuleList([nn.LayerNorm(D), nn.LayerNorm(D)])
        self.layers = nn.ModuleList([Mamba(D, expand=expand, N=4), Mamba(D, expand=expand, N=4)])
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, V)

    def forward(self, codes: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        x = self.embed(codes)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x))
        out: Tensor = self.head(self.norm(x))
        return out


class Domain:
    """A source of text."""

    def __init__(self, seed: int, *, shifted: bool = False) -> None:
        random = torch.Generator().manual_seed(seed)
        A, first, second = (1.5 * torch.randn(V, V, generator=random) for _ in range(3))
        self.chance = (A[:, None] + (second if shifted else first)[None]).softmax(-1)  # (last, before, next)

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        """Texts (count, T + 1)."""
        text = torch.randint(V, (count, T + 3), generator=random)
        for t in range(2, T + 3):
            text[:, t] = torch.multinomial(self.chance[text[:, t - 1], text[:, t - 2]], 1, generator=random)[:, 0]
        return text[:, 2:]


def build(kind: Kind, seed: int) -> nn.Module:
    """A fresh model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MambaReader(V, D=D) if kind == "mamba" else Transformer(V, T=T, D=D)


def loss(model: nn.Module, text: Tensor) -> Tensor:
    """Cross-entropy of the next character, in float32."""
    return nn.functional.cross_entropy(model(text[:, :-1]).float().flatten(0, 1), text[:, 1:].flatten())


@torch.no_grad()
def accuracy(model: nn.Module, text: Tensor) -> float:
    """Percent of next characters that are the most likely one."""
    right = [model(part[:, :-1]).argmax(-1) == part[:, 1:] for part in torch.split(text, 256)]
    return float(torch.cat(right).float().mean() * 100)


def train(mode: Any, model: nn.Module, domain: Domain, *, turns: int, seed: int) -> None:
    """Steps on batches of 8 texts, the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    for _ in range(turns):
        text = domain.draw(8, random)
        mode.step(lambda text=text: loss(model, text))


def _mode(optimizer: torch.optim.Optimizer, dtype: torch.dtype) -> Any:
    modes = "loci.budget.energy.modes"
    return load(f"{modes}:Plain")(optimizer) if dtype == torch.float32 else load(f"{modes}:Autocast")(optimizer, dtype)


def tuned(
    pretrained: nn.Module, targets: Sequence[str] | None, dtype: torch.dtype, domain: Domain, *, turns: int, seed: int
) -> nn.Module:
    """A copy fine-tuned in a dtype, whole or (with targets) by LoRA."""
    model = copy.deepcopy(pretrained)
    if targets is not None:
        adapt(model, targets, rank=8, alpha=16.0, seed=seed)
    weights = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3 if targets is None else 1e-2, weight_decay=0.0)
    train(_mode(optimizer, dtype), model, domain, turns=turns, seed=seed)
    return model


def grid(kind: Kind, seed: int, *, pretraining: int = 300, turns: int = 40) -> dict[tuple[str, str], float]:
    """Held-out accuracy on the new text by what is tuned ("full", "lora", and "none") and by dtype."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, new = build(kind, seed), Domain(seed, shifted=True)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
        train(_mode(optimizer, torch.float32), model, Domain(seed), turns=pretraining, seed=seed)
        held_out = new.draw(1024, torch.Generator().manual_seed(seed + 1_000_000))
        found = {("none", "float32"): accuracy(model, held_out)}
        for name, targets in (("full", None), ("lora", TARGETS[kind])):
            for dtype in (torch.float32, *HALVES):
                one = tuned(model, targets, dtype, new, turns=turns, seed=seed)
                found[name, str(dtype).removeprefix("torch.")] = accuracy(one, held_out)
    finally:
        torch.set_num_threads(threads)
    return found


def divergence(found: dict[tuple[str, str], float]) -> float:
    """The mean absolute difference to float32, over all weights and LoRA, over both halves."""
    pairs = [(name, half) for name in ("full", "lora") for half in ("bfloat16", "float16")]
    return sum(abs(found[pair] - found[pair[0], "float32"]) for pair in pairs) / len(pairs)


def diverged(kind: Kind, seed: int) -> Evidence:
    """The divergence as evidence; bytes are those of the weights."""
    size = sum(param.nbytes for param in build(kind, seed).parameters())
    return Evidence(
        round(divergence(grid(kind, seed)), 4), "points of accuracy between float32 and half precision", size
    )


def icl_gain(
    predict: Callable[[Tensor], Tensor], *, shots: Sequence[int] = (1, 3, 5), seed: int, rows: int = 512
) -> float:
    """In-context improvement: accuracy after k examples less accuracy after none, averaged over k.

    A text shows k pairs of one key and its value among pairs of another key, then the key; the pairing is drawn anew for
    each text, keys are the lower half of the characters and values the upper. `predict` maps texts (B, T) to logits.
    """
    by_shots = {}
    for k in (0, *shots):
        text, answer = recall_texts(k, rows, torch.Generator().manual_seed(seed))
        by_shots[k] = float((predict(text)[:, -1].argmax(-1) == answer).float().mean())
    return sum(by_shots[k] - by_shots[0] for k in shots) / len(shots)


def recall_texts(k: int, rows: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Texts (rows, 2 (k + 1) + 1) that end with a key, and the value that belongs there."""
    keys = torch.rand(rows, V // 2, generator=random).argsort(1)[:, :2]  # the asked one and another
    values = torch.randint(V // 2, V, (rows, 2), generator=random)
    asked = torch.rand(rows, k + 1, generator=random).argsort(1) < k  # k places of k + 1
    which = (~asked).long()
    pairs = torch.stack([keys.gather(1, which), values.gather(1, which)], -1).flatten(1)
    return torch.cat([pairs, keys[:, :1]], 1), values[:, 0]
