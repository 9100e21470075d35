"""The contract of contexts: what stands in for a long prompt before a frozen model.

    logits = model(tokens; prefix = Z, edit = e)                 with Z and e the context's own, the model's weights constants

A context gives every layer keys and values to be read before the tokens (`prefix`), or takes hold of what the heads say
before the output projection (`edit`), or both. The model is left as it was: neither its weights nor its `requires_grad` are
touched, no hook is set, and no gradient reaches it. An empty or silent context is the plain model.

Shapes: B batch, T time, V tokens, L layers, H heads (of keys or of queries, as the context says), d width of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from loci.state.context.open_transformer import Edit, Prefix


class OpenModel(Protocol):
    """What a context asks of a model; `OpenTransformer` is one, and has to be an nn.Module besides."""

    V: int
    L: int
    H: int
    G: int
    d: int

    def __call__(self, tokens: Tensor, *, prefix: Prefix | None = None, edit: Edit | None = None) -> Tensor:
        """(B, T) -> (B, T, V)."""


class Context(nn.Module, ABC):
    """Something small before a frozen model. Members write `prefix` or `edit`, `sizes_of`, `neutral` and `shapes`."""

    L: int
    H: int
    d: int
    trained: ClassVar[frozenset[str]] = frozenset()  # names of the parameters; all else is frozen, and so a buffer

    @staticmethod
    @abstractmethod
    def sizes_of(model: OpenModel) -> tuple[int, int, int]:
        """The L, H and d that fit a model."""

    @abstractmethod
    def neutral(self) -> Self:
        """One for the same model that changes nothing."""

    @abstractmethod
    def shapes(self) -> Mapping[str, float]:
        """What the names of the card's byte formula stand for; the formula is of the parameters and buffers."""

    def prefix(self) -> Prefix | None:
        """Turned keys and values of each layer, (1, H, p, d), to be read before the tokens; None for none."""
        return None

    def edit(self, lengths: Tensor) -> Edit | None:
        """What takes the heads' place, for rows whose prompts are `lengths` (B,) long; None for nothing."""
        return None

    def forward(self, model: OpenModel, tokens: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """The model's logits (B, T, V) with the context in place, for tokens (B, T).

        `lengths` (B,) is where each row's prompt ends, T unless given; what is behind is its continuation, or padding.
        ValueError for a model of other sizes, no tokens, or lengths that are not 1 to T.
        """
        lengths = self.required(model, tokens, lengths)
        return frozen(model, tokens, prefix=self.prefix(), edit=self.edit(lengths))

    def required(self, model: OpenModel, tokens: Tensor, lengths: Tensor | None) -> Tensor:
        """The rows' lengths; refuses what does not fit."""
        self.require_fit(model)
        if tokens.dim() != 2 or tokens.dtype != torch.int64 or not tokens.numel():
            raise ValueError(
                f"tokens is {tuple(tokens.shape)} of {_dtype(tokens)}; give (B, T) of int64, both at least 1"
            )
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < model.V:
            raise ValueError(
                f"tokens go from {int(tokens.min())} to {int(tokens.max())}; the model knows 0 to {model.V - 1}"
            )
        B, T = tokens.shape
        if lengths is None:
            return torch.full((B,), T, device=tokens.device)
        if lengths.shape != (B,) or lengths.dtype != torch.int64:
            raise ValueError(f"lengths is {tuple(lengths.shape)} of {_dtype(lengths)}; give ({B},) of int64")
        if not 1 <= int(lengths.min()) <= int(lengths.max()) <= T:
            raise ValueError(f"lengths={lengths.tolist()} do not fit {T} tokens; give 1 to {T}")
        return lengths

    def require_fit(self, model: OpenModel) -> None:
        """Refuse a model of other sizes."""
        if (self.L, self.H, self.d) != self.sizes_of(model):
            raise ValueError(
                f"{type(self).__name__} is for (layers, heads, width of a head) = {(self.L, self.H, self.d)}, the model has "
                f"{self.sizes_of(model)}; build one with .of(model, ...)"
            )

    def save(self, path: str | Path) -> None:
        """Write parameters and buffers into a safetensors file."""
        held = {name: part.detach().contiguous() for name, part in self.state_dict().items()}
        save_file(held, path, metadata={"loci.context": type(self).__name__})

    def load(self, path: str | Path) -> Self:
        """Take parameters and buffers from a file that a context of the same method, sizes and dtype wrote; returns itself.

        ValueError, and nothing is changed, where the file is of another.
        """
        with safetensors.safe_open(path, "pt") as file:
            kind: Any = (file.metadata() or {}).get("loci.context")
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file, not a dict
        if kind != type(self).__name__:
            raise ValueError(
                f"{path} holds {kind or 'no context'}, not {type(self).__name__}; load it with its own class"
            )
        due, got = (_described(parts) for parts in (self.state_dict(), found))
        if due != got:
            raise ValueError(
                f"{path} holds {got}, {type(self).__name__} is {due}; build one of the file's sizes and dtype"
            )
        self.load_state_dict(found)
        return self


def frozen(model: OpenModel, tokens: Tensor, *, prefix: Prefix | None = None, edit: Edit | None = None) -> Tensor:
    """The model's logits with its weights as constants, whether or not they ask for a gradient."""
    assert isinstance(model, nn.Module), "an open model is an nn.Module"
    weights = {name: param.detach() for name, param in model.named_parameters()}
    logits: Tensor = functional_call(model, weights, (tokens,), {"prefix": prefix, "edit": edit})
    return logits


def _described(parts: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{tuple(part.shape)} {_dtype(part)}" for name, part in sorted(parts.items())}


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")
