"""DNA read from both strands: networks for which the reverse complement of a text is the same text.

    embed    E(s)        -> [ E(s), flip(E(rc s)) ]                      flip reverses time and channels
    every F  [x1, x2]    -> [ F(x1), flip(F(flip x2)) ]                  shared parameters: `BothStrands`
    head     [x1, x2]    -> W x1 + W[complement] flip_channels(x2)
    block    x           -> F(x) + flip_time(F(flip_time x))             both directions of one strand: `BothWays`

Whatever F is, f(rc s) is f(s) with its moments reversed and its letters complemented, for any weights.

Paper: Schmidinger et al., "Bio-xLSTM", arXiv:2411.04165, section 3; after Zhou et al., "Towards a Better Understanding of
Reverse-Complement Equivariance", MLCB 2021, and Schiff et al., "Caduceus", arXiv:2403.03234.
Differs: the authors' code leaves the mLSTM unwrapped, and norms an sLSTM's heads in another order on the second strand,
which breaks the equality for most weights; here every part is wrapped alike.
Keeps: one copy of the weights; activations of both strands.

>>> model = equivariant(DNASize(D=8, layers=1, heads=2))
>>> ids = encode("GATTACA")[None]
>>> there, back = model(ids), model(reverse_complement(ids))
>>> bool(torch.allclose(back, there.flip(1)[..., COMPLEMENT], atol=1e-5))
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loci.state.mlstm import MLSTM
from loci.state.slstm import SLSTM
from loci.state.xlstm import Block, GatedFeedForward

SPECIAL = ("[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]")
LETTERS = (*SPECIAL, *"ACGTN")
COMPLEMENT = tuple(LETTERS.index({"A": "T", "C": "G", "G": "C", "T": "A"}.get(letter, letter)) for letter in LETTERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DNASize:
    """A DNA-xLSTM; the defaults are those of the authors' configuration."""

    D: int = 256
    layers: int = 4
    heads: int = 4
    slstm_at: tuple[int, ...] = ()  # which layers are sLSTM blocks; the others are mLSTM blocks
    letters: int = len(LETTERS)


def encode(text: str) -> Tensor:
    """Letters as ids (T,); ValueError for a letter that is none of ACGTN.

    >>> encode("ACGTN").tolist()
    [7, 8, 9, 10, 11]
    """
    strange = sorted(set(text) - set("ACGTN"))
    if strange:
        raise ValueError(f"{''.join(strange)!r} in a DNA text; give letters of 'ACGTN', N where one is not known")
    return torch.tensor([LETTERS.index(letter) for letter in text], dtype=torch.long)


def reverse_complement(ids: Tensor, *, complement: Iterable[int] = COMPLEMENT) -> Tensor:
    """The other strand of ids (..., T), read in its own direction.

    >>> bool((reverse_complement(encode("AAGC")) == encode("GCTT")).all())
    True
    """
    return torch.tensor(tuple(complement), device=ids.device)[ids.flip(-1)]


class StrandEmbedding(nn.Module):
    """Ids (B, T) -> (B, T, 2 * D): the strand, and the other one turned to lie along it."""

    complement: Tensor

    def __init__(self, letters: int, D: int, *, complement: Iterable[int] = COMPLEMENT) -> None:
        super().__init__()
        self.embedding = nn.Embedding(letters, D)
        self.register_buffer("complement", _involution(complement, letters))

    def forward(self, ids: Tensor) -> Tensor:
        """Both strands."""
        other = self.embedding(self.complement[ids.flip(-1)])
        return torch.cat([self.embedding(ids), _turned(other)], -1)


class BothStrands(nn.Module):
    """A map of (B, T, D) applied with the same parameters to each strand of (B, T, 2 * D), in its own direction."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Both strands at once, as rows of one batch."""
        this, other = x.chunk(2, -1)
        this, other = self.inner(torch.cat([this, _turned(other)])).chunk(2)
        return torch.cat([this, _turned(other)], -1)


