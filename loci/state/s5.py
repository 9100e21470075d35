"""S5: one linear system with a complex diagonal, as fast over a whole rollout as a convolution, resets inside.

    x_t = Lbar x_{t-1} + Bbar u_t,    y_t = 2 Re(C x_t) + skip * u_t          x_{t-1} = 0 where an episode begins at t
    Lbar = exp(Lambda Delta),    Bbar = Lambda^-1 (Lbar - 1) B                zero-order hold, Delta learned per state

Lambda and the eigenvectors V start as those of the normal part of HiPPO-LegS, B as V* B', C as C' V with random B' and C'.
Eigenvalues come in conjugate pairs, of which one is held: P/2 complex numbers for a system of size P. Acting step by
step and training over rollouts in which episodes end are the same numbers, since the scan is `associative.linear_scan`.

Paper: Smith, Warrington, Linderman, "Simplified State Space Layers for Sequence Modeling", arXiv:2208.04933; resets from Lu
et al., "Structured State Space Models for In-Context Reinforcement Learning", arXiv:2303.03982.
Differs: Lbar - 1 is expm1, which keeps small steps exact; complex numbers are held as pairs of real ones, so that dtypes
and optimizers need not know of them; C' has S5's variance 1/P, the code of the second paper's has 1/(P D) by its fan-in;
one HiPPO block; time is not seen backwards.
Keeps: b*B*P bytes, b = 4 for a real number (8 in float64; bfloat16 weights carry a float32 state).

Shapes: B batch, T time, D width, P size of the system.

>>> mixer = S5(3, 8)
>>> y, (x,) = mixer(torch.ones(2, 5, 3))
>>> y.shape, x.shape
(torch.Size([2, 5, 3]), torch.Size([2, 4, 2]))
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.associative import linear_scan
from loci.state.mixer import Mixer, State

STEPS = (0.001, 0.1)  # Delta is drawn between these, uniformly in its logarithm
TRUNCATED = 0.87962566103423978  # standard deviation of a standard normal that is cut off at 2


@method(
    name="s5",
    kind="mixer",
    title="Simplified State Space Layers for Sequence Modeling",
    paper="arXiv:2208.04933",
    says="a diagonal linear system from HiPPO: trains in parallel over rollouts in which episodes end, acts in constant memory",
    bytes="b*B*P",
    example={"D": 4, "P": 6},
    needs=("torch",),
    system="s5_rl",
)
class S5(Mixer):
    """The system alone, without a nonlinearity; `S5RL` stacks layers of it.

    `ceiling` bounds the real parts of the eigenvalues, which training may make positive: -1e-4 for streams without end.
    """

    def __init__(self, D: int, P: int = 64, *, ceiling: float | None = None) -> None:
        super().__init__()
        if D < 1 or P < 2 or P % 2:
            raise ValueError(f"D={D}, P={P} is no system of conjugate pairs; choose D >= 1 and an even P >= 2")
        self.D, self.P, self.ceiling = D, P, ceiling
        Lambda, V = hippo(P)
        B = V.mH @ _lecun(P, D, fan_in=P).to(V.dtype)
        C = torch.view_as_complex(_lecun(D, P, 2, fan_in=P)) @ V
        self.Lambda = nn.Parameter(_pairs(Lambda))  # (P/2, 2)
        self.B = nn.Parameter(_pairs(B))  # (P/2, D, 2)
        self.C = nn.Parameter(_pairs(C))  # (D, P/2, 2)
        self.skip = nn.Parameter(torch.randn(D))
        low, high = map(math.log, STEPS)
        self.log_step = nn.Parameter(low + (high - low) * torch.rand(P // 2))

    def initial_state(self, batch: int) -> State:
        """Zeros (B, P/2, 2): real and imaginary parts."""
        return (_wide(self.skip).new_zeros(batch, self.P // 2, 2),)

    def shapes(self, batch: int) -> Mapping[str, float]:
        """B rows of a system of size P, D wide, b bytes for a real number."""
        return {"B": batch, "P": self.P, "D": self.D, "b": _wide(self.skip).element_size()}

    def discrete(self) -> tuple[Tensor, Tensor]:
        """Lbar (P/2) and Bbar (P/2, D), complex."""
        Lambda = torch.view_as_complex(_wide(self.Lambda))
        if self.ceiling is not None:
            Lambda = torch.complex(Lambda.real.clamp(max=self.ceiling), Lambda.imag)
        exponent = Lambda * _wide(self.log_step).exp()
        hold = torch.expm1(exponent) / Lambda
        return exponent.exp(), hold.unsqueeze(-1) * torch.view_as_complex(_wide(self.B))

    def fed(self, Bbar: Tensor, u: Tensor) -> Tensor:
        """Bbar u, (..., D) -> (..., P/2) complex, as one real product."""
        weight = torch.view_as_real(Bbar).transpose(0, 1).flatten(1)  # (D, P)
        return torch.view_as_complex((u @ weight).view(*u.shape[:-1], -1, 2))

    def read(self, x: Tensor, u: Tensor) -> Tensor:
        """2 Re(C x) + skip * u, (..., P/2) complex and (..., D) -> (..., D), as one real product."""
        weight = _wide(self.C) * torch.tensor([2.0, -2.0], dtype=u.dtype, device=u.device)
        return torch.addcmul(torch.view_as_real(x).flatten(-2) @ weight.flatten(1).T, u, _wide(self.skip))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One moment of the recurrence."""
        with torch.autocast(x.device.type, enabled=False):
            u = x.to(state[0].dtype)
            Lbar, Bbar = self.discrete()
            after = Lbar * torch.view_as_complex(state[0]) + self.fed(Bbar, u)
            return self.read(after, u).to(x.dtype), (torch.view_as_real(after),)

    def scan(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """All moments in few rounds."""
        return self.scanned(x, state, None)

    def scan_with_resets(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """The same scan, with resets in it."""
        return self.scanned(x, state, reset)

    def scanned(self, x: Tensor, state: State, reset: Tensor | None) -> tuple[Tensor, State]:
        """(B, T, D), state and resets (B, T) -> (B, T, D) and the last state."""
        if not x.shape[1]:
            return x, state
        with torch.autocast(x.device.type, enabled=False):
            u = x.to(state[0].dtype)
            Lbar, Bbar = self.discrete()
            decay = Lbar.expand(1, x.shape[1], -1)
            found = linear_scan(decay, self.fed(Bbar, u), torch.view_as_complex(state[0]), reset=reset)
            return self.read(found, u).to(x.dtype), (torch.view_as_real(found[:, -1].clone()),)


def hippo(P: int) -> tuple[Tensor, Tensor]:
    """Half the eigenvalues (P/2) and eigenvectors (P, P/2) of the normal part of HiPPO-LegS, in complex128.

    >>> [round(float(part), 3) for part in hippo(2)[0][0].view(1).view(torch.float64)]
    [-0.5, -0.866]
    """
    n = torch.arange(P, dtype=torch.float64)
    p, q = (1 + 2 * n).sqrt(), (n + 0.5).sqrt()
    S = -(torch.outer(p, p).tril() - torch.diag(n)) + torch.outer(q, q)  # skew-symmetric, less half the identity
    imag, V = torch.linalg.eigh(S * -1j)
    half = P // 2
    return torch.complex(S.diagonal().mean().expand(half), imag[:half]), V[:, :half].contiguous()


def _lecun(*shape: int, fan_in: int) -> Tensor:
    """Normal of variance 1/fan_in, cut off at twice its scale, in float64."""
    std = fan_in**-0.5 / TRUNCATED
    return nn.init.trunc_normal_(torch.empty(*shape, dtype=torch.float64), std=std, a=-2 * std, b=2 * std)


def _pairs(value: Tensor) -> Tensor:
    return torch.view_as_real(value.resolve_conj()).to(torch.get_default_dtype()).contiguous()


def _wide(value: Tensor) -> Tensor:
    """In float32 or wider."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
