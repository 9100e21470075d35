"""A network that predicts gradients, so that another can learn before they are there; and what it learns them from.

    g_t = d(L_t + ... + L_{t+n-1}) / dh_t  +  (dh_{t+n} / dh_t)^T ghat_{t+n}          target, over n steps
    L_SG = sum_t |ghat_t - g_t|^2                                                     ghat_t = SG(h_t, what else is known)

The target is what backpropagation over n steps finds, and what the predictor itself says of everything later; nothing of
it is differentiated. With n steps to the end it is the gradient through time. What later losses hear of h_t otherwise than
through h_{t+n}, as through a memory, is missing from it.

Paper: Jaderberg et al., "Decoupled Neural Interfaces using Synthetic Gradients", arXiv:1608.05343, equations from the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Outputs = Sequence[Tensor]  # what the controllers said at one moment, each (B, m)


class Neuromodulator(nn.Module):
    """Predicts dL/dh (B, m) from h and what else is known (B, seen), in two layers of which the last starts at zero."""

    def __init__(self, m: int, seen: int, *, width: int) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(m + seen, width), nn.Linear(width, m)
        for param in self.last.parameters():
            nn.init.zeros_(param)

    def forward(self, h: Tensor, known: Tensor) -> Tensor:
        """The gradient as predicted, of any length."""
        gradient: Tensor = self.last(torch.tanh(self.hidden(torch.cat([h, known], -1))))
        return gradient


class Feedback(nn.Module):
    """One path back for each controller; give the same to several networks, and what one learns is known to all."""

    def __init__(self, outputs: Sequence[int], seen: int, *, width: int) -> None:
        super().__init__()
        self.outputs, self.seen = tuple(outputs), seen
        self.paths = nn.ModuleList(Neuromodulator(m, seen, width=width) for m in outputs)

    def forward(self, said: Outputs, known: Tensor) -> tuple[Tensor, ...]:
        """The predicted gradient of each controller's output."""
        return tuple(path(h, known) for path, h in zip(self.paths, said, strict=True))


def clipped(gradient: Tensor) -> Tensor:
    """(B, m), each row no longer than 1."""
    length: Tensor = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
    return gradient / length.clamp(min=1)


def regression_targets(
    losses: Sequence[Tensor], said: Sequence[Outputs], predicted: Sequence[Outputs], *, n: int
) -> list[tuple[Tensor, ...]]:
    """g_t of every controller's output at every moment, detached; `losses` are sums over the batch, one a moment.

    `said[t]` must be in the graph of the losses from t on; `predicted[t]` is ghat_t, in the shapes of `said[t]`.
    """
    if n < 1 or not len(losses) == len(said) == len(predicted):
        raise ValueError(
            f"n={n} steps, {len(losses)} losses, {len(said)} outputs and {len(predicted)} predictions do not fit; "
            f"give one of each for every moment and n >= 1"
        )
    targets = []
    for t, own in enumerate(said):
        ahead = losses[t : t + n]
        ends: list[Tensor] = [loss for loss in ahead if loss.requires_grad]
        weights: list[Tensor] = [torch.ones_like(loss) for loss in ends]
        if t + n < len(losses):
            pairs = zip(said[t + n], predicted[t + n], strict=True)
            for h, ghat in pairs:
                if h.requires_grad:
                    ends.append(h)
                    weights.append(ghat.detach())
        found = torch.autograd.grad(
            ends, list(own), weights, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        targets.append(tuple(g.detach() for g in found))
    return targets


def regression_loss(predicted: Sequence[Outputs], targets: Sequence[Outputs]) -> Tensor:
    """The squared error of the predicted gradients, summed over controllers, averaged over moments and rows."""
    errors = [
        (ghat - g).square().sum(-1).mean()
        for now, due in zip(predicted, targets, strict=True)
        for ghat, g in zip(now, due, strict=True)
    ]
    return torch.stack(errors).sum() / len(predicted)


def alignment(predicted: Sequence[Outputs], targets: Sequence[Outputs]) -> float:
    """The mean cosine between predicted gradients and their targets."""
    cosines = [
        torch.cosine_similarity(ghat.detach(), g, dim=-1).mean()
        for now, due in zip(predicted, targets, strict=True)
        for ghat, g in zip(now, due, strict=True)
    ]
    return float(torch.stack(cosines).mean())
