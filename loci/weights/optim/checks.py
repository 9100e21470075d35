"""The laws of optimizers as data (`LAWS`), run over every member.

A law takes `make`; `make()` is the member with the arguments of its card, still to be given parameters. Members keep
the laws on matrices of three shapes, a vector and a scalar.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from loci.core import formula
from loci.core.checking import Case, Law, Make, cases, refused
from loci.weights.optim.backward import fuse_into_backward
from loci.weights.optim.base import Composed

SHAPES: tuple[tuple[int, ...], ...] = ((6, 4), (4, 6), (4, 4), (3,), ())
Weights: TypeAlias = list[nn.Parameter]
Loss: TypeAlias = Callable[[Weights], Tensor]


def optimizer_cases() -> Iterator[Case]:
    """Every optimizer under every law that is about what it reads; what a law makes still waits for its parameters."""
    for case in cases("optimizer", LAWS):
        if case.member.zeroth_order and case.law in GRADIENT_LAWS:
            continue
        yield Case(case.card, lambda member=case.member, **example: partial(member, **example), case.law)


def weights(dtype: torch.dtype = torch.float32) -> Weights:
    """Parameters of all shapes, the same every time."""
    random = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=random).to(dtype)) for shape in SHAPES]


def quadratic(params: Weights) -> Tensor:
    """Half the squared distance to fixed targets."""
    random = torch.Generator().manual_seed(2)
    targets = [torch.randn(shape, generator=random) for shape in SHAPES]
    by_shape = dict(zip(SHAPES, targets, strict=True))
    return torch.stack([(p - by_shape[tuple(p.shape)]).square().sum().float() / 2 for p in params]).sum()


def rosenbrock(params: Weights) -> Tensor:
    """The banana valley in pairs of rows: sum of (1 - x)^2 + 100 (y - x^2)^2, averaged over pairs."""
    x, y = params[0].chunk(2)
    return ((1 - x).square() + 100 * (y - x.square()).square()).mean()


def train(optimizer: Any, params: Weights, steps: int, loss: Loss = quadratic) -> float:
    """Steps with a closure; the loss before the last of them, nan when step does not return it."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(params)
        if value.requires_grad:  # not when the optimizer asks for the value alone
            torch.autograd.backward(value)
        return value.detach()

    last = [optimizer.step(closure) for _ in range(steps)][-1]
    return math.nan if last is None else float(last)


def held_bytes(optimizer: torch.optim.Optimizer) -> int:
    """The storage of all state tensors, each storage once."""
    tensors = [part for state in optimizer.state.values() for part in state.values() if isinstance(part, Tensor)]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def descends_a_quadratic(make: Make) -> None:
    """300 steps leave at most a quarter of the loss."""
    params = weights()
    start = float(quadratic(params).detach())
    end = train(make()(params), params, 300)
    assert end < start / 4, f"a quadratic of {start:.3f} is still {end:.3f} after 300 steps"


def descends_rosenbrock(make: Make) -> None:
    """300 steps in the banana valley leave at most half of the loss."""
    random = torch.Generator().manual_seed(3)
    params = [nn.Parameter(torch.randn(8, 6, generator=random) * 0.5 - 0.5)]
    start = float(rosenbrock(params).detach())
    end = train(_gentle(make)(params), params, 300, rosenbrock)
    assert end < start / 2, f"Rosenbrock's function at {start:.3f} is still {end:.3f} after 300 steps"


def lr_zero_changes_nothing(make: Make) -> None:
    """With lr 0 every parameter stays as it is, bit for bit."""
    params = weights()
    before = _copies(params)
    train(make()(params, lr=0.0), params, 3)
    _same(params, before, "lr=0 moved the weights")


def state_dict_continues_bitwise(make: Make) -> None:
    """Saved, loaded into a fresh optimizer and continued, the run and the dtypes of its state are as without a break."""
    params = weights(torch.bfloat16)
    optimizer = make()(params)
    train(optimizer, params, 7)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twins = [nn.Parameter(copy) for copy in _copies(params)]
    fresh = make()(twins)
    fresh.load_state_dict(torch.load(file))
    assert held_bytes(fresh) == held_bytes(optimizer), (
        f"{held_bytes(optimizer)} bytes of state became {held_bytes(fresh)} by loading"
    )
    train(optimizer, params, 6)
    train(fresh, twins, 6)
    _same(twins, _copies(params), "a loaded optimizer goes another way")


def a_copy_takes_new_groups(make: Make) -> None:
    """A deep copy trains on as the original does, and a group that joins it later takes the options it lacks."""
    params = weights()
    optimizer = make()(params[:2])
    train(optimizer, params[:2], 3)
    twins, twin = copy.deepcopy((params, optimizer))
    train(optimizer, params[:2], 3)
    train(twin, twins[:2], 3)
    _same(twins, _copies(params), "a copy goes another way")
    try:
        twin.add_param_group({"params": twins[2:]})
        train(twin, twins, 2)
    except (AttributeError, KeyError) as error:
        raise AssertionError(f"a new group of a copy lacks {error}") from error
    assert not torch.equal(twins[2], params[2]), "a group that was added later never moved"


