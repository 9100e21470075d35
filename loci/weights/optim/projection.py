"""Projections of a matrix gradient (m, n) into a subspace of rank r, and back.

A basis is a dict with "left" (m, r), "right" (n, r), or both: which one is held says the side, never a shape.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from loci.weights.optim.base import shown
from loci.weights.optim.rules import Group, State

Side: TypeAlias = Literal["std", "reverse_std", "left", "right", "full"]
Basis: TypeAlias = dict[str, Tensor]
SIDES = ("std", "reverse_std", "left", "right", "full")


def sides(m: int, n: int, side: Side) -> tuple[str, ...]:
    """The sides that are projected: "std" is the shorter one, "reverse_std" the longer one, "full" both.

    >>> sides(8, 4, "std"), sides(4, 8, "std"), sides(8, 4, "reverse_std"), sides(8, 4, "full")
    (('right',), ('left',), ('left',), ('left', 'right'))
    """
    if side == "full":
        return ("left", "right")
    if side in ("left", "right"):
        return (side,)
    return ("right",) if (m >= n) == (side == "std") else ("left",)


def subspace(grad: Tensor, rank: int, which: tuple[str, ...]) -> Basis:
    """The leading singular vectors of a gradient, computed in float32 and kept in its dtype."""
    U, _, Vh = torch.linalg.svd(grad.float(), full_matrices=False)
    both = {"left": U[:, :rank], "right": Vh[:rank].T}
    return {side: both[side].to(grad.dtype).clone(memory_format=torch.contiguous_format) for side in which}


def lower(grad: Tensor, basis: Basis) -> Tensor:
    """Into the subspace: G P, P^T G, or U^T G V."""
    if "left" in basis:
        grad = basis["left"].T @ grad
    return grad @ basis["right"] if "right" in basis else grad


def lift(low: Tensor, basis: Basis) -> Tensor:
    """Back to (m, n): R P^T, P R, or U R V^T.

    >>> G = torch.outer(torch.arange(1.0, 7), torch.ones(4))
    >>> basis = subspace(G, 1, ("right",))
    >>> lower(G, basis).shape, torch.allclose(lift(lower(G, basis), basis), G, rtol=1e-5)
    (torch.Size([6, 1]), True)
    """
    if "left" in basis:
        low = basis["left"] @ low
    return low @ basis["right"].T if "right" in basis else low


def projected(param: Tensor, group: Group) -> bool:
    """Whether a parameter is a matrix of a group with a rank."""
    return group["rank"] is not None and param.dim() == 2


def basis(state: State) -> Basis:
    """The basis that a state holds."""
    return {side: state[side] for side in ("left", "right") if side in state}


def require_rank(optimizer: torch.optim.Optimizer, param: Tensor, group: Group) -> None:
    """Refuse a rank that a matrix of the group does not have, and a gap below 1."""
    if projected(param, group) and not 1 <= group["rank"] <= min(param.shape):
        raise ValueError(
            f"rank={group['rank']} does not fit {shown(optimizer, param)}; choose 1 <= rank <= {min(param.shape)}"
        )
    if group["update_proj_gap"] < 1:
        raise ValueError(f"update_proj_gap={group['update_proj_gap']} is below 1; give a number of steps of at least 1")


def one_of(name: str, given: object, known: tuple[str, ...]) -> None:
    """Refuse a word that is not among the known ones."""
    if given not in known:
        raise ValueError(f"{name}={given!r} is unknown; choose one of {', '.join(known)}")
