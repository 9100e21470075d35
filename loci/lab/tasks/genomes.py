"""Genomes whose strands are alike: a Markov chain under which a word is as likely as its reverse complement, and motifs.

A chain of order k is drawn, and the probabilities of its words of k + 1 letters are averaged with those of the reverse complements:
what comes out is again the stationary chain of some species, and obeys Chargaff's second rule. Into each text motifs are
planted, one in each of its parts, at a place and on a strand drawn at random. So no text tells which strand it is, and half
of the motifs are read backwards.

A model of both strands and one of a single strand, equal in parameters, learn to fill in masked letters. The second
sees both strands of every text in training, so that the two also take the same computation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from loci.lab.claim import Evidence
from loci.state.encoder.dna_xlstm import DNAxLSTM
from loci.state.encoder.reverse_complement import NUCLEOTIDES, MaskedDNA, hidden, masked_loss, other_strand
from loci.state.strands import COMPLEMENT, DNASize, bidirectional

Arm = Literal["both strands", "one strand"]

ORDER, SHARPNESS = 2, 1.0
MOTIFS, LENGTH, PARTS = 4, 8, 3  # kinds of motifs, letters of one, and how many there are in a text
T, BATCH, HELD_OUT = 48, 16, 1024  # letters of a text, texts of a step and texts to be judged by
WIDTH, LAYERS, HEADS, LR = 32, 2, 2, 5e-3


@dataclass(frozen=True, slots=True)
class Species:
    """Nucleotides are 0 to 3, and 3 - n pairs with n; `words` (4,) * (k + 1) are probabilities, motifs (kinds, letters)."""

    words: Tensor
    motifs: Tensor

    @property
    def order(self) -> int:
        """k: how many letters the next one depends on."""
        return self.words.dim() - 1


def paired(nucleotides: Tensor) -> Tensor:
    """The reverse complement of (..., T)."""
    return 3 - nucleotides.flip(-1)


def symmetric_words(order: int, random: torch.Generator, *, sharpness: float = SHARPNESS) -> Tensor:
    """Probabilities of the words of order + 1 letters, (4,) * (order + 1) in float64: alike on both strands, and stationary."""
    chain = (sharpness * torch.randn([4] * (order + 1), generator=random, dtype=torch.float64)).softmax(-1)
    contexts = torch.full([4] * order, 4.0**-order, dtype=torch.float64)
    for _ in range(1000):  # every letter can follow every word, so that this converges fast, whatever it starts from
        contexts = (contexts.unsqueeze(-1) * chain).sum(0)
    words = contexts.unsqueeze(-1) * chain
    axes = tuple(range(order + 1))
    return (words + words.permute(axes[::-1]).flip(axes)) / 2  # the second is the words of the other strand


def species(random: torch.Generator, *, order: int = ORDER, motifs: int = MOTIFS, length: int = LENGTH) -> Species:
    """One drawn at random."""
    return Species(symmetric_words(order, random), torch.randint(4, (motifs, length), generator=random))


def background(kind: Species, batch: int, length: int, random: torch.Generator) -> Tensor:
    """Texts (batch, length) of the chain, without motifs."""
    k = kind.order
    contexts = kind.words.sum(-1).flatten()
    chain = kind.words.reshape(-1, 4)
    context = torch.multinomial(contexts, batch, replacement=True, generator=random)
    letters = [context // 4 ** (k - 1 - place) % 4 for place in range(k)]
    while len(letters) < length:
        letters.append(torch.multinomial(chain[context], 1, generator=random).squeeze(1))
        context = (4 * context + letters[-1]) % 4**k
    return torch.stack(letters[:length], 1)


def planted(texts: Tensor, motifs: Tensor, random: torch.Generator, *, parts: int = PARTS) -> Tensor:
    """A motif in each of `parts` equal parts of every text, at any place there, on either strand."""
    batch, length, room = len(texts), motifs.shape[1], texts.shape[1] // parts
    if room < length:
        raise ValueError(
            f"{parts} motifs of {length} letters do not fit into {texts.shape[1]}; choose at most {texts.shape[1] // length}"
        )
    both = torch.stack([motifs, paired(motifs)])  # (2, kinds, length)
    strand, which = (torch.randint(n, (batch, parts), generator=random) for n in both.shape[:2])
    start = torch.randint(room - length + 1, (batch, parts), generator=random) + room * torch.arange(parts)
    places = start.unsqueeze(-1) + torch.arange(length)
    return texts.scatter(1, places.flatten(1), both[strand, which].flatten(1))


def texts(kind: Species, batch: int, random: torch.Generator, *, length: int = T) -> Tensor:
    """Ids (batch, length) in the letters of `loci.state.strands`."""
    return NUCLEOTIDES[planted(background(kind, batch, length, random), kind.motifs, random)]


def built(arm: Arm) -> nn.Module:
    """The model of an arm, the weights of which are as many in both."""
    if arm == "both strands":
        return MaskedDNA(DNAxLSTM(2 * WIDTH, layers=LAYERS, heads=HEADS))
    return bidirectional(DNASize(D=WIDTH, layers=LAYERS, heads=HEADS))


def trained(
    model: nn.Module, kind: Species, random: torch.Generator, *, steps: int, twice: bool, lr: float = LR
) -> None:
    """Masked language modelling of texts drawn anew in every step, with `twice` of both their strands."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(steps):
        ids = texts(kind, BATCH, random)
        if twice:
            ids = torch.cat([ids, other_strand(ids)])
        seen, asked = hidden(ids, random)
        optimizer.zero_grad()
        torch.autograd.backward(masked_loss(model(seen), ids, asked))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def inconsistency(model: nn.Module, seen: Tensor) -> float:
    """How far probabilities of letters move when the other strand is read instead: the mean absolute difference in nats."""
    here: Tensor = model(seen).log_softmax(-1)
    there: Tensor = model(other_strand(seen)).log_softmax(-1).flip(1)[..., list(COMPLEMENT)]
    known = here[..., NUCLEOTIDES], there[..., NUCLEOTIDES]
    return float((known[0] - known[1]).abs().mean())


def filled_in(arm: Arm, seed: int, *, steps: int) -> Evidence:
    """Cross-entropy of masked letters in texts of the same species that were not trained on."""
    random, unseen = (torch.Generator().manual_seed(number) for number in (seed, seed + 10_000))
    kind = species(random)
    torch.manual_seed(seed)
    model = built(arm)
    trained(model, kind, random, steps=steps, twice=arm == "one strand")
    ids = texts(kind, HELD_OUT, unseen)
    seen, asked = hidden(ids, unseen)
    with torch.no_grad():
        loss = float(masked_loss(model(seen), ids, asked))
    kept = sum(param.numel() * param.element_size() for param in model.parameters())
    return Evidence(round(loss, 4), "nats a masked letter", kept)
