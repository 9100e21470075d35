"""Masked language models of both strands, over texts of any lengths: what stands around an encoder of strands.

    logits_t = W y_1,t + P W flip(y_2,t),    [y_1, y_2] = encode([E(s), flip(E(rc s))])        P exchanges A with T, C with G
    logits(rc s)_t = P logits(s)_{T+1-t}                                                     for any weights

Of the letters of a text, 15 % are asked for: of these, 80 % are seen as [MASK], 10 % as a letter drawn at random and 10 % as
they are; the loss is over what is asked. A model of one strand is given either strand of a text by chance instead
(`either_strand`), and what it says of both is averaged afterwards (`strands.averaged`).

Paper: Schmidinger et al., "Bio-xLSTM", arXiv:2411.04165, section 3; the masks are those of BERT, as in Schiff et al.,
"Caduceus", arXiv:2403.03234.
Differs: only A, C, G and T are asked for and drawn in their place, where the authors' code also hides padding and draws special
symbols; it then leaves padding out of the loss.
Keeps: the encoder's parameters and 2*letters*d more, embedding and head.

Shapes: B batch, T time, d channels of a strand.

>>> from loci.state.encoder.dna_xlstm import DNAxLSTM
>>> model = MaskedDNA(DNAxLSTM(8, layers=1, heads=2))
>>> ids = encode("GATTACA")[None]
>>> seen, asked = hidden(ids, torch.Generator().manual_seed(0))
>>> logits = model(seen)
>>> logits.shape, masked_loss(logits, ids, asked).shape
(torch.Size([1, 7, 12]), torch.Size([]))
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.state.encoder.base import Encoder
from loci.state.encoder.bidirectional import turned
from loci.state.strands import COMPLEMENT, LETTERS, StrandEmbedding, StrandHead, encode

MASK = LETTERS.index("[MASK]")
NUCLEOTIDES = encode("ACGT")
SHARE, MASKED, RANDOM = 0.15, 0.8, 0.1  # of letters asked for, and of those seen as [MASK] and as a random letter


class MaskedDNA(nn.Module):
    """Ids (B, T) -> logits (B, T, letters) through an encoder that commutes with the flip of strands."""

    def __init__(
        self, encoder: Encoder, letters: int = len(LETTERS), *, complement: Iterable[int] = COMPLEMENT
    ) -> None:
        super().__init__()
        if encoder.D % 2:
            raise ValueError(f"the encoder is {encoder.D} wide; give one of an even width, half of it for each strand")
        pairs = tuple(complement)
        self.embedding = StrandEmbedding(letters, encoder.D // 2, complement=pairs)
        self.encoder = encoder
        self.head = StrandHead(encoder.D // 2, letters, complement=pairs)

    def forward(self, ids: Tensor, *, lengths: Tensor | None = None) -> Tensor:
        """Logits of every letter; embedding and head look at one moment alone, so that lengths are the encoder's matter."""
        return self.head(self.encoder(self.embedding(ids), lengths=lengths))  # type: ignore[no-any-return]


def other_strand(ids: Tensor, *, lengths: Tensor | None = None, complement: Iterable[int] = COMPLEMENT) -> Tensor:
    """The reverse complement of each row (B, T) within its length; padding is complemented where it stands.

    >>> other_strand(encode("AACGG")[None], lengths=torch.tensor([3])).equal(encode("GTTCC")[None])
    True
    """
    letters = torch.tensor(tuple(complement), device=ids.device)
    return letters[turned(ids.unsqueeze(-1), lengths).squeeze(-1)]


def either_strand(ids: Tensor, random: torch.Generator, *, complement: Iterable[int] = COMPLEMENT) -> Tensor:
    """Each row (B, T) as it is or as its reverse complement, one as likely as the other: the augmentation."""
    chosen = torch.rand(len(ids), 1, generator=random) < 0.5
    return torch.where(chosen.to(ids.device), other_strand(ids, complement=complement), ids)


def hidden(ids: Tensor, random: torch.Generator, *, share: float = SHARE) -> tuple[Tensor, Tensor]:
    """What is seen of ids (B, T), and where it is asked what stood there, (B, T) of bool; ValueError for a share outside 0 to 1."""
    if not 0 < share <= 1:
        raise ValueError(f"share={share} is no share of letters; choose one above 0, up to 1")
    chance, fate = (torch.rand(ids.shape, generator=random).to(ids.device) for _ in range(2))
    letters = NUCLEOTIDES.to(ids.device)
    asked = (chance < share) & torch.isin(ids, letters)
    drawn = letters[torch.randint(len(letters), ids.shape, generator=random).to(ids.device)]
    seen = torch.where(asked & (fate < MASKED), MASK, ids)
    return torch.where(asked & (fate >= 1 - RANDOM), drawn, seen), asked


def masked_loss(logits: Tensor, ids: Tensor, asked: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the letters that are asked for, 0 where none is."""
    total = functional.cross_entropy(logits[asked], ids[asked], reduction="sum")
    return total / asked.sum().clamp(min=1)
