"""Dialogues of feelings: two speakers whose emotions stick, catch on, and are seen through three modalities of varying use.

In turn, a speaker keeps the own emotion (70 %), catches the other's (15 %) or has a new one. Each modality shows the
emotion's prototype under noise of 0.3 or of 3, which of the two is hidden and drawn for each utterance and modality. In
30 % of utterances the prototype is halfway to another emotion's in all modalities: only the context can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loci.lab.claim import Evidence
from loci.state.encoder.base import Encoder
from loci.state.encoder.broad_mamba import BroadMamba
from loci.state.encoder.fusion import Concatenated, DialogueClassifier, ProbabilityGuided, Said, loss_of

CLASSES, WIDTHS, LONGEST = 6, (8, 8, 8), 30
D = 32


@dataclass(frozen=True, slots=True)
class Dialogues:
    """Features (rows, T, d_m) of each modality, speakers and emotions (rows, T), lengths (rows,)."""

    features: tuple[Tensor, ...]
    speaker: Tensor
    emotion: Tensor
    lengths: Tensor

    @property
    def heard(self) -> Tensor:
        """Which utterances there are, (rows, T)."""
        return torch.arange(self.emotion.shape[1]) < self.lengths.unsqueeze(1)

    def rows(self, which: Tensor) -> Dialogues:
        """Some of the dialogues."""
        features = tuple(u[which] for u in self.features)
        return Dialogues(features, self.speaker[which], self.emotion[which], self.lengths[which])


def emotions(rows: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Who speaks and what they feel, (rows, LONGEST) both: each speaker's chain sticks, and catches from the other's."""
    speaker = (torch.rand(rows, LONGEST, generator=random) < 0.8).long().cumsum(1) % 2  # mostly in turn
    feels = torch.randint(CLASSES, (rows, 2), generator=random)
    new = torch.randint(CLASSES, (rows, LONGEST), generator=random)
    chance = torch.rand(rows, LONGEST, generator=random)
    felt = torch.zeros(rows, LONGEST, dtype=torch.int64)
    every = torch.arange(rows)
    for t in range(LONGEST):
        who = speaker[:, t]
        own, other = feels[every, who], feels[every, 1 - who]
        felt[:, t] = torch.where(chance[:, t] < 0.7, own, torch.where(chance[:, t] < 0.85, other, new[:, t]))
        feels[every, who] = felt[:, t]
    return speaker, felt


def prototypes(random: torch.Generator) -> list[Tensor]:
    """What an emotion looks like in each modality, (CLASSES, d_m)."""
    return [torch.randn(CLASSES, width, generator=random) for width in WIDTHS]


def dialogues(rows: int, looks: list[Tensor], random: torch.Generator) -> Dialogues:
    """Dialogues of 20 to 30 utterances, padded with zeros."""
    speaker, emotion = emotions(rows, random)
    another = (emotion + torch.randint(1, CLASSES, emotion.shape, generator=random)) % CLASSES
    ambiguous = (torch.rand(emotion.shape, generator=random) < 0.3).unsqueeze(-1)
    lengths = torch.randint(20, LONGEST + 1, (rows,), generator=random)
    beyond = torch.arange(LONGEST) >= lengths.unsqueeze(1)
    features = []
    for look in looks:
        shown = torch.where(ambiguous, (look[emotion] + look[another]) / 2, look[emotion])
        sigma = torch.where(torch.rand(emotion.shape, generator=random) < 0.5, 0.3, 3.0).unsqueeze(-1)
        seen = shown + sigma * torch.randn(shown.shape, generator=random)
        features.append(seen.masked_fill(beyond.unsqueeze(-1), 0.0))
    return Dialogues(tuple(features), speaker, emotion, lengths)


class Attentive(Encoder):
    """The usual context: one layer of a Transformer with learned places, whose memory grows as T squared."""

    def __init__(self, D: int, *, inner: int) -> None:
        super().__init__()
        self.D = D
        self.place = nn.Parameter(0.02 * torch.randn(LONGEST, D))
        self.layer = nn.TransformerEncoderLayer(D, 4, inner, dropout=0.0, batch_first=True, norm_first=True)
        self.out = nn.Linear(D, D)

    def encode(self, x: Tensor, heard: Tensor) -> Tensor:
        """Attention among what is heard."""
        out: Tensor = self.out(self.layer(x + self.place[: x.shape[1]], src_key_padding_mask=~heard))
        return out

    def shapes(self, batch: int) -> dict[str, float]:
        """It has no card."""
        return {}


