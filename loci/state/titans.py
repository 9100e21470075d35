"""Titans' long-term memory: a momentum of surprise, the gradient at the newest token, moves a memory that forgets.

    S_t = theta_t S_{t-1} + eta_t grad |M(k_t) - v_t|^2,    M_t = alpha_t M_{t-1} - S_t

It is the Omega rule with a window of one token and momentum. In a chunk, gradients are those at its start, and M_t is
linear in them: `travel` applies it as attention does and builds no M_t. With chunk=1 it is token by token.

Paper: Behrouz, Zhong, Mirrokni, "Titans: Learning to Memorize at Test Time", arXiv:2501.00663.
Differs: S has the sign of the gradient and alpha is what is kept; the paper's are the opposites. A net has one hidden layer
and a residual. The memory alone: no persistent tokens, no attention beside it, no norm or gate after it.
Keeps: b*B*((W - 1)*3*H*d + (c - 1)*H*(2*d + 1) + n*H*P) + 8*p*B bytes with c = 1: P = d*d numbers of a matrix, 2*h*d of a net
of h units; n = 3 and p = 1 (M, S, M at the start of the chunk, the place in it), n = 2 and p = 0 for chunk=1.

>>> import torch
>>> mixer = Titans(8, heads=2, hidden=16)
>>> y, state = mixer(torch.randn(3, 20, 8))
>>> y.shape, state[4].shape, state[5].shape
(torch.Size([3, 20, 8]), torch.Size([3, 2, 4, 16]), torch.Size([3, 2, 16, 4]))
"""

from __future__ import annotations

from torch import Tensor

from loci.core.card import method
from loci.state.mlstm import segment_sums
from loci.state.omega import Apply, Course, Factors, Fed, Omega, Weights, travel_linearly


@method(
    name="titans",
    kind="mixer",
    title="Titans: Learning to Memorize at Test Time",
    paper="arXiv:2501.00663",
    says="a memory trained while it reads, by gradient steps with momentum on the newest token",
    bytes="b*B*((W - 1)*3*H*d + (c - 1)*H*(2*d + 1) + n*H*P) + 8*p*B",
    example={"D": 4, "heads": 2, "chunk": 4},
    needs=("torch",),
    system="atlas",
)
class Titans(Omega):
    """The long-term memory module; the state is (convolution, k, v, gamma of no tokens, M - M_0, S, frozen M - M_0, place)."""

    gates = ("alpha", "eta", "theta")
    momentum = True

    def __init__(
        self,
        D: int,
        *,
        heads: int = 4,
        head: int | None = None,
        degree: int = 1,
        hidden: int | None = None,
        chunk: int = 16,
        conv: int = 4,
    ) -> None:
        super().__init__(D, heads=heads, head=head, window=1, degree=degree, hidden=hidden, chunk=chunk, conv=conv)

    def rule(self, fed: Fed, G: Tensor, M: Tensor, S: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Surprise fades and comes anew."""
        assert S is not None
        S = fed.log_theta.exp() * S + fed.eta * G
        return fed.log_alpha.exp() * M - S, S

    def travel(self, fed: Fed, factors: list[Factors], M: Weights, S: Weights) -> tuple[list[Apply], Weights, Weights]:
        """Two decays, one behind the other."""
        kept, faded = segment_sums(fed.log_alpha).exp(), segment_sums(fed.log_theta).exp()
        surprise = faded * fed.eta.unsqueeze(-2)  # of each token's gradient in S_t
        fading = fed.log_theta.cumsum(-1).exp()
        course = Course(fed.log_alpha.cumsum(-1).exp(), kept @ surprise, (kept @ fading.unsqueeze(-1)).squeeze(-1))
        apply, last = travel_linearly(course, factors, M, S)
        after = Course(fading, -surprise)
        return apply, last, travel_linearly(after, factors, S, ())[1]
