"""Broken twins: each law of local trainers must catch, by name, the trainer that breaks it."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from loci.core.checking import broken_by
from loci.weights.local import checks
from loci.weights.local.base import LocalTrainer
from loci.weights.local.sltt import SLTTK
from loci.weights.local.tpsgd import TPSGD

torch.set_num_threads(1)


class Leaking(TPSGD):
    """Hands a layer's output on with its graph."""

    def _with_loss(self, place, x, state, y):
        out = self._layer(place, x, state)
        return self.local_loss(place, out, self.targets[place](y)), out


class Doubling(TPSGD):
    """Goes back through twice the loss that it yields."""

    def backward_blocks(self, x, y):
        for loss in self.block_losses(x, y):
            torch.autograd.backward(2 * loss)
            yield loss.detach()


class Retaining(TPSGD):
    """Keeps the graph after backward."""

    def backward_blocks(self, x, y):
        for loss in self.block_losses(x, y):
            torch.autograd.backward(loss, retain_graph=True)
            yield loss.detach()


class Hoarding(TPSGD):
    """Saves more than its card says."""

    def local_loss(self, place, y, target):
        return super().local_loss(place, y, target) + (y + 1).square().mean()


class Gathering(TPSGD):
    """Runs all blocks, then goes back through all, then yields."""

    def backward_blocks(self, x, y):
        losses = list(self.block_losses(x, y))
        for loss in losses:
            torch.autograd.backward(loss)
        yield from (loss.detach() for loss in losses)


class Eager(TPSGD):
    """Runs every block when the first loss is asked for."""

    def block_losses(self, x, y):
        yield from list(super().block_losses(x, y))


class Ascending(TPSGD):
    """Climbs the head's loss."""

    def _head_loss(self, scores, y):
        return -super()._head_loss(scores, y)


class Counting(TPSGD):
    """Counts its calls in its state."""

    def __init__(self, layers, shape, **rest):
        super().__init__(layers, shape, **rest)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Helped(TPSGD):
    """Looks at the targets in forward."""

    def forward(self, x):
        return super().forward(x) + self.targets[0].P.mean()


class Hiding(TPSGD):
    """Trains a head that forward never reads, and calls it no helper."""

    def __init__(self, layers, shape, **rest):
        super().__init__(layers, shape, **rest)
        self.extra = nn.Parameter(torch.zeros(()))

    def local_loss(self, place, y, target):
        return super().local_loss(place, y, target) + (self.extra - 1).square()


class Centring(TPSGD):
    """Subtracts the mean over the batch."""

    def forward(self, x):
        scores = super().forward(x)
        return scores - scores.mean(0)


class Forgetful(SLTTK):
    """Loses its place in the draws."""

    get_extra_state = nn.Module.get_extra_state
    set_extra_state = nn.Module.set_extra_state


class Dicey(TPSGD):
    """Adds noise from the global generator to its loss."""

    def local_loss(self, place, y, target):
        return super().local_loss(place, y, target + torch.randn(()))


class Scribbling(TPSGD):
    """Centres the inputs in place."""

    def block_losses(self, x, y):
        with torch.no_grad():
            x -= x.mean()
        yield from super().block_losses(x, y)


class Upcasting(TPSGD):
    """Trains in float32 whatever it was given."""

    def block_losses(self, x, y):
        self.float()
        yield from super().block_losses(x.float(), y)


class Overflowing(TPSGD):
    """Has a loss that leaves the range of bfloat16."""

    def local_loss(self, place, y, target):
        return super().local_loss(place, y * 1e30, target)


class Clamping(TPSGD):
    """Takes any class for the nearest one that it knows."""

    def block_losses(self, x, y):
        yield from super().block_losses(x, y.clamp(0, self.classes - 1))


class Late(TPSGD):
    """Finds the class that is out of range when a layer has its gradient already."""

    def block_losses(self, x, y):
        *hidden, head = super().block_losses(x, y.clamp(0, self.classes - 1))
        yield from hidden
        if int(y.max()) >= self.classes or int(y.min()) < 0:
            raise ValueError("y is out of range")
        yield head


LAYERS = {"layers": [16, 16], "shape": [12], "classes": 4}
SPIKING = {"layers": [16], "shape": [6], "classes": 3, "k": 2, "steps": 4}
TWINS: list[tuple[Any, type[LocalTrainer], dict[str, Any]]] = [
    (checks.each_loss_reaches_its_block_alone, Leaking, LAYERS),
    (checks.blocks_in_turn_train_as_all_at_once, Doubling, LAYERS),
    (checks.nothing_is_saved_between_blocks, Retaining, LAYERS),
    (checks.peak_saved_bytes_are_the_formula, Hoarding, LAYERS),
    (checks.the_peak_is_one_block_not_their_sum, Gathering, LAYERS),
    (checks.a_block_runs_when_it_is_asked_for, Eager, LAYERS),
    (checks.steps_inside_backward, Gathering, LAYERS),
    (checks.training_learns, Ascending, LAYERS),
    (checks.forward_is_scores_and_changes_nothing, Counting, LAYERS),
    (checks.forward_needs_no_helper, Helped, LAYERS),
    (checks.forward_needs_no_helper, Hiding, LAYERS),
    (checks.rows_do_not_mix, Centring, LAYERS),
    (checks.state_dict_continues_bitwise, Forgetful, SPIKING),
    (checks.same_seed_same_run, Dicey, LAYERS),
    (checks.inputs_are_left_alone, Scribbling, LAYERS),
    (checks.runs_in_bfloat16, Upcasting, LAYERS),
    (checks.runs_in_bfloat16, Overflowing, LAYERS),
    (checks.bad_input_is_refused, Clamping, LAYERS),
    (checks.bad_input_is_refused, Late, LAYERS),
]


@pytest.mark.parametrize(("law", "twin", "example"), TWINS, ids=lambda part: getattr(part, "__name__", ""))
def test_the_law_catches_its_broken_twin(law, twin, example) -> None:
    assert broken_by(law, lambda: twin(**example)), f"{law.__name__} lets {twin.__name__} pass"


def test_every_law_has_a_twin_and_every_sound_parent_keeps_it() -> None:
    assert {law for law, _, _ in TWINS} == set(checks.LAWS)
    for law, twin, example in TWINS:
        parent = twin.__mro__[1]
        assert not broken_by(law, lambda parent=parent, example=example: parent(**example)), (law, parent)
