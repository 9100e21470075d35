"""Whoever is surest of an utterance speaks loudest: modalities are weighed by the probabilities of their own classifiers.

    x_m = W_m u_m + S_speaker,    h_m = encoder_m(x_m),    p_m = softmax(V_m h_m)
    w_m = softmax over m of (max_c p_m(c) / tau),    said = V sum_m w_m h_m
    loss = cross-entropy of what is said + the sum of the cross-entropies of the p_m

Weights are of each utterance, not of the data set. By default no gradient flows into them, lest a modality learn to be
sure in order to be heard; `detach=False` lets it.

Paper: Li et al., "Revisiting Multi-modal Emotion Learning with Broad State Space Models and Probability-guidance Fusion",
arXiv:2404.17858.
Differs: the form of the weights is not certain from what is public, so `weigh` takes any map of probabilities to weights:
`by_softmax` as above, `by_share` for max_c p_m(c) over its sum; no dropout; extractors of the features are the user's.
Keeps: b*(sum of d_m*D + D + D*C + C over modalities + S*D + D*C + C) bytes beside the encoders.

Shapes: B batch, T time, M modalities, D width, C classes, S speakers.

>>> by_softmax(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist() == torch.tensor([1.0, 0.5]).softmax(0).tolist()
True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from loci.state.encoder.base import Encoder


def by_softmax(p: Tensor, *, tau: float = 1.0) -> Tensor:
    """Probabilities (..., M, C) -> weights (..., M): softmax of how sure each is; a small tau hears the surest alone."""
    if tau <= 0:
        raise ValueError(f"tau={tau} weighs nothing; choose tau > 0")
    return (p.amax(-1) / tau).softmax(-1)


def by_share(p: Tensor) -> Tensor:
    """Probabilities (..., M, C) -> weights (..., M): how sure each is, as a share of all."""
    sure = p.amax(-1)
    return sure / sure.sum(-1, keepdim=True)


class ProbabilityGuided(nn.Module):
    """What is heard is the sum of the modalities under their weights."""

    def __init__(
        self, D: int, classes: int, *, weigh: Callable[[Tensor], Tensor] = by_softmax, detach: bool = True
    ) -> None:
        super().__init__()
        self.weigh, self.detach = weigh, detach
        self.head = nn.Linear(D, classes)

    def forward(self, h: Tensor, p: Tensor) -> Tensor:
        """Modalities (..., M, D) and their probabilities (..., M, C) -> logits (..., C)."""
        w = self.weigh(p.detach() if self.detach else p)
        logits: Tensor = self.head((w.unsqueeze(-1) * h).sum(-2))
        return logits


class Concatenated(nn.Module):
    """The plain form: modalities side by side, whatever their probabilities."""

    def __init__(self, D: int, classes: int, *, modalities: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(modalities * D, classes)

    def forward(self, h: Tensor, p: Tensor) -> Tensor:
        """Modalities (..., M, D) -> logits (..., C)."""
        logits: Tensor = self.head(h.flatten(-2))
        return logits


@dataclass(frozen=True, slots=True)
class Said:
    """Logits: `fused` (B, T, C), and `each` modality's own (B, T, M, C); zeros beyond a dialogue's length."""

    fused: Tensor
    each: Tensor


class DialogueClassifier(nn.Module):
    """A class for each utterance, from features of several modalities, who speaks, and the whole dialogue."""

    def __init__(
        self,
        widths: Sequence[int],
        *,
        encoders: Sequence[Encoder],
        fusion: nn.Module,
        classes: int,
        speakers: int = 2,
    ) -> None:
        super().__init__()
        if not encoders or len(widths) != len(encoders) or len({encoder.D for encoder in encoders}) > 1:
            raise ValueError(
                f"{len(widths)} widths do not fit encoders of {[encoder.D for encoder in encoders]}; "
                "give one encoder for each modality, all of one width"
            )
        D = encoders[0].D
        self.widths = tuple(widths)
        self.inward = nn.ModuleList(nn.Linear(width, D) for width in widths)
        self.speaker = nn.Embedding(speakers, D)
        self.encoders = nn.ModuleList(encoders)
        self.heads = nn.ModuleList(nn.Linear(D, classes) for _ in widths)
        self.fusion = fusion

    def forward(self, features: Sequence[Tensor], speaker: Tensor, *, lengths: Tensor | None = None) -> Said:
        """Features (B, T, d_m) of each modality and speakers (B, T) -> logits; padding may hold anything."""
        heard = self.heard(features, speaker, lengths)
        mask = heard.unsqueeze(-1)
        who = self.speaker(torch.where(heard, speaker, 0))
        h = []
        for u, inward, encoder in zip(features, self.inward, self.encoders, strict=True):
            h.append(encoder(inward(torch.where(mask, u, 0.0)) + who, lengths=heard.sum(1)))
        each = torch.stack([head(said) for head, said in zip(self.heads, h, strict=True)], 2)
        fused = self.fusion(torch.stack(h, 2), each.softmax(-1))
        return Said(torch.where(mask, fused, 0.0), torch.where(mask.unsqueeze(-1), each, 0.0))

    def heard(self, features: Sequence[Tensor], speaker: Tensor, lengths: Tensor | None) -> Tensor:
        """Which utterances are within their dialogue's length, (B, T); refuses what does not fit."""
        shapes = [tuple(u.shape) for u in features]
        due = [(*speaker.shape, width) for width in self.widths]
        if speaker.dim() != 2 or shapes != due:
            raise ValueError(f"features are {shapes}, speakers (B, T) = {tuple(speaker.shape)}; give features {due}")
        if speaker.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"speaker is {str(speaker.dtype).removeprefix('torch.')}; give whole numbers from 0")
        first = self.encoders[0]
        assert isinstance(first, Encoder)
        heard = first.heard(features[0].new_zeros(()).expand(*speaker.shape, first.D), lengths)
        if bool((heard & ((speaker < 0) | (speaker >= self.speaker.num_embeddings))).any()):
            raise ValueError(
                f"speaker has numbers outside 0 to {self.speaker.num_embeddings - 1}; renumber the speakers"
            )
        return heard


def loss_of(said: Said, classes: Tensor, *, heard: Tensor) -> Tensor:
    """Cross-entropy of what is said, plus that of each modality alone: means over heard utterances (B, T)."""
    due = classes[heard]
    alone = said.each[heard]  # (utterances, M, C)
    loss = functional.cross_entropy(said.fused[heard], due)
    return loss + sum((functional.cross_entropy(one, due) for one in alone.unbind(1)), loss.new_zeros(()))