def full() -> DialogueClassifier:
    """Broad Mamba with probability guidance."""
    return _classifier(lambda: BroadMamba(D, 64, N=8), ProbabilityGuided(D, CLASSES))


def concatenated() -> DialogueClassifier:
    """The same encoders, side by side into the last classifier."""
    return _classifier(lambda: BroadMamba(D, 64, N=8), Concatenated(D, CLASSES))


def causal() -> DialogueClassifier:
    """No backward kernel; twice the state forth keeps the number of parameters that are trained."""
    return _classifier(lambda: _deafened(BroadMamba(D, 64, N=16)), ProbabilityGuided(D, CLASSES))


def without_nodes() -> DialogueClassifier:
    """One linear map in place of the broad nodes, and a wider block of about the parameters."""
    return _classifier(lambda: _unbroadened(BroadMamba(D, 125, N=8)), ProbabilityGuided(D, CLASSES))


def attentive() -> DialogueClassifier:
    """A Transformer's layer for context."""
    return _classifier(lambda: Attentive(D, inner=210), ProbabilityGuided(D, CLASSES))


ARMS: dict[str, Callable[[], DialogueClassifier]] = {
    "full": full, "concatenated": concatenated, "causal": causal, "without-nodes": without_nodes, "attentive": attentive,
}  # fmt: skip


def learned(arm: str, seed: int, *, epochs: int, lr: float = 0.003) -> tuple[DialogueClassifier, Dialogues]:
    """An arm trained on 300 dialogues, and 100 that it has not seen."""
    random = torch.Generator().manual_seed(seed)
    looks = prototypes(random)
    train, test = dialogues(300, looks, random), dialogues(100, looks, random)
    torch.manual_seed(seed)
    model = ARMS[arm]()
    weights = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=10 * epochs)
    for _ in range(epochs):
        for which in torch.randperm(300, generator=random).view(10, 30):
            batch = train.rows(which)
            loss = loss_of(heard_by(model, batch), batch.emotion, heard=batch.heard)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return model, test


def heard_by(model: DialogueClassifier, batch: Dialogues) -> Said:
    """What a model says of dialogues."""
    said: Said = model(batch.features, batch.speaker, lengths=batch.lengths)
    return said


def classified(arm: str, seed: int, *, epochs: int = 20) -> Evidence:
    """Weighted F1 of the emotions of unseen dialogues, in percent; bytes are those of the trained parameters."""
    model, test = learned(arm, seed, epochs=epochs)
    with torch.no_grad():
        said = heard_by(model, test).fused[test.heard]
    held = sum(param.numel() * param.element_size() for param in model.parameters() if param.requires_grad)
    score = 100 * weighted_f1(said.argmax(-1), test.emotion[test.heard], CLASSES)
    return Evidence(round(score, 2), "percent weighted F1", held)


def weighted_f1(said: Tensor, due: Tensor, classes: int) -> float:
    """The mean of each class's F1, weighted by how often it is due.

    >>> weighted_f1(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2)
    0.6666666666666666
    """
    total = 0.0
    for each in range(classes):
        hits = int(((said == each) & (due == each)).sum())
        named, often = int((said == each).sum()), int((due == each).sum())
        total += often * 2 * hits / max(named + often, 1)
    return total / len(due)


def overconfidence(p: Tensor, due: Tensor, *, bins: int = 10) -> float:
    """Expected calibration error of probabilities (N, C): how far, on average, being sure is from being right.

    >>> overconfidence(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    0.5
    """
    sure, said = p.max(-1)
    place = (sure * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64)
    return float(gaps.index_add(0, place, sure.double() - (said == due).double()).abs().sum() / len(due))


def _classifier(encoder: Callable[[], Encoder], fusion: nn.Module) -> DialogueClassifier:
    return DialogueClassifier(WIDTHS, encoders=[encoder() for _ in WIDTHS], fusion=fusion, classes=CLASSES)


def _deafened(encoder: BroadMamba) -> BroadMamba:
    """K_b = 0 for good; what the backward half holds is not learned."""
    system = encoder.block.system
    for param in (system.log_step, system.A_log, system.B, system.C):
        param.register_hook(_forth_alone)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        system.C[1] = 0
    return encoder


def _forth_alone(grad: Tensor) -> Tensor:
    return grad * torch.tensor([1.0, 0.0]).view(2, *[1] * (grad.dim() - 1))


def _unbroadened(encoder: BroadMamba) -> BroadMamba:
    encoder.broad = nn.Linear(D, D)  # type: ignore[assignment]
    return encoder
