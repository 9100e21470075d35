"""Cartridges: a small trained cache of keys and values, one for a corpus, that is read in the corpus's place.

    logits_t = F_Z(tokens_1..t),    Z = (Z_K, Z_V) of each layer, put before the tokens' own keys and values, places from p on
    loss(Z) = sum over tokens KL( F(. | chunk + x_<i) || F_Z(. | x_<i) )             over self-study (`self_study.py`)

Z starts as what the frozen model keeps of the corpus's first p tokens (`Cartridge.of`): vectors drawn at random, which the
plain constructor gives, learn worse. The first token is where attention rests that has nothing to attend to (a sink), and
stays as it was. With p the corpus's length this is reading the corpus, exactly.

Two cartridges are composed by one behind the other along p, not trained again and not turned again: each was made as if the
text began with it, so their places overlap, and what the second would have read in the first is not in it. That is an
approximation. The order along p changes nothing, since keys are turned already and every query sees all of them; so sinks
stand before what is trained.

Paper: Eyuboglu et al., "Cartridges: Lightweight and general-purpose long context representations via self-study",
arXiv:2506.06266.
Differs: batches are padded rows, theirs are packed with masks (see `self_study.py`).
Keeps: b*2*L*G*d*p bytes, once for a corpus and for all rows of a batch.

Shapes: L layers, G heads of keys, d width of a head, p tokens of the cartridge, f of them frozen.

>>> from loci.state.context.open_transformer import OpenTransformer
>>> model, corpus = OpenTransformer(11, D=8, heads=2), torch.tensor([3, 1, 4, 1, 5])
>>> cartridge = Cartridge.of(model, corpus, p=3)
>>> cartridge(model, torch.tensor([[9, 2]])).shape, cartridge.sink.shape, cartridge.Z.shape
(torch.Size([1, 2, 11]), torch.Size([2, 2, 2, 1, 4]), torch.Size([2, 2, 2, 2, 4]))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from loci.core.card import method
from loci.state.context.base import Context, OpenModel
from loci.state.context.open_transformer import OpenTransformer, Prefix


@method(
    name="cartridge",
    kind="context",
    title="Cartridges: Lightweight and general-purpose long context representations via self-study",
    paper="arXiv:2506.06266",
    says="a trained cache of keys and values that answers as the model does with the whole corpus before it",
    bytes="b*2*L*G*d*p",
    example={"L": 2, "H": 2, "d": 4, "p": 3},
    needs=("torch",),
    system="cartridges",
)
class Cartridge(Context):
    """`Z` (2, L, G, p - f, d) is trained, `sink` (2, L, G, f, d) is not: keys first, then values."""

    trained: ClassVar[frozenset[str]] = frozenset({"Z"})
    sink: Tensor

    def __init__(self, L: int, H: int, *, d: int, p: int, frozen: int | None = None) -> None:
        super().__init__()
        frozen = min(1, p) if frozen is None else frozen
        if min(L, H, d) < 1 or not 0 <= frozen <= p:
            raise ValueError(
                f"L={L}, H={H}, d={d}, p={p}, frozen={frozen} is no cartridge; choose sizes of at least 1 and frozen 0 to p"
            )
        self.L, self.H, self.d = L, H, d
        self.register_buffer("sink", torch.randn(2, L, H, frozen, d))
        self.Z = nn.Parameter(torch.randn(2, L, H, p - frozen, d))

    @classmethod
    def of(cls, model: OpenTransformer, corpus: Tensor, *, p: int, frozen: int | None = None) -> Self:
        """What the model keeps of the first p tokens of a corpus (T,)."""
        if corpus.dim() != 1 or not 1 <= p <= len(corpus):
            raise ValueError(f"p={p} does not fit a corpus {tuple(corpus.shape)}; give tokens (T,) and choose 1 to T")
        with torch.no_grad():
            read = model.keys_values(corpus[:p].unsqueeze(0))
        return cls.holding(read, frozen=frozen)

    @classmethod
    def holding(cls, read: Prefix, *, frozen: int | None = None) -> Self:
        """Turned keys and values of each layer, (1, G, p, d), as a cartridge whose first `frozen` tokens stay."""
        rows = {len(part) for pair in read for part in pair}
        if rows != {1}:
            raise ValueError(f"keys and values are of {sorted(rows)} rows; a cartridge is of one text, (1, G, p, d)")
        whole = torch.stack([torch.stack([part[0] for part in side]) for side in zip(*read, strict=True)]).detach()
        _, L, G, p, d = whole.shape
        with torch.random.fork_rng(devices=[]):  # what the constructor draws is not kept, so nobody's draws move
            cartridge = cls(L, G, d=d, p=p, frozen=frozen).to(whole)
        f = cartridge.sink.shape[3]
        with torch.no_grad():
            cartridge.sink.copy_(whole[:, :, :, :f])
            cartridge.Z.copy_(whole[:, :, :, f:])
        return cartridge

    @classmethod
    def composed(cls, parts: Sequence[Cartridge]) -> Self:
        """Cartridges of several corpora as one; the sinks of all of them stay frozen."""
        sizes = {(part.L, part.H, part.d, part.Z.dtype) for part in parts}
        if len(sizes) != 1:
            raise ValueError(
                f"{len(parts)} cartridges of sizes {sorted(map(str, sizes))}; give some of one model and dtype"
            )
        sinks, trained = (torch.cat([getattr(part, name).detach() for part in parts], 3) for name in ("sink", "Z"))
        whole = torch.cat([sinks, trained], 3).unsqueeze(2)  # (2, L, 1, G, p, d)
        return cls.holding([(keys, values) for keys, values in zip(*whole, strict=True)], frozen=sinks.shape[3])

    @staticmethod
    def sizes_of(model: OpenModel) -> tuple[int, int, int]:
        """Layers, heads of keys, and their width."""
        return model.L, model.G, model.d

    @property
    def p(self) -> int:
        """How many tokens it is."""
        return self.sink.shape[3] + self.Z.shape[3]

    def prefix(self) -> Prefix:
        """Sinks, then what is trained, of each layer."""
        keys, values = torch.cat([self.sink, self.Z], 3).unsqueeze(2)
        return list(zip(keys, values, strict=True))

    def neutral(self) -> Self:
        """An empty one."""
        return type(self)(self.L, self.H, d=self.d, p=0).to(self.Z)

    def shapes(self) -> Mapping[str, float]:
        """L layers of G heads, d wide, p tokens, b bytes for a number."""
        return {"L": self.L, "G": self.H, "d": self.d, "p": self.p, "b": self.Z.element_size()}
