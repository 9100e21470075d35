"""ATLAS: the Omega rule with Muon inside: steps along the momentum with its singular values made alike.

    S_t = theta_t S_{t-1} + grad L_t(M),    M_t = alpha_t M_{t-1} - eta_t NS_5(S_t)
    L_t(M) = sum_{i = t-c+1..t} gamma_i |M(phi(k_i)) - v_i|^2

A gradient step learns the directions that many keys share and is slow in the others; NS_5 goes as far in each. S is kept
raw, NS_5 is taken anew at every token, weight by weight. It multiplies what is small in S up to 484 fold, and rounding too:
where S is square or nearly singular, float32 runs of the same text drift apart, and so do scan and steps. In a chunk, gradients are those at its start; S_t is a weighted
sum of the tokens' outer products, and NS_5 runs on all of a chunk at once. With chunk=1 it is token by token.

Paper: Behrouz et al., "ATLAS: Learning to Optimally Memorize the Context at Test Time", arXiv:2505.23735.
Differs: gamma_i is the token's own and does not change as the window moves on; the net is residual in the key, the first
features of phi, which has more than M says; what is read passes no norm or gate of its own.
Keeps: b*B*((W - 1)*3*H*d + (c - 1)*H*(2*d + 1) + n*H*P) + 8*p*B bytes: P = d*F numbers of a matrix, h*(d + F) of a net of h
units over F features; n = 3 and p = 1 (M, S, M at the start of the chunk, the place in it), n = 2 and p = 0 for chunk=1.

>>> import torch
>>> mixer = Atlas(8, heads=2, window=4)
>>> y, state = mixer(torch.randn(3, 20, 8))
>>> y.shape, state[4].shape, state[5].shape
(torch.Size([3, 20, 8]), torch.Size([3, 2, 4, 14]), torch.Size([3, 2, 4, 14]))
"""

from __future__ import annotations

from torch import Tensor

from loci.core.card import method
from loci.state.mlstm import segment_sums
from loci.state.newton_schulz import newton_schulz
from loci.state.omega import Apply, Factors, Fed, Omega, Weights, band


@method(
    name="atlas",
    kind="mixer",
    title="ATLAS: Learning to Optimally Memorize the Context at Test Time",
    paper="arXiv:2505.23735",
    says="a memory trained while it reads, by orthogonalised momentum on a window of tokens over polynomial features",
    bytes="b*B*((W - 1)*3*H*d + (c - 1)*H*(2*d + 1) + n*H*P) + 8*p*B",
    example={"D": 4, "heads": 2, "window": 3, "hidden": 3, "chunk": 4},
    needs=("torch",),
    system="atlas",
)
class Atlas(Omega):
    """The Omega rule under Muon; the state is (convolution, k, v, gamma, M - M_0, S, frozen M - M_0, place)."""

    gates = ("alpha", "eta", "gamma", "theta")
    momentum = True

    def __init__(
        self,
        D: int,
        *,
        heads: int = 4,
        head: int | None = None,
        window: int = 8,
        degree: int = 2,
        hidden: int | None = None,
        chunk: int = 16,
        conv: int = 4,
    ) -> None:
        super().__init__(D, heads=heads, head=head, window=window, degree=degree, hidden=hidden, chunk=chunk, conv=conv)

    @property
    def ceiling(self) -> float:
        """1: how long a step is does not depend on the window."""
        return 1.0

    @property
    def first(self) -> float:
        """At most 1/32, since steps do not grow shorter near the goal: long ones throw M about, and rounding with it."""
        return 1 / (4 * max(self.chunk, 8))

    def rule(self, fed: Fed, G: Tensor, M: Tensor, S: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The momentum is kept as it is; the step is along its orthogonal part."""
        assert S is not None
        S = fed.log_theta.exp() * S + G
        return fed.log_alpha.exp() * M - fed.eta * newton_schulz(S), S

    def travel(self, fed: Fed, factors: list[Factors], M: Weights, S: Weights) -> tuple[list[Apply], Weights, Weights]:
        """All momenta of the chunk, NS_5 of all of them, and the decayed sums."""
        kept = segment_sums(fed.log_alpha).exp() * fed.eta.unsqueeze(-2)
        keep = fed.log_alpha.cumsum(-1).exp()[..., None, None]
        inflow = segment_sums(fed.log_theta).exp() @ band(fed.q.shape[2], self.window, fed.q)  # (B, H, T, I)
        fading = fed.log_theta.cumsum(-1).exp()[..., None, None]
        apply, last, momenta = [], [], []
        for weight, momentum, (left, right) in zip(M, S, factors, strict=True):
            arrived = (inflow.unsqueeze(-1) * left.unsqueeze(2)).mT @ right.unsqueeze(2)  # (B, H, T, m, n)
            S_t = fading * momentum.unsqueeze(2) + arrived
            steps = (kept @ newton_schulz(S_t).flatten(-2)).view_as(S_t)
            M_t = keep * weight.unsqueeze(2) - steps
            apply.append(_each(M_t))
            # copies: views would keep all of the chunk alive
            last.append(M_t[:, :, -1].clone())
            momenta.append(S_t[:, :, -1].clone())
        return apply, tuple(last), tuple(momenta)


def _each(weights: Tensor) -> Apply:
    """A weight of its own for each token, (B, H, T, m, n)."""
    return lambda z: (weights @ z.unsqueeze(-1)).squeeze(-1)
