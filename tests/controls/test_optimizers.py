"""Broken twins: each law of optimizers must catch, by name, the optimizer that breaks it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from loci.core.checking import broken_by
from loci.weights.optim import checks
from loci.weights.optim.apollo import APOLLO
from loci.weights.optim.base import Composed
from loci.weights.optim.galore import GaLore, GaLore8bit
from loci.weights.optim.lamb import LAMB
from loci.weights.optim.sgd_sai import SGDSaI

torch.set_num_threads(1)


class Uphill(SGDSaI):
    """Adds where it should subtract."""

    def step_size(self, group):
        return -super().step_size(group)


class Rushing(SGDSaI):
    """Descends bowls; in the steep valley its steps overshoot ever further."""

    def after(self, slot, update, group):
        return super().after(slot, update, group) * 200


class Restless(SGDSaI):
    """Decays its weights by a rate of its own."""

    def after(self, slot, update, group):
        slot.param.mul_(0.999)
        return super().after(slot, update, group)


class Forgetful(SGDSaI):
    """Keeps what matters outside its state."""

    def __init__(self, params, lr=0.01, **rest):
        self.turn = 0
        super().__init__(params, lr, **rest)

    def update(self, work):
        self.turn += 1
        super().update(work)

    def after(self, slot, update, group):
        return super().after(slot, update, group) / self.turn


class Lost(SGDSaI):
    """Keeps an option beside the groups, where copies lose it."""

    def __init__(self, params, lr=0.01, **rest):
        self.own = {"extra": 1.0}
        super().__init__(params, lr, **rest)

    def add_param_group(self, param_group):
        super().add_param_group({**self.own, **param_group})


class Widening(GaLore8bit):
    """Loads as PyTorch does: 8-bit moments come back in the dtype of the parameter."""

    load_state_dict = torch.optim.Optimizer.load_state_dict


class Whole(GaLore):
    """Keeps the view of all singular vectors and calls it r of them."""

    def before(self, slot, group):
        fed = super().before(slot, group)
        slot.state["right"] = torch.linalg.svd(slot.grad.float(), full_matrices=False)[2][: group["rank"]].T.to(
            fed.dtype
        )
        return slot.grad @ slot.state["right"]


class Growing(SGDSaI):
    """Remembers every gradient."""

    def before(self, slot, group):
        slot.state["past"] = torch.cat([slot.state.get("past", slot.grad[:0]), slot.grad])
        return super().before(slot, group)


class Numbered(APOLLO):
    """Seeds each parameter by its place, as the authors' code does."""

    def before(self, slot, group):
        place = next(n for n, param in enumerate(group["params"]) if param is slot.param)
        return super().before(slot, {**group, "seed": place})


class Eager(SGDSaI):
    """Takes a missing gradient for a zero one: decay and state all the same."""

    def update(self, work):
        for group, params in [(group, group["params"]) for group in self.param_groups]:
            for param in params:
                if param.grad is None:
                    param.grad = torch.zeros_like(param)
                    self.state[param]["step"] = 0
        super().update([(group, list(group["params"])) for group in self.param_groups])


class Mute(SGDSaI):
    """Calls the closure twice and loses the loss."""

    def step(self, closure=None):
        if closure is not None:
            super().step(closure)
        super().step()


class Hasty(LAMB):
    """The fused form forgets weight decay."""

    def write(self, slots, updates, group):
        super().write(slots, updates, {**group, "weight_decay": 0.0})


class Twostep(SGDSaI):
    """Counts its own steps, so it knows only steps of the whole model."""

    def __init__(self, params, lr=0.01, **rest):
        self.turn = 0
        super().__init__(params, lr, **rest)

    def update(self, work):
        self.turn += 1
        super().update(work)

    def after(self, slot, update, group):
        return super().after(slot, update, group) * (0.5 if self.turn % 2 else 1)


class Upcasting(SGDSaI):
    """Trains a float32 copy and hands that over."""

    def after(self, slot, update, group):
        slot.param.data = slot.param.data.float()
        return super().after(slot, update, group).float()


class Dicey(SGDSaI):
    """Adds noise from the global generator."""

    def after(self, slot, update, group):
        return super().after(slot, update, group) + torch.randn_like(update)