def held_bytes_are_the_formula(make: Make) -> None:
    """What the state tensors of a matrix hold is what the card says, in any dtype, and does not grow."""
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for m, n in ((12, 8), (8, 12), (40, 40)):
            param = nn.Parameter(torch.ones(m, n, dtype=dtype))
            optimizer = make()([param])
            group = optimizer.param_groups[0]
            shapes = {"m": m, "n": n, "b": dtype.itemsize, "r": group.get("rank"), "s": group.get("history")}
            card = optimizer.card
            said = formula.evaluate(card.bytes, {name: size for name, size in shapes.items() if size is not None})
            for steps in (1, 12):
                train(optimizer, [param], steps, _far_from_identity)
                held = held_bytes(optimizer)
                assert held == said, f"({m}, {n}) in {dtype} holds {held} bytes, the card says {card.bytes} = {said}"


def order_of_parameters_does_not_matter(make: Make) -> None:
    """Parameters given in the other order train the same."""
    params, others = weights(), weights()
    train(make()(params), params, 12)
    train(make()(others[::-1]), others, 12)
    _close(others, params, "the other order of parameters trains otherwise")


def parameters_without_gradient_are_left(make: Make) -> None:
    """A parameter whose grad is None keeps its value and gets no state; when it gets one later it starts as new."""
    params = weights()
    before = _copies(params)
    optimizer = make()(params)
    train(optimizer, params[:2], 3)
    _same(params[2:], before[2:], "a parameter without gradient moved")
    assert not any(optimizer.state.get(param) for param in params[2:]), "a parameter without gradient got state"
    train(optimizer, params, 3)
    assert not torch.equal(params[2], before[2]), "a parameter whose gradient came late never moved"


def closure_form_is_the_plain_form(make: Make) -> None:
    """step(closure) returns the closure's loss and does what backward and step() do."""
    params, others = weights(), weights()
    one, two = make()(params), make()(others)
    for _ in range(4):
        one.zero_grad()
        loss = quadratic(params)
        torch.autograd.backward(loss)
        assert one.step() is None, "step() without a closure returned something"
        last = train(two, others, 1)
        assert last == float(loss.detach()), f"step(closure) returned {last}, the loss was {float(loss.detach())}"
    _same(others, _copies(params), "step(closure) is another step than step()")


def foreach_is_the_plain_form(make: Make) -> None:
    """The fused form trains as the plain form does, whatever the layout of a matrix in memory."""
    params, others = weights(), weights()
    others[0] = nn.Parameter(others[0].detach().T.contiguous().T)
    train(make()(params, foreach=False, weight_decay=0.1), params, 12)
    train(make()(others, foreach=True, weight_decay=0.1), others, 12)
    _close(others, params, "foreach=True trains otherwise than foreach=False")


def backward_form_is_the_plain_form(make: Make) -> None:
    """Stepped inside backward, each gradient freed at once, weights go the same way, also after loading a state."""
    params, others = weights(), weights()
    plain, fused = make()(params), make()(others)
    if not isinstance(plain, Composed):
        return
    with fuse_into_backward(fused):
        for turn in range(6):
            train(plain, params, 1)
            torch.autograd.backward(quadratic(others))
            assert all(param.grad is None for param in others), "a gradient outlived its step"
            fused.step()
            if turn == 2:
                fused.load_state_dict(copy.deepcopy(fused.state_dict()))
    _close(others, params, "the step inside backward is another one")
    before = _copies(others)
    torch.autograd.backward(quadratic(others))
    _same(others, before, "it still steps inside backward after its end")


def runs_in_bfloat16(make: Make) -> None:
    """bfloat16 weights stay bfloat16 and finite, and descend."""
    params = weights(torch.bfloat16)
    start = float(quadratic(params).detach())
    end = train(make()(params), params, 300)
    assert {param.dtype for param in params} == {torch.bfloat16}, "the weights changed their dtype"
    assert math.isfinite(end), f"the loss is {end}"
    assert end < start / 2, f"a quadratic of {start:.3f} is still {end:.3f} after 300 steps in bfloat16"


def same_seed_same_run(make: Make) -> None:
    """Two runs agree bit for bit, whatever torch's global generator did, and leave that generator alone."""
    params, others = weights(), weights()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    train(make()(params), params, 8)
    assert torch.equal(torch.get_rng_state(), state), "it drew from torch's global generator"
    torch.manual_seed(6)
    train(make()(others), others, 8)
    _same(others, _copies(params), "two runs of the same calls differ")


def takes_schedules_and_clipping(make: Make) -> None:
    """A torch scheduler's lr is the one that is used, and gradients clipped outside are what is stepped on."""
    params = weights()
    optimizer = make()(params)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 3 else 0.0)
    for turn in range(5):
        before = _copies(params)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = quadratic(params)
            if loss.requires_grad:
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(params, 0.1)
            return loss

        optimizer.step(closure)
        schedule.step()
        moved = max(_gap(param, old) for param, old in zip(params, before, strict=True)) > 1e-5
        assert moved == (turn < 3), f"turn {turn}: lr {'was 0 and the weights moved' if moved else 'was not used'}"
    assert all(param.isfinite().all() for param in params), "the weights are not finite"


