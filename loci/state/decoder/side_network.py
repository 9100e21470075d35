"""A side network of half the backbone's depth: it rides on what the backbone's layers add, and one layer reads a bank.

    h^0 = H^0,   h^{l+1} = h^l + Attn(LN(h^l)) + FFN(LN(h^l)) + (H^{2l+2} - H^{2l})          equation (2)
    reading layer: head_h = sigmoid(g_h) M + (1 - sigmoid(g_h)) A                             equation (5)
    A causal attention with ALiBi in the segment, M attention over what the bank gives to the same queries

Layer l starts as layer 2l + 1 of the backbone, the last norm as the backbone's. Were all layers to add nothing, the
differences would sum up to the backbone's last hidden state.

Paper: Wang et al., "Augmenting Language Models with Long-Term Memory", arXiv:2306.07174, sections 2.2 and 2.4.
Differs: nothing; no dropout.
Keeps: nothing but weights.

Shapes: B batch, T time, D width, H heads, d = D / H.

>>> from loci.state.decoder.alibi import Backbone
>>> backbone = Backbone(5, D=4, heads=2, depth=4)
>>> side = SideNetwork(backbone, reads=1)
>>> torch.equal(side.layers[1].q.weight, backbone.layers[3].q.weight), side.layers[1].gate.tolist()
(True, [0.0, 0.0])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from loci.state.decoder.alibi import Backbone, ParallelLayer
from loci.state.decoder.bank import Bank


class ReadingLayer(ParallelLayer):
    """A layer whose heads hear the segment and the bank, each by a softmax of its own, and a gate between the two."""

    def __init__(self, D: int, heads: int) -> None:
        super().__init__(D, heads)
        self.gate = nn.Parameter(torch.zeros(heads))

    def reading(self, h: Tensor, bank: Bank, chunks: int) -> Tensor:
        """(B, T, D) and how many chunks a query finds -> what the layer adds (B, T, D)."""
        x = self.norm(h)
        q, k, v = self.projected(x)
        here, there = self.attended(q, k, v), bank.read(q, chunks)
        share = torch.where((bank.written > 0).unsqueeze(1), self.gate.sigmoid(), 0.0)[..., None, None]  # (B, H, 1, 1)
        return self.added(x, share * there + (1 - share) * here)


class SideNetwork(nn.Module):
    """What is trained of LongMem."""

    def __init__(self, backbone: Backbone, *, reads: int) -> None:
        super().__init__()
        depth = backbone.depth // 2
        if backbone.depth % 2 or not 0 <= reads < depth:
            raise ValueError(
                f"reads={reads} over a backbone of {backbone.depth} layers; give an even depth and one of its {depth} side layers"
            )
        self.reads = reads
        kinds = [ReadingLayer if layer == reads else ParallelLayer for layer in range(depth)]
        self.layers = nn.ModuleList(kind(backbone.D, backbone.heads) for kind in kinds)
        self.norm = nn.LayerNorm(backbone.D)
        self.start_from(backbone)

    @torch.no_grad()
    def start_from(self, backbone: Backbone) -> None:
        """Copy every second layer of the backbone, and its last norm; gates are left as they are."""
        self.norm.load_state_dict(backbone.norm.state_dict())
        for layer, source in zip(self.layers, backbone.layers[1::2], strict=True):
            mine = dict(layer.named_parameters())
            for name, param in source.named_parameters():
                mine[name].copy_(param)

    def forward(self, hidden: Sequence[Tensor], bank: Bank, chunks: int) -> Tensor:
        """Hidden states of the backbone, each (B, T, D), and a bank -> the normed last state (B, T, D)."""
        return self.norm(self.states(hidden, bank, chunks)[-1])  # type: ignore[no-any-return]

    def states(self, hidden: Sequence[Tensor], bank: Bank, chunks: int) -> list[Tensor]:
        """h^0 to the last, before its norm."""
        h = [hidden[0]]
        for number, layer in enumerate(self.layers):
            added = layer.reading(h[-1], bank, chunks) if isinstance(layer, ReadingLayer) else layer(h[-1])[0]
            h.append(h[-1] + added + (hidden[2 * number + 2] - hidden[2 * number]))
        return h
