"""A memory network that learns while it runs: predicted gradients change its controllers at once, stream by stream.

    x_t = [features, onehot of the label of t - 1]
    for each controller c of read, answer, write, with output h_c = (W_c + F_c) a_c as in neural_memory.py:
        ghat_c = clip(SG_c(h_{c,t-1}, mean slot of M_{t-1}, label of t - 1))             now that the label is known
        F_c   <- F_c - alpha ghat_c (x) a_{c,t-1}                                         fast: no backward pass, only this row
    then read, answer and write with what was just learned

F are the fast changes of the controllers' last layers, discarded at a reset; W and SG are learned slowly, over episodes: by
the loss of the answers and by `slow_losses`, which regresses SG on bootstrapped true gradients of n steps. Each controller has
a path back of its own. SG starts at zero: then this is the plain network, bit for bit. Give the `feedback` of one network to
another, and both are taught by the same gradients.

Paper: "Fast & Slow Learning: Incorporating Synthetic Gradients in Neural Memory Controllers", arXiv:2011.05438.
Differs: no code is public and only the abstract was at hand: sizes, addressing and SG's inputs are the usual reading of a memory
network with decoupled interfaces (Jaderberg et al. 2017). Fast weights only in the last layers, which is what makes a copy for
each stream affordable; the label comes one moment later, in the input, and the update with it. Where no label is told its
columns are zero, and SG predicts without. Fast changes are differentiated like all else, so the loss of the answers trains SG,
too, beside the regression.
Keeps: b*B*(2*n + L*k + k*n + D*(n+k) + 3*k*(n+D) + 5*k + D) bytes: the fast copies are most of it.

>>> mixer = SyntheticGradientMemory(6, 5, classes=2, L=4, k=3)
>>> y, state = mixer(torch.ones(2, 7, 6))
>>> y.shape, [tuple(part.shape) for part in state[3:6]]
(torch.Size([2, 7, 6]), [(2, 3, 5), (2, 6, 8), (2, 9, 11)])
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from loci.core.card import method
from loci.state.mixer import State
from loci.state.neural_memory import NeuralMemory, linear, read, write
from loci.state.neuromodulator import Feedback, alignment, clipped, regression_loss, regression_targets


class Fast(NamedTuple):
    """The part of the state that the three controllers have: memory, fast changes, and what happened last."""

    M: Tensor
    F_read: Tensor
    F_answer: Tensor
    F_write: Tensor
    z: Tensor  # what was read last
    key: Tensor  # what the read controller said last
    answer: Tensor
    order: Tensor  # what the write controller said last

    def said(self) -> tuple[Tensor, Tensor, Tensor]:
        """The controllers' last outputs."""
        return self.key, self.answer, self.order

    def heard(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What their last layers heard, when the input controller said q."""
        return q, torch.cat([q, self.z], -1), torch.cat([q, self.answer], -1)


@method(
    name="synthetic-gradient-memory",
    kind="mixer",
    title="Fast & Slow Learning: Incorporating Synthetic Gradients in Neural Memory Controllers",
    paper="arXiv:2011.05438",
    says="a memory network whose read, answer and write controllers learn at every step from predicted gradients",
    bytes="b*B*(2*n + L*k + k*n + D*(n+k) + 3*k*(n+D) + 5*k + D)",
    example={"D": 5, "n": 4, "classes": 2, "L": 4, "k": 3, "width": 6},
    needs=("torch",),
    system="synthetic_gradient_memory",
)
class SyntheticGradientMemory(NeuralMemory):
    """The last `classes` columns of the input are the last label, those of the output the logits of the next."""

    def __init__(
        self,
        D: int,
        n: int,
        *,
        classes: int,
        L: int = 16,
        k: int = 16,
        width: int = 32,
        rate: float = 0.1,
        feedback: Feedback | None = None,
    ) -> None:
        super().__init__(D, n, L=L, k=k)
        if not 1 <= classes < D:
            raise ValueError(f"classes={classes} does not fit D={D} columns; give features and a one-hot label")
        outputs, seen = (k, D, 3 * k), k + classes
        feedback = Feedback(outputs, seen, width=width) if feedback is None else feedback
        if (feedback.outputs, feedback.seen) != (outputs, seen):
            raise ValueError(
                f"feedback is for outputs {feedback.outputs} and {feedback.seen} inputs, this network has {outputs} "
                f"and {seen}; share it among networks of the same D, k and classes"
            )
        self.classes, self.rate, self.feedback = classes, rate, feedback

    def initial_state(self, batch: int) -> State:
        """The plain network's, no fast changes, and nothing said or heard."""
        h, s, M = super().initial_state(batch)
        n, k, D = self.n, self.k, self.D
        nothing = ((k, n), (D, n + k), (3 * k, n + D), (k,), (k,), (D,), (3 * k,))
        return h, s, *Fast(M, *(M.new_zeros(batch, *shape) for shape in nothing))

    def recall(self, x: Tensor, q: Tensor, before: Tensor, state: State) -> tuple[Tensor, State]:
        """Learn from what was said last, now that its label is here; then read, answer, write."""
        last = Fast(*state)
        F_read, F_answer, F_write = self.learned(last, before, x[:, -self.classes :])
        key = linear(q, self.reader, F_read)
        z = read(key, last.M)
        answer = linear(torch.cat([q, z], -1), self.controller.readout, F_answer)
        order = linear(torch.cat([q, answer], -1), self.writer, F_write)
        return answer, Fast(write(order, last.M), F_read, F_answer, F_write, z, key, answer, order)

    def learned(self, last: Fast, q: Tensor, label: Tensor) -> tuple[Tensor, ...]:
        """The fast changes after the update of what happened last."""
        ghats = self.feedback(last.said(), torch.cat([last.M.mean(1), label], -1))
        changes = (last.F_read, last.F_answer, last.F_write)
        return tuple(
            F - self.rate * clipped(ghat).unsqueeze(-1) * a.unsqueeze(-2)
            for F, ghat, a in zip(changes, ghats, last.heard(q), strict=True)
        )


class SlowLosses(NamedTuple):
    """What the slow weights are trained on."""

    answers: Tensor  # cross-entropy of the answers
    gradients: Tensor  # squared error of the predicted gradients; trains the feedback alone
    cosine: float  # between predicted and true gradients
    logits: Tensor  # (B, T, classes)


def slow_losses(mixer: SyntheticGradientMemory, x: Tensor, labels: Tensor, *, n: int = 2) -> SlowLosses:
    """Both slow losses on (B, T, D) with labels (B, T); the targets of the second bootstrap after n steps."""
    state, losses, logits, said, ghats = mixer.initial_state(len(x)), [], [], [], []
    truths = functional.one_hot(labels, mixer.classes).to(x.dtype)
    thoughts, _ = mixer.think(x, state[:2])
    before, rest = state[0], state[2:]
    for t in range(x.shape[1]):
        y, rest = mixer.recall(x[:, t], thoughts[:, t], before, rest)
        before = thoughts[:, t]
        fast = Fast(*rest)
        logits.append(y[:, -mixer.classes :])
        losses.append(functional.cross_entropy(logits[-1], labels[:, t], reduction="sum"))
        said.append(fast.said())
        known = torch.cat([fast.M.mean(1), truths[:, t]], -1).detach()
        ghats.append(mixer.feedback([h.detach() for h in fast.said()], known))
    targets = regression_targets(losses, said, ghats, n=n)
    answers = torch.stack(losses).sum() / labels.numel()
    return SlowLosses(answers, regression_loss(ghats, targets), alignment(ghats, targets), torch.stack(logits, 1))
