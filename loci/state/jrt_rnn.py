"""Prefix linear attention: the prompt is read knowing all of it, then the answer is spoken in constant memory.

    y_i = phi(q_i) [ sum_{j<=i} phi(k_j) v_j^T + sum_{j<=M} phi(k^e_j) (v^e_j)^T ]
          / ( phi(q_i) [ sum_{j<=i} phi(k_j) + sum_{j<=M} phi(k^e_j) ] + eps )                          prefix linear attention

k^e and v^e are projections of the first M moments by weights of their own. Their sums are where the causal recurrence
starts, so that reading the prefix is two passes: `prefill` sums the encoder over all of it, then scans it from there. Behind
the prefix nothing new is needed: `step`, `scan` and `forward` go on from the state as in causal linear attention.
`quadratic` is the equation as it stands, and the oracle.

Train it with `jrt_loss`: inside the prefix an output has seen what comes next.

Paper: Arora et al., "Just read twice: closing the recall gap for recurrent language models", arXiv:2407.05483.
Differs: prefixes end where they end (`lengths`) and are not padded on the left to M; what is padded is masked after phi,
where the authors' code masks keys before it and phi(0) = [1, 0, ...] stays in both sums; sums are float32 or wider.
Keeps: s*B*H*(1 + f + f*f)*(d + 1) bytes as causal linear attention does, whatever M is; k^e and v^e add D*(H*f + D) weights.

>>> mixer = JRT(8, heads=2, feature=3)
>>> read, state = mixer.prefill(torch.randn(2, 50, 8), lengths=torch.tensor([50, 31]))
>>> spoken, state = mixer(torch.randn(2, 4, 8), state)
>>> read.shape, spoken.shape, state[0].shape
(torch.Size([2, 50, 8]), torch.Size([2, 4, 8]), torch.Size([2, 2, 13, 4]))
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.linear_attention import EPS, LinearAttention, Memory, chunkwise, summed
from loci.state.mixer import State
from loci.state.taylor import taylor


@method(
    name="jrt",
    kind="mixer",
    title="Just read twice: closing the recall gap for recurrent language models",
    paper="arXiv:2407.05483",
    says="reads a prompt without a causal mask into the constant state that it then decodes from",
    bytes="s*B*H*(1 + f + f*f)*(d + 1)",
    example={"D": 8, "heads": 2, "feature": 3, "chunk": 5},
    needs=("torch",),
    deviates={
        "gradient_reaches_every_parameter": "k_e and v_e read the prefix, which only prefill sees; a scan is the decoder"
    },
    system="jrt",
)
class JRT(LinearAttention):
    """Linear attention (PLA) with a second pair of projections for what is read before anything is said."""

    def __init__(self, D: int, *, heads: int = 4, feature: int = 16, chunk: int = 64) -> None:
        super().__init__(D, heads=heads, feature=feature, chunk=chunk)
        self.k_e = nn.Linear(D, heads * feature, bias=False)
        self.v_e = nn.Linear(D, D, bias=False)

    def prefill(self, prefix: Tensor, *, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """(B, M, D) and the rows' lengths (B,), M each if not given -> (B, M, D) and the state to decode from.

        From a row's length on, inputs may hold anything; outputs are zeros there, and nothing of it is in the state.
        """
        heard = None if lengths is None else self._heard(prefix, lengths)
        if heard is not None:
            prefix = torch.where(heard.unsqueeze(-1), prefix, 0)
        state = self.initial_state(len(prefix))
        self.require(prefix, state, None)
        if not prefix.shape[1]:
            return prefix, state
        q, k, v, k_e, v_e = self._heads(prefix, self.q, self.k, self.v, self.k_e, self.v_e)
        with torch.autocast(prefix.device.type, enabled=False):
            memory = encoded(k_e, v_e, Memory(*state), chunk=self.chunk, heard=heard)
            y, memory = chunkwise(q, k, v, memory, chunk=self.chunk, heard=heard)
        read = self._out(y, prefix)
        return (read if heard is None else torch.where(heard.unsqueeze(-1), read, 0)), memory

    def _heard(self, prefix: Tensor, lengths: Tensor) -> Tensor:
        """(B, M), which moments are before their row's length."""
        if tuple(lengths.shape) != (len(prefix),) or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise ValueError(
                f"lengths is {tuple(lengths.shape)} of {str(lengths.dtype).removeprefix('torch.')}; "
                f"give one whole number for each of {len(prefix)} rows"
            )
        M = prefix.shape[1]
        if len(prefix) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= M:
            raise ValueError(f"lengths={lengths.tolist()} do not fit a prefix of {M} moments; give 0 to {M}")
        return torch.arange(M, device=prefix.device) < lengths.to(prefix.device).unsqueeze(1)


def encoded(k_e: Tensor, v_e: Tensor, memory: Memory, *, chunk: int, heard: Tensor | None = None) -> Memory:
    """The encoder's sums over all moments, `chunk` at a time, on top of a memory."""
    for start in range(0, k_e.shape[2], chunk):
        here = slice(start, start + chunk)
        known = None if heard is None else heard[:, here]
        memory = summed(k_e[:, :, here], v_e[:, :, here], memory, heard=known)
    return memory


def quadratic(q: Tensor, k: Tensor, v: Tensor, k_e: Tensor, v_e: Tensor) -> Tensor:
    """The equation of the module for all N moments, the first M of them the prefix: y (B, H, N, d), in N^2 time and memory."""
    phi = taylor(q)
    causal, prefix = (phi @ taylor(k).mT).tril(), phi @ taylor(k_e).mT  # (B, H, N, N), (B, H, N, M)
    total = causal.sum(-1, keepdim=True) + prefix.sum(-1, keepdim=True)
    return (causal @ v + prefix @ v_e) / (total + EPS)
