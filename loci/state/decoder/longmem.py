"""LongMem: a frozen language model keeps the keys and values of all it read, a trained side network looks them up.

    segment s of the text:   H^0..H^L, K, V = backbone(tokens_s)                       frozen, no gradient
    logits_s = E LN(side(H^0..H^L, bank)),   then   bank <- bank + (K, V)              read before write

Because what fills the bank never learns, an old entry is what it would be if it were read again today. The segment is
the reach of local attention; what lies before it is heard through the bank alone (`bank.py`, `side_network.py`). Tokens
of a segment that is not yet complete wait in the state, and are read again with those that follow them: so the text may
be cut anywhere, nothing is dropped, and `generate` says what one reading of the whole would. A token read alone costs
the pass over its segment so far. Thousands of examples in context: read them first, then ask.

Paper: Wang et al., "Augmenting Language Models with Long-Term Memory", arXiv:2306.07174.
Differs: a bank for each row of a batch, theirs is one for all; a segment is whole chunks, so that no tail is dropped. See
also `bank.py` and `side_network.py`.
Keeps: B*(2*b*D*M + c*D*M/S + 8*P + 16) bytes: M tokens of the bank in chunks of S, segments of P, b bytes of a number,
c of a number of a mean key (4, or 8 in float64).

Shapes: B batch, T time, V tokens, D width, H heads, d = D / H.

>>> model = LongMem(11, D=8, heads=2, depth=2, segment=4, capacity=16, K=8, chunk=2)
>>> logits, state = model(torch.arange(10).view(1, 10))
>>> logits.shape, state[3].tolist(), state[5].tolist()  # 8 tokens are 4 chunks of the bank, 2 wait
(torch.Size([1, 10, 11]), [4], [2])
>>> sorted({name.split(".")[0] for name, param in model.named_parameters() if param.requires_grad})
['side']
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import linear

from loci.core.card import method
from loci.state.decoder.alibi import Backbone
from loci.state.decoder.bank import Bank, empty
from loci.state.decoder.base import Decoder
from loci.state.decoder.side_network import SideNetwork
from loci.state.mixer import State


@method(
    name="longmem",
    kind="decoder",
    title="Augmenting Language Models with Long-Term Memory",
    paper="arXiv:2306.07174",
    says="a frozen model's keys and values, kept in a bank, read by a trained side network: recall far beyond the window",
    bytes="B*(2*b*D*M + c*D*M//S + 8*P + 16)",
    example={"V": 11, "D": 8, "heads": 2, "depth": 4, "segment": 4, "capacity": 12, "K": 4, "chunk": 2},
    needs=("torch",),
)
class LongMem(Decoder):
    """Backbone, side network and, in the state, a bank. `around` takes a backbone that has learned."""

    def __init__(
        self,
        V: int,
        *,
        D: int = 1024,
        heads: int = 16,
        depth: int = 24,  # of the backbone; the side network has half of it
        segment: int = 1024,
        capacity: int = 65536,  # tokens of the bank
        K: int = 64,  # tokens that a query finds
        chunk: int = 4,
        layer: int | None = None,  # of the backbone, which fills the bank; two thirds up unless given
    ) -> None:
        super().__init__()
        if min(segment, capacity, K, chunk) < 1 or any(tokens % chunk for tokens in (segment, capacity, K)):
            raise ValueError(
                f"segment={segment}, capacity={capacity}, K={K} are not whole chunks of {chunk}; choose multiples of chunk={chunk}"
            )
        if capacity < max(segment, K):
            raise ValueError(
                f"capacity={capacity} is below segment={segment} or K={K}; choose at least the larger of them"
            )
        self.V, self.D, self.heads = V, D, heads
        self.segment, self.capacity, self.K, self.chunk = segment, capacity, K, chunk
        self.backbone = Backbone(V, D=D, heads=heads, depth=depth).requires_grad_(False)
        self.layer = 2 * (depth // 3) + 1 if layer is None else layer
        self.side = SideNetwork(self.backbone, reads=self.layer // 2)

    @classmethod
    def around(
        cls, backbone: Backbone, *, segment: int, capacity: int, K: int = 64, chunk: int = 4, layer: int | None = None
    ) -> LongMem:
        """A frozen copy of a backbone, and a side network that starts from it."""
        model = cls(
            backbone.V, D=backbone.D, heads=backbone.heads, depth=backbone.depth, segment=segment, capacity=capacity, K=K,
            chunk=chunk, layer=layer,
        )  # fmt: skip
        model = model.to(backbone.embedding)
        model.backbone.load_state_dict(backbone.state_dict())
        model.side.start_from(model.backbone)
        return model

    def initial_state(self, batch: int) -> State:
        """The bank (keys, values, mean keys, chunks written), the tokens that wait (B, P) and their number (B,)."""
        shape = {"C": self.capacity // self.chunk, "H": self.heads, "S": self.chunk, "d": self.D // self.heads}
        bank = empty(batch, **shape, like=self.backbone.embedding)
        return (*bank, bank.written.new_zeros(batch, self.segment), bank.written.clone())

    def shapes(self, state: State) -> Mapping[str, float]:
        """B streams, D width, M tokens in chunks of S, P of a segment; b and c bytes of a number and of a mean's."""
        b, c = state[0].element_size(), state[2].element_size()
        return {"B": len(state[0]), "D": self.D, "M": self.capacity, "S": self.chunk, "P": self.segment, "b": b, "c": c}

    def read(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Rows whose segments began together are read together."""
        begun: list[int] = torch.unique(state[5]).tolist()
        if len(begun) == 1:
            return self.read_abreast(tokens, state, begun[0])
        parts, order = [], []
        for held in begun:
            rows = (state[5] == held).nonzero().flatten()
            parts.append(self.read_abreast(tokens[rows], tuple(part[rows] for part in state), held))
            order.append(rows)
        back = torch.cat(order).argsort()
        last = zip(*(after for _, after in parts), strict=True)
        return torch.cat([logits for logits, _ in parts])[back], tuple(torch.cat(part)[back] for part in last)

    def read_abreast(self, tokens: Tensor, state: State, held: int) -> tuple[Tensor, State]:
        """(B, T) after `held` tokens that wait in every row -> logits (B, T, V) and the state."""
        bank, waiting = Bank(*state[:4]), state[4]
        text = torch.cat([waiting[:, :held], tokens], 1)
        out = []
        for segment in torch.split(text, self.segment, 1):
            with torch.no_grad():
                known = self.backbone.encoded(segment, self.layer)
            out.append(self.side(known.hidden, bank, self.K // self.chunk))
            if segment.shape[1] == self.segment:
                bank = self.remember(bank, known.keys, known.values)
        left = text.shape[1] % self.segment
        waiting = torch.zeros_like(waiting)
        waiting[:, :left] = text[:, text.shape[1] - left :]
        logits = linear(torch.cat(out, 1)[:, held:], self.backbone.embedding.detach())
        return logits, (*bank, waiting, torch.full_like(state[5], left))

    def remember(self, bank: Bank, keys: Tensor, values: Tensor) -> Bank:
        """What a segment leaves behind once it has been read: keys and values (B, H, P, d), as the backbone gave them."""
        return bank.write(keys, values)