def gradients_are_left_alone(make: Make) -> None:
    """A step reads gradients and does not write them; a zero gradient keeps everything finite."""
    params = weights()
    optimizer = make()(params)
    for scale in (0.0, 1.0, 0.0):
        before = []
        for param in params:
            param.grad = torch.ones_like(param) * scale
            before.append(param.grad.clone())
        optimizer.step(lambda: quadratic(params))
        same = all(
            param.grad is not None and torch.equal(param.grad, old) for param, old in zip(params, before, strict=True)
        )
        assert same, "a step wrote into the gradients"
        assert all(param.isfinite().all() for param in params), f"gradients of {scale} made weights that are not finite"


def bad_parameters_are_refused(make: Make) -> None:
    """Complex, integer and half precision tensors, tied weights, and a negative lr are one ValueError each, and no group."""
    one = nn.Parameter(torch.ones(4, 4))
    bad: dict[str, list[Any]] = {
        "complex": [nn.Parameter(torch.ones(4, 4, dtype=torch.complex64))],
        "int32": [torch.ones(4, 4, dtype=torch.int32)],
        "twice": [one, nn.Parameter(torch.ones(3)), one],
    }
    if not make().func.zeroth_order:
        bad["float16"] = [nn.Parameter(torch.ones(4, 4, dtype=torch.float16))]
    for word, params in bad.items():
        refused(partial(make(), params), word)
        held = make()([nn.Parameter(torch.ones(4, 4))])
        refused(partial(held.add_param_group, {"params": params}), word)
        assert len(held.param_groups) == 1, f"a refused group ({word}) was kept"
    held = make()([one])
    refused(partial(held.add_param_group, {"params": [one]}), "twice")
    refused(partial(make(), [one], lr=-1.0), "lr=-1.0")


def sparse_gradients_are_refused(make: Make) -> None:
    """A sparse gradient is a ValueError, and not one weight or state has changed by then."""
    params = weights()
    optimizer = make()(params)
    train(optimizer, params, 2)
    before, state = _copies(params), copy.deepcopy(optimizer.state_dict())
    for param in params:
        param.grad = torch.ones_like(param)
    params[2].grad = torch.ones(4, 4).to_sparse()
    refused(optimizer.step, "sparse")
    _same(params, before, "a refused step moved the weights")
    assert _equal(optimizer.state_dict(), state), "a refused step changed the state"


def a_rank_must_fit(make: Make) -> None:
    """A rank above a matrix's own, or below 1, is a ValueError that names both, and no group is kept."""
    held = make()([nn.Parameter(torch.ones(8, 8))])
    if "rank" not in held.defaults:
        return
    for rank in (5, 0):
        group = {"params": [nn.Parameter(torch.ones(4, 6))], "rank": rank}
        refused(partial(held.add_param_group, group), f"rank={rank}", "(4, 6)", "<= 4")
    assert len(held.param_groups) == 1, "a refused group was kept"


def _far_from_identity(params: Weights) -> Tensor:
    return (params[0] - torch.eye(*params[0].shape)).square().sum().float()


def _gentle(make: Make) -> Any:
    """The member at a tenth of its step: Rosenbrock's valley is a hundred times steeper than the quadratic."""
    build = make()
    return partial(build, lr=build.keywords["lr"] / 10)


def _copies(params: Weights) -> list[Tensor]:
    return [param.detach().clone() for param in params]


def _gap(one: Tensor, two: Tensor) -> float:
    return float((one.detach() - two.detach()).abs().max())


def _same(params: Weights, others: list[Tensor], what: str) -> None:
    for param, other in zip(params, others, strict=True):
        assert torch.equal(param, other), f"{what}: {tuple(param.shape)} by {_gap(param, other):.2e}"


def _close(params: Weights, others: Weights, what: str) -> None:
    for param, other in zip(params, others, strict=True):
        gap = _gap(param, other)
        assert gap <= 1e-5, f"{what}: {tuple(param.shape)} by {gap:.2e}"


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(_equal, one, two))
    return bool(one == two)


LAWS: tuple[Law, ...] = (
    descends_a_quadratic, descends_rosenbrock, lr_zero_changes_nothing, state_dict_continues_bitwise, a_copy_takes_new_groups,
    held_bytes_are_the_formula, order_of_parameters_does_not_matter, parameters_without_gradient_are_left,
    closure_form_is_the_plain_form, foreach_is_the_plain_form, backward_form_is_the_plain_form, runs_in_bfloat16,
    same_seed_same_run, takes_schedules_and_clipping, gradients_are_left_alone, bad_parameters_are_refused,
    sparse_gradients_are_refused, a_rank_must_fit,
)  # fmt: skip
GRADIENT_LAWS: tuple[Law, ...] = (
    parameters_without_gradient_are_left, closure_form_is_the_plain_form, foreach_is_the_plain_form,
    backward_form_is_the_plain_form, sparse_gradients_are_refused,
)  # fmt: skip