class Stubborn(SGDSaI):
    """Keeps the lr that it was built with."""

    def __init__(self, params, lr=0.01, **rest):
        self.first = lr
        super().__init__(params, lr, **rest)

    def step_size(self, group):
        return self.first


class Scribbling(SGDSaI):
    """Clips the gradients in place."""

    def before(self, slot, group):
        slot.grad.clamp_(-0.5, 0.5)
        return super().before(slot, group)


class Dividing(SGDSaI):
    """Divides by the gradient's norm, guard forgotten."""

    def before(self, slot, group):
        return super().before(slot, group) / slot.grad.norm()


class Tolerant(SGDSaI):
    """Takes any tensor, any number of times."""

    def add_param_group(self, param_group):
        torch.optim.Optimizer.add_param_group(self, param_group)


class Littering(SGDSaI):
    """Refuses a parameter, and keeps its group."""

    def add_param_group(self, param_group):
        torch.optim.Optimizer.add_param_group(self, param_group)
        for param in param_group["params"]:
            self.admit(param, param_group)


class Late(SGDSaI):
    """Finds the sparse gradient when it gets there."""

    def check(self, param, grad, state, group):
        return

    def before(self, slot, group):
        Composed.check(self, slot.param, slot.grad, slot.state, group)
        return super().before(slot, group)


class Boundless(GaLore):
    """Takes any rank."""

    def admit(self, param, group):
        Composed.admit(self, param, group)


SMALL = {"lr": 0.002, "foreach": False}  # the plain form goes through `after`
RANKED = {"lr": 0.05, "rank": 2, "update_proj_gap": 5, "scale": 1.0, "foreach": False}
TWINS: list[tuple[Any, type[Composed], dict[str, Any]]] = [
    (checks.descends_a_quadratic, Uphill, SMALL),
    (checks.descends_rosenbrock, Rushing, SMALL),
    (checks.lr_zero_changes_nothing, Restless, SMALL),
    (checks.state_dict_continues_bitwise, Forgetful, SMALL),
    (checks.state_dict_continues_bitwise, Widening, RANKED),
    (checks.a_copy_takes_new_groups, Lost, SMALL),
    (checks.held_bytes_are_the_formula, Whole, RANKED),
    (checks.held_bytes_are_the_formula, Growing, SMALL),
    (checks.order_of_parameters_does_not_matter, Numbered, RANKED),
    (checks.parameters_without_gradient_are_left, Eager, SMALL),
    (checks.closure_form_is_the_plain_form, Mute, SMALL),
    (checks.foreach_is_the_plain_form, Hasty, {"lr": 0.05}),
    (checks.backward_form_is_the_plain_form, Twostep, SMALL),
    (checks.runs_in_bfloat16, Upcasting, SMALL),
    (checks.same_seed_same_run, Dicey, SMALL),
    (checks.takes_schedules_and_clipping, Stubborn, SMALL),
    (checks.gradients_are_left_alone, Scribbling, SMALL),
    (checks.gradients_are_left_alone, Dividing, SMALL),
    (checks.bad_parameters_are_refused, Tolerant, SMALL),
    (checks.bad_parameters_are_refused, Littering, SMALL),
    (checks.sparse_gradients_are_refused, Late, SMALL),
    (checks.a_rank_must_fit, Boundless, RANKED),
]


@pytest.mark.parametrize(("law", "twin", "example"), TWINS, ids=lambda part: getattr(part, "__name__", ""))
def test_the_law_catches_its_broken_twin(law, twin, example) -> None:
    assert broken_by(law, lambda: partial(twin, **example)), f"{law.__name__} lets {twin.__name__} pass"


def test_rushing_is_caught_by_the_valley_alone() -> None:
    assert not broken_by(checks.descends_a_quadratic, lambda: partial(Rushing, **SMALL))


def test_every_law_has_a_twin_and_every_sound_parent_keeps_it() -> None:
    assert {law for law, _, _ in TWINS} == set(checks.LAWS)
    for law, twin, example in TWINS:
        parent = twin.__mro__[1]
        assert not broken_by(law, lambda parent=parent, example=example: partial(parent, **example)), (law, parent)
