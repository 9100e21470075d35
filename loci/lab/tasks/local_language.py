"""The language model of language.py, trained block by block: backward never crosses from the second block to the first.

The first block learns by a loss of its own, on heads over tokens in place of heads over classes; AdamW steps all.
Trainers whose units are not a transformer's (spiking ones, layers with targets of their own) have no place here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from loci.lab.tasks import peak
from loci.lab.tasks.language import Transformer, cosine, read, state_bytes, windows
from loci.weights.local.cut import Classified, LocalLoss
from loci.weights.local.local_reconstruction import FeatureLoss
from loci.weights.local.man import Average, Copy


def by_token(scores: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of (B, T, V) scores and (B, T) codes."""
    return nn.functional.cross_entropy(scores.flatten(0, 1), y.flatten())


class TwoBlocks(nn.Module):
    """A transformer of two blocks and what the first one learns by."""

    def __init__(self, model: Transformer, name: str) -> None:
        super().__init__()
        D = model.head.in_features
        head = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, model.head.out_features))
        self.model, self.branches = model, nn.ModuleList()
        if name == "local-reconstruction":
            self.loss: LocalLoss = FeatureLoss(nn.Linear(D, D), head, lam1=1.0, criterion=by_token)
        else:
            self.loss = Classified(head, criterion=by_token)
        if name == "man":
            self.branches.extend([Average(model.blocks[1]), Copy(model.blocks[1])])

    def losses(self, x: Tensor, y: Tensor) -> Iterator[Tensor]:
        """The loss of the first block, then that of the second, which is the model's own."""
        model = self.model
        given = model.embed(x) + model.place(torch.arange(x.shape[1]))
        out = model.blocks[0](given)
        for branch in self.branches:
            if isinstance(branch, Average):
                branch.follow(model.blocks[1], 0.995)
        seen = sum((branch(out) for branch in self.branches), torch.zeros(())) if self.branches else out
        yield self.loss(seen, given.detach(), x, y)
        given = out.detach()
        del out, seen
        yield by_token(model.head(model.norm(model.blocks[1](given))), y)


def trained(name: str, lr: float, seed: int, *, steps: int, batch: int, limit: float) -> tuple[float, dict[str, int]]:
    """Held-out loss after training block by block, and the bytes of a step by what they are for; NaN and none if it diverged.

    `name` is greedy, man or local-reconstruction.
    """
    text, threads = read(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            cut = TwoBlocks(Transformer(text.characters), name)
        optimizer = torch.optim.AdamW((p for p in cut.parameters() if p.requires_grad), lr=lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine(step, steps))
        random = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            optimizer.zero_grad()
            for loss in cut.losses(*windows(text.train, cut.model.T, batch, random)):
                torch.autograd.backward(loss)
            if not float(loss.detach()) <= limit:
                return math.nan, {}
            optimizer.step()
            schedule.step()
        x, y = windows(text.train, cut.model.T, batch, torch.Generator().manual_seed(0))
        held = {
            "weights": peak.weights(cut),
            "gradients": peak.gradients(cut),
            "state": state_bytes(optimizer),
            "saved": _saved(cut, x, y),
        }
        with torch.no_grad():
            x, y = windows(text.valid, cut.model.T, 256, torch.Generator().manual_seed(0))
            return float(by_token(cut.model(x), y)), held
    finally:
        torch.set_num_threads(threads)


def _saved(cut: TwoBlocks, x: Tensor, y: Tensor) -> int:
    """The most that either block saves for backward."""
    losses, sizes = cut.losses(x, y), []
    for _ in range(2):
        besides = [x, y, *cut.parameters(), *cut.buffers()]
        sizes.append(peak.saved_for_backward(lambda: next(losses), besides=besides))
    return max(sizes)
