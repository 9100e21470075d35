"""Plans: the ways to train one model that `fit` weighs against each other."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, TypeAlias, get_args

from loci.core.card import load

Precision: TypeAlias = Literal["fp32", "bf16-mixed", "fp16-mixed", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
TORCH: dict[str, tuple[str, dict[str, Any], str]] = {  # baselines: entry, options, name in lab/pareto.jsonl
    "adamw": ("torch.optim:AdamW", {"lr": 1e-3}, "torch/AdamW"),
    "sgd": ("torch.optim:SGD", {"lr": 0.01, "momentum": 0.9}, "torch/SGD with momentum"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """One way: an optimizer by name, numbers, whether activations are recomputed, parts of the batch, fused updates."""

    optimizer: str = "adamw"
    precision: Precision = "fp32"
    checkpointing: bool = False
    micro_batches: int = 1
    fused: bool = False  # each parameter is stepped inside backward, and its gradient freed

    def __str__(self) -> str:
        parts = [self.optimizer, self.precision]
        parts += ["checkpointing"] if self.checkpointing else []
        parts += [f"{self.micro_batches} micro-batches"] if self.micro_batches > 1 else []
        parts += ["fused backward"] if self.fused else []
        return ", ".join(parts)


@cache
def optimizers() -> dict[str, str]:
    """Entry of every optimizer by its name: torch's baselines, then those of the catalogue."""
    return {name: entry for name, (entry, *_) in TORCH.items()} | {row["name"]: row["entry"] for row in _rows()}


def describe(name: str) -> str:
    """What the optimizer says of itself on its card."""
    said = {row["name"]: row["says"] for row in _rows()}
    return str(said.get(name, f"torch.optim.{optimizers()[name].rpartition(':')[2]}"))


def member(name: str) -> Any:
    """The class of an optimizer; a ValueError names those there are."""
    if name not in optimizers():
        raise ValueError(f"optimizer={name!r} is unknown; choose one of {', '.join(optimizers())}")
    return load(optimizers()[name])


def takes(name: str, option: str) -> bool:
    """Whether an optimizer has an option, such as a rank."""
    return option in inspect.signature(member(name).__init__).parameters


def fuses(name: str) -> bool:
    """Whether an optimizer can step single parameters inside backward."""
    return hasattr(member(name), "update")


def is_zeroth_order(name: str) -> bool:
    """Whether an optimizer needs losses alone."""
    return bool(getattr(member(name), "zeroth_order", False))


def candidates(
    rows: int,
    *,
    optimizer: Sequence[str] | None = None,
    precision: Sequence[Precision] | None = None,
    blocks: bool = True,
) -> Iterator[Plan]:
    """Every plan of a batch of `rows`: micro-batches in powers of two, checkpointing where the model has `blocks`."""
    for name in optimizer or list(optimizers()):
        zeroth = is_zeroth_order(name)
        for numbers in precision or ("fp32", "bf16-mixed", "bf16"):
            if numbers not in PRECISIONS:
                raise ValueError(f"precision={numbers!r} is unknown; choose one of {', '.join(PRECISIONS)}")
            for micro in _divisors(rows):
                for again in (False, True) if blocks and not zeroth else (False,):
                    yield Plan(name, numbers, again, micro)
                    if micro == 1 and fuses(name) and numbers != "fp16-mixed":
                        yield Plan(name, numbers, again, micro, fused=True)


def _divisors(rows: int) -> list[int]:
    powers = (2**power for power in range(7))  # more parts than 64 save nothing to speak of
    return [parts for parts in powers if parts <= rows and rows % parts == 0]


@cache
def losses() -> dict[str, float]:
    """Held-out loss above AdamW's of each optimizer that was measured, in nats a character (lab/pareto.jsonl)."""
    file = resources.files("loci.lab").joinpath("pareto.jsonl")
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    found = {row["of"]: row["loss"] for row in map(json.loads, lines) if row["loss"] is not None}
    best = found.get("torch/AdamW")
    names = {name: TORCH[name][2] if name in TORCH else f"optimizer/{name}" for name in optimizers()}
    return {} if best is None else {name: round(found[of] - best, 2) for name, of in names.items() if of in found}


@cache
def _rows() -> list[dict[str, Any]]:
    lines = resources.files("loci").joinpath("catalog.jsonl").read_text("utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "optimizer"]
