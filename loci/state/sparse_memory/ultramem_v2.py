"""UltraMemV2: a memory in every block, all of them windows of one pool, each row a neuron with its own gate.

    [q_1 | q_2] = norm(W_q h),    s_x[i, a] = q_x . norm(K_x[i, a]),    (places, w_c) = search(s_1, s_2; C_c)     (`tucker`)
    row_t = pool row of shuffle[place_t],    z_t = (W_p h) . P[row_t]                                              (`pool`)
    y = W_v concat_c ( sum_t z_t w_{c,t} V[row_t][slice c] )

No softmax: scores may be negative. A block adds it beside its feed-forward layer, from the same normalised input:
x + ffn(norm(x)) + memory(norm(x)). Memories of a model share the pool:

    pool = Pool(48, layers=4, d_v=64, d_p=64, std=balanced_std(64, m=8, heads=1, d_v=64, d_p=64, layers=4))
    memories = nn.ModuleList(UltraMemV2(64, pool, layer=layer) for layer in range(4))

The leading vectors of the search are buffers. Call `refresh` after each step of the optimizer: without it they grow old,
and stage 1 of the search with them. Tables learn faster at first: `base.groups`, `base.table_rate`.

Paper: Huang et al., "UltraMemV2: Memory Networks Scaling to 120B Parameters with Superior Long-Context Learning",
arXiv:2508.18756.
Differs: leading vectors are right from the start (in the code zero until the training loop sets them), and start with the
sign in which they sum above zero; W_q has no rows that nothing reads (in the code half of them with one head); keys are kept as
(H, 2, r, n, K); W_v starts as in the code without its scale for depth. No balance loss, GELU on the gate or dropout, which are
off in the released run.
Keeps: b*(T*(d_v + d_p) + D*(2*G*K + d_v + d_p) + 2*H*r*k*K + 2*K + c*H*r*r + 2*H*r) + 8*k*k bytes, with G = ceil(H/2) and
k = e*side keys a side; the first term is of the pool, once for all layers. A token reads H*m*(d_v + d_p)*b of rows.

Shapes: N tokens, D width, H heads, K width of keys, k keys a side, r rank, c cores, m rows a head, e expansion, T rows.

>>> memory = UltraMemV2(8, {"n": 6, "layers": 2, "d_v": 4, "d_p": 4}, layer=1, m=5)
>>> memory(torch.ones(3, 8)).shape, memory.touched_bytes()
(torch.Size([3, 8]), 160)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.core.card import method
from loci.state.sparse_memory.base import SparseMemory
from loci.state.sparse_memory.pool import Pool
from loci.state.sparse_memory.tucker import Found, leading, search, weights_of_all

SHARING = 2  # heads that share one query


@method(
    name="ultramem-v2",
    kind="sparse-memory",
    title="UltraMemV2: Memory Networks Scaling to 120B Parameters with Superior Long-Context Learning",
    paper="arXiv:2508.18756",
    says="a memory in every block over one shared pool of gated rows: large capacity, a few dozen rows read by a token",
    bytes="b*(T*(d_v + d_p) + D*(2*ceil(H/2)*K + d_v + d_p) + 2*H*r*k*K + 2*K + c*H*r*r + 2*H*r) + 8*k*k",
    example={
        "D": 6, "pool": {"n": 6, "layers": 2, "d_v": 4, "d_p": 3, "std": 0.5}, "layer": 1, "K": 8, "m": 4, "heads": 3,
        "share": 0.7, "expand": 2,
    },
    needs=("torch",),
    system="ultramem_v2",
)  # fmt: skip
class UltraMemV2(SparseMemory):
    """The memory of one layer over a pool that is given, or over one of its own made of the given arguments of `Pool`."""

    shuffle: Tensor
    u: Tensor
    v: Tensor

    def __init__(
        self,
        D: int,
        pool: Pool | Mapping[str, Any],
        *,
        layer: int = 0,
        K: int = 32,
        m: int = 32,
        heads: int = 1,
        rank: int = 2,
        cores: int = 2,
        share: float = 0.5,
        expand: int = 1,
    ) -> None:
        super().__init__()
        self.pool = pool if isinstance(pool, Pool) else Pool(**pool)
        self.D, self.layer, self.K, self.heads, self.rank, self.cores = D, layer, K, heads, rank, cores
        self.side = self.pool.side(share)
        self.k = expand * self.side
        self.m = min(m, self.k)
        self.touches = heads * self.m
        self._refuse(expand)
        d_v, d_p = self.pool.d_v, self.pool.d_p
        self.query = nn.Linear(D, math.ceil(heads / SHARING) * 2 * K, bias=False)
        self.keys = nn.Parameter(torch.randn(heads, 2, rank, self.k, K) / math.sqrt(K))
        self.query_norm, self.key_norm = (nn.LayerNorm(K, bias=False) for _ in range(2))
        self.core = nn.Parameter(torch.rand(cores, heads, rank, rank))
        self.gate = nn.Linear(D, d_p, bias=False) if d_p else None
        self.out = nn.Linear(d_v, D, bias=False)
        self.register_buffer("shuffle", torch.randperm(self.k**2))
        self.register_buffer("u", torch.ones(heads, rank))
        self.register_buffer("v", torch.ones(heads, rank))
        self.reset_parameters()

    def _refuse(self, expand: int) -> None:
        """A size that does not fit is one ValueError."""
        sizes = {"D": self.D, "K": self.K, "m": self.m, "heads": self.heads, "rank": self.rank, "cores": self.cores}
        small = [f"{name}={size}" for name, size in {**sizes, "expand": expand}.items() if size < 1]
        if small:
            raise ValueError(f"{', '.join(small)} makes no memory; choose at least 1")
        if not 0 <= self.layer < self.pool.layers:
            raise ValueError(
                f"layer={self.layer} is not of a pool of {self.pool.layers}; choose 0 to {self.pool.layers - 1}"
            )
        if self.pool.d_v % self.cores:
            raise ValueError(f"cores={self.cores} do not divide d_v={self.pool.d_v}; choose one that does")

    def reset_parameters(self) -> None:
        """Scales of the paper's code; norms start far below 1, and diverge where they do not."""
        with torch.no_grad():
            self.query.weight.normal_(std=self.K**-0.5)
            for norm in (self.query_norm, self.key_norm):
                norm.weight.fill_(self.K**-0.4)
            self.out.weight.normal_(std=self.pool.d_v**-0.5)
            if self.gate is not None:
                self.gate.weight.normal_(std=self.D**-0.5)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the leading vectors from the cores as they are now, in the sign that they had."""
        for buffer, new in zip((self.u, self.v), leading(self.core, self.u, self.v), strict=True):
            buffer.copy_(new)

    def scores(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """What the keys of each side say of the tokens, (N, H, k, r) each."""
        queries = self.query_norm(self.query(h).unflatten(-1, (-1, 2, self.K)))  # (N, G, 2, K)
        queries = queries.repeat_interleave(SHARING, 1)[:, : self.heads]
        s1, s2 = torch.einsum("nhxk,hxrik->xnhir", queries, self.key_norm(self.keys)).unbind()
        return s1, s2

    def found(self, h: Tensor) -> Found:
        """Places of the virtual grid and their weights, as the search gives them."""
        return search(*self.scores(h), self.core, self.u, self.v, m=self.m)

    def rows(self, h: Tensor) -> Tensor:
        """Head after head, best first."""
        return self.pool.rows(self.shuffle[self.found(h).places], layer=self.layer, side=self.side).flatten(1)

    def read(self, h: Tensor) -> Tensor:
        """Gather the rows, gate them, sum them up core by core."""
        places, weights = self.found(h)
        rows = self.pool.rows(self.shuffle[places], layer=self.layer, side=self.side).flatten(1)  # (N, H m)
        weights = weights.flatten(2)  # (c, N, H m)
        if self.gate is not None and self.pool.gates is not None:
            gates = functional.embedding(rows, self.pool.gates)
            weights = weights * torch.einsum("nd,nmd->nm", self.gate(h), gates)
        values = functional.embedding(rows, self.pool.values).view(*rows.shape, self.cores, -1)  # (N, H m, c, d_v / c)
        y: Tensor = self.out(torch.einsum("cnm,nmcd->ncd", weights.to(values.dtype), values).flatten(1))
        return y

    def densely(self, h: Tensor) -> Tensor:
        """Weights of the whole virtual grid, brought to the rows by a matrix of ones and zeros."""
        weights = weights_of_all(*self.scores(h), self.core, self.u, self.v, m=self.m).sum(2)  # (c, N, k k)
        stands_for = self.pool.rows(self.shuffle, layer=self.layer, side=self.side)
        weights = weights @ functional.one_hot(stands_for, self.pool.T).to(weights.dtype)  # (c, N, T)
        if self.gate is not None and self.pool.gates is not None:
            weights = weights * (self.gate(h) @ self.pool.gates.T)
        slices = self.pool.values.chunk(self.cores, 1)
        y: Tensor = self.out(torch.cat([w @ part for w, part in zip(weights, slices, strict=True)], 1))
        return y

    def tables(self) -> tuple[nn.Parameter, ...]:
        """Values and gates of the pool."""
        return (self.pool.values,) if self.pool.gates is None else (self.pool.values, self.pool.gates)

    def shapes(self) -> Mapping[str, float]:
        """T rows of the whole pool, k keys a side of H heads and rank r, c cores, b bytes a number."""
        widths = {"D": self.D, "d_v": self.pool.d_v, "d_p": self.pool.d_p, "K": self.K, "k": self.k}
        counts = {"T": self.pool.T, "H": self.heads, "r": self.rank, "c": self.cores}
        return {**widths, **counts, "b": self.out.weight.element_size()}
