"""OmegaNet: a memory that takes a gradient step on its last c tokens at every token, so that pairs do not overwrite pairs.

    M_t = alpha_t M_{t-1} - eta_t grad L_t(M),    L_t(M) = sum_{i = t-c+1..t} gamma_i |M(phi(k_i)) - v_i|^2

With c = 1, eta = 1/2, gamma = 1 and a matrix over unit keys this is the delta rule; with a window as long as the text, a
regression on all of it. In a chunk, gradients are those at its start, so M_t is M_t' decayed, less a weighted sum of the
tokens' outer products: `travel` applies that as attention does and builds no M_t. With chunk=1 it is token by token.

Paper: Behrouz et al., "ATLAS: Learning to Optimally Memorize the Context at Test Time", arXiv:2505.23735.
Differs: gamma_i is the token's own and does not change as the window moves on; eta is a sigmoid over c, so that the step is
of the window's mean; the net is residual in the key, the first features of phi, which has more than M says; what is
read passes no norm or gate of its own.
Keeps: b*B*((W - 1)*3*H*d + (c - 1)*H*(2*d + 1) + n*H*P) + 8*p*B bytes: P = d*F numbers of a matrix, h*(d + F) of a net of h
units over F features; n = 2 and p = 1, M at the start of the chunk and the place in it, but for chunk=1.

>>> import torch
>>> mixer = OmegaNet(8, heads=2, window=4)
>>> y, state = mixer(torch.randn(3, 20, 8))
>>> y.shape, state[4].shape  # 4 channels, 4 + 10 features
(torch.Size([3, 20, 8]), torch.Size([3, 2, 4, 14]))
"""

from __future__ import annotations

from torch import Tensor

from loci.core.card import method
from loci.state.mlstm import segment_sums
from loci.state.omega import Apply, Course, Factors, Fed, Omega, Weights, band, travel_linearly


@method(
    name="omeganet",
    kind="mixer",
    title="ATLAS: Learning to Optimally Memorize the Context at Test Time",
    paper="arXiv:2505.23735",
    says="a memory trained while it reads, by gradient steps on a window of tokens over polynomial features",
    bytes="b*B*((W - 1)*3*H*d + (c - 1)*H*(2*d + 1) + n*H*P) + 8*p*B",
    example={"D": 4, "heads": 2, "window": 3, "hidden": 3, "chunk": 4},
    needs=("torch",),
    system="atlas",
)
class OmegaNet(Omega):
    """The Omega rule; the state is (convolution, k, v, gamma, M - M_0 of each weight, frozen M - M_0, place)."""

    gates = ("alpha", "eta", "gamma")
    momentum = False

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

    def rule(self, fed: Fed, G: Tensor, M: Tensor, S: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Decay, and a step down."""
        return fed.log_alpha.exp() * M - fed.eta * G, None

    def travel(self, fed: Fed, factors: list[Factors], M: Weights, S: Weights) -> tuple[list[Apply], Weights, Weights]:
        """A token's outer product weighs what the steps of all windows that it is in have left by then."""
        kept = segment_sums(fed.log_alpha).exp()
        spread = (kept * fed.eta.unsqueeze(-2)) @ band(fed.q.shape[2], self.window, fed.q)
        apply, last = travel_linearly(Course(fed.log_alpha.cumsum(-1).exp(), spread), factors, M, S)
        return apply, last, ()
