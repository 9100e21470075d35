"""Projections of a matrix gradient (m, n) into a subspace of rank r, and back.

A basis is a dict with "left" (m, r), "right" (n, r), or both: which one is held says the side, never a shape.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from loci.weights.optim.base import shown
from loci.weights.optim.rules import Group, State
from loci.weights.optim.sharding import like, settled, sharded, whole

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
    """The leading singular vectors of a gradient, kept in its dtype; the largest element of each is positive.

    Those of the shorter side alone, which GaLore asks for, are the eigenvectors of the Gram matrix of that side. In float64
    it is the better way, not only the cheaper one: a vector's error is 1e-16 * s_1^2 over the gap of the squares, against
    6e-8 * s_1 over the gap of the singular values in a float32 SVD, so it wins for every s above 1e-8 * s_1, which is all that
    float32 gradients know. A 2048 x 512 one takes half the time, a 512 x 2048 one a third. Other sides take the SVD.
    """
    m, n = grad.shape
    if sharded(grad):
        return {side: like(P, grad) for side, P in subspace(whole(grad), rank, which).items()}
    if len(which) > 1 or (m > n if which == ("left",) else n > m):
        return subspace_by_svd(grad, rank, which)
    wide = (grad.cpu() if grad.device.type == "mps" else grad).double()  # Metal has no float64
    wide = wide / wide.abs().amax().clamp(min=torch.finfo(torch.float64).tiny)  # whose squares are finite
    _, vectors = torch.linalg.eigh(wide @ wide.T if which == ("left",) else wide.T @ wide)  # ascending
    return {which[0]: _kept(vectors[:, -rank:].flip(1), grad)}


def subspace_by_svd(grad: Tensor, rank: int, which: tuple[str, ...]) -> Basis:
    """The same by the whole SVD, in float32 at least: the obvious form, for any side or both.

    >>> G = torch.diag(torch.tensor([1.0, 3.0, -2.0]))
    >>> subspace_by_svd(G, 2, ("right",))["right"].tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    """
    U, _, Vh = torch.linalg.svd(grad if grad.dtype == torch.float64 else grad.float(), full_matrices=False)
    both = {"left": U[:, :rank], "right": Vh[:rank].T}
    return {side: _kept(both[side], grad) for side in which}


def _kept(vectors: Tensor, grad: Tensor) -> Tensor:
    """Columns with their signs settled, as a tensor of its own of the gradient's kind."""
    signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    return (vectors * signs).to(grad).contiguous()


def lower(grad: Tensor, basis: Basis) -> Tensor:
    """Into the subspace: G P, P^T G, or U^T G V."""
    if "left" in basis:
        grad = settled(basis["left"].T @ grad)
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