class StrandHead(nn.Module):
    """(B, T, 2 * D) -> logits (B, T, letters): what both strands say of the letter here."""

    complement: Tensor

    def __init__(self, D: int, letters: int, *, complement: Iterable[int] = COMPLEMENT) -> None:
        super().__init__()
        self.linear = nn.Linear(D, letters, bias=False)
        self.register_buffer("complement", _involution(complement, letters))

    def forward(self, x: Tensor) -> Tensor:
        """The other strand says the complement."""
        this, other = x.chunk(2, -1)
        return self.linear(this) + self.linear(other.flip(-1))[..., self.complement]  # type: ignore[no-any-return]


class OneWay(nn.Module):
    """A block from the first moment to the last, without its state."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return self.block(x)[0]  # type: ignore[no-any-return]


class BothWays(nn.Module):
    """One block in both directions, with the same weights, added: not causal, and it has no state."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        forward, backward = self.block(torch.cat([x, x.flip(1)]))[0].chunk(2)
        return forward + backward.flip(1)  # type: ignore[no-any-return]


def causal(size: DNASize) -> nn.Sequential:
    """A language model: ids (B, T) -> logits of the next letter."""
    return _one_strand(size, OneWay)


def bidirectional(size: DNASize) -> nn.Sequential:
    """A masked language model of one strand, read in both directions."""
    return _one_strand(size, BothWays)


def equivariant(size: DNASize) -> nn.Sequential:
    """A masked language model of both strands in both directions, to which a text and its reverse complement are one."""
    blocks = (BothStrands(BothWays(block)) for block in _blocks(size))
    norm = BothStrands(nn.LayerNorm(size.D, bias=False))
    return nn.Sequential(StrandEmbedding(size.letters, size.D), *blocks, norm, StrandHead(size.D, size.letters))


@torch.no_grad()
def averaged(model: nn.Module, ids: Tensor, *, complement: Iterable[int] = COMPLEMENT) -> Tensor:
    """Post-hoc equivariance: the mean of what any model of one strand says of a text and of its reverse complement."""
    letters = torch.tensor(tuple(complement), device=ids.device)
    other: Tensor = model(letters[ids.flip(-1)])
    return (model(ids) + other.flip(1)[..., letters]) / 2  # type: ignore[no-any-return]


def _one_strand(size: DNASize, way: Callable[[Block], nn.Module]) -> nn.Sequential:
    head = nn.Linear(size.D, size.letters, bias=False)
    blocks = (way(block) for block in _blocks(size))
    return nn.Sequential(nn.Embedding(size.letters, size.D), *blocks, nn.LayerNorm(size.D, bias=False), head)


def _blocks(size: DNASize) -> list[Block]:
    wrong = [place for place in size.slstm_at if not 0 <= place < size.layers]
    if wrong:
        raise ValueError(f"slstm_at={size.slstm_at} of {size.layers} layers; choose places from 0 to {size.layers - 1}")
    return [_block(size, layer) for layer in range(size.layers)]


def _block(size: DNASize, layer: int) -> Block:
    if layer not in size.slstm_at:
        return Block(MLSTM(size.D, heads=size.heads, blocks=size.layers))
    feed = GatedFeedForward(size.D, inner=-(-13 * size.D // 640) * 64, blocks=size.layers)  # 1.3 D, up to the next 64
    return Block(SLSTM(size.D, heads=size.heads, depth=layer / max(size.layers - 1, 1)), feed=feed)


def _turned(x: Tensor) -> Tensor:
    return x.flip(-2, -1)


def _involution(complement: Iterable[int], letters: int) -> Tensor:
    table = torch.tensor(tuple(complement))
    places = torch.arange(letters)
    if table.shape != places.shape or not torch.equal(table[table.clamp(0, letters - 1)], places):
        raise ValueError(
            f"complement={table.tolist()} does not pair {letters} letters; give each its complement, whose complement it is"
        )
    return table
