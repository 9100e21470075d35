"""The laws of meters as data (`LAWS`), run over every member.

A law takes `make`; `make()` builds the meter of the card, whose `draw(seed)` gives it something to read. Where a law
needs to get into a reading it wraps what the meter calls: the first callable of the subject, or a module's forward.
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from array import array
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from loci.core import formula
from loci.core.checking import Law, Make
from loci.core.meter import How, Keeping, Reading

SEEDS = (1, 2, 3)


class Interruption(Exception):
    """An error of the subject, told from every other."""


def readings_have_unit_and_how(make: Make) -> None:
    """A reading is a finite number with a unit, and says whether it was measured, estimated or computed."""
    meter = make()
    for seed in SEEDS:
        reading = meter.read(*meter.draw(seed))
        assert isinstance(reading, Reading), f"read gave a {type(reading).__name__}, not a Reading"
        assert isinstance(reading.value, float), f"the value is a {type(reading.value).__name__}, not a float"
        assert math.isfinite(reading.value), f"the value is {reading.value}"
        assert reading.unit.strip(), "the unit is empty"
        assert reading.how in get_args(How), f"how={reading.how!r} is none of {get_args(How)}"


def the_subject_is_left_as_it_was(make: Make) -> None:
    """Reading changes no bit of the subject's tensors, gradients and arrays, nor the modes and hooks of its modules."""
    for seed in SEEDS:
        meter = make()
        subject = meter.draw(seed)
        before = [_copied(part) for part in parts_of(subject)]
        modes = [_mode(module) for module in _modules(subject)]
        meter.read(*subject)
        after = list(parts_of(subject))
        assert len(after) == len(before), f"the subject held {len(before)} tensors, it holds {len(after)} after reading"
        assert all(_same(one, two) for one, two in zip(before, after, strict=True)), "reading wrote into the subject"
        assert [_mode(module) for module in _modules(subject)] == modes, (
            "reading left a module in another mode, or hooks"
        )


def same_subject_same_reading(make: Make) -> None:
    """The same seed draws the same subject, and the same subject reads the same, on this meter and on another."""
    for seed in SEEDS:
        meter, other = make(), make()
        subject = meter.draw(seed)
        first, again = meter.read(*subject), meter.read(*subject)
        elsewhere = other.read(*other.draw(seed))
        assert first == again, f"the same subject read {first.value}, then {again.value} {first.unit}"
        assert first == elsewhere, f"the same seed read {first.value} here, {elsewhere.value} {first.unit} elsewhere"


def other_subjects_read_otherwise(make: Make) -> None:
    """The reading depends on what is read."""
    meter = make()
    values = {meter.read(*meter.draw(seed)).value for seed in range(6)}
    assert len(values) > 1, f"six subjects all read {values.pop()}"


def errors_of_the_subject_pass_through(make: Make) -> None:
    """An error raised by the subject, at its first call or its last, comes out as it is; the next reading is right."""
    right, calls = _read(make(), 1), _calls(make)
    for at in sorted({1, calls} - {0}):
        meter, error = make(), Interruption("of the subject")

        def act(call: int, at: int = at, error: Interruption = error) -> None:
            if call == at:
                raise error

        try:
            meter.read(*_watched(meter.draw(1), act))
        except Interruption as caught:
            assert caught is error, "another error of the same kind came out"  # noqa: PT017 - a law, not a test
        except Exception as caught:
            raise AssertionError(f"the subject's error came out as {type(caught).__name__}: {caught}") from caught
        else:
            raise AssertionError(f"an error at call {at} of {calls} was swallowed")
        after = _read(meter, 1)
        assert after == right, f"after an error the meter reads {after.value} in place of {right.value} {right.unit}"


def nested_readings_are_their_own(make: Make) -> None:
    """A reading within a reading is right, and so is the one around it when the meters are two.

    With one meter for both, what the inner subject costs may belong to the outer too; the inner one is right, and the next.
    """
    right, inner_right = _read(make(), 1), _read(make(), 2)
    for other in (make(), None):
        meter = make()
        inside, found = other or meter, list[Reading]()

        def act(call: int, inside: Any = inside, found: list[Reading] = found) -> None:
            if call == 1:
                found.append(_read(inside, 2))

        outer = meter.read(*_watched(meter.draw(1), act))
        assert all(inner == inner_right for inner in found), f"inside it reads {found} in place of {inner_right}"
        assert other is None or outer == right, f"around another it reads {outer.value} in place of {right.value}"
        assert _read(meter, 1) == right, "after a nested reading it reads otherwise"


def held_bytes_are_the_formula(make: Make) -> None:
    """The tensors and arrays that a meter keeps after reading take what the card says, however often it reads."""
    meter = make()
    for seed in (*SEEDS, *SEEDS):
        meter.read(*meter.draw(seed))
        wanted = formula.names(meter.card.bytes)
        assert not wanted or isinstance(meter, Keeping), f"the formula asks for {sorted(wanted)}; give it by shapes()"
        shapes: Mapping[str, int] = meter.shapes() if wanted else {}
        said, held = formula.evaluate(meter.card.bytes, shapes), held_bytes(meter)
        assert held == said, f"it holds {held} bytes, the card says {meter.card.bytes} = {said}"


def global_randomness_is_left_alone(make: Make) -> None:
    """Neither drawing nor reading touches the generators of torch, numpy and Python, or depends on them."""
    readings = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        before = _generators()
        readings.append(_read(make(), 1))
        assert _generators() == before, "it drew from a global generator"
    assert readings[0] == readings[1], "the reading depends on a global generator"


def held_bytes(meter: object) -> int:
    """The storage of all tensors and arrays within reach of an object, each storage once."""
    return sum({key: size for part in parts_of(meter) for key, size in [_storage(part)]}.values())


def parts_of(thing: object) -> Iterator[Any]:
    """Every tensor, gradient and array within reach: in containers, modules, attributes, closures and bound methods."""
    return _reached(thing, set())


def _reached(thing: object, seen: set[int]) -> Iterator[Any]:
    if id(thing) in seen or isinstance(thing, str | bytes | int | float | type | ModuleType | None):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor | np.ndarray | array):
        yield thing
        within: list[Any] = [thing.grad] if isinstance(thing, Tensor) and thing.is_leaf else []
    elif isinstance(thing, Mapping):
        within = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        within = list(thing)
    elif isinstance(thing, FunctionType):
        within = [cell.cell_contents for cell in thing.__closure__ or ()] + [thing.__defaults__, thing.__kwdefaults__]
    elif isinstance(thing, MethodType):
        within = [thing.__self__, thing.__func__]
    elif isinstance(thing, functools.partial):
        within = [thing.func, thing.args, thing.keywords]
    else:
        slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
        within = [getattr(thing, "__dict__", {}), *(getattr(thing, name, None) for name in slots)]
    for part in within:
        yield from _reached(part, seen)


def _storage(part: Any) -> tuple[int, int]:
    if isinstance(part, Tensor):
        return part.untyped_storage().data_ptr(), part.untyped_storage().nbytes()
    if isinstance(part, array):
        return part.buffer_info()[0], len(part) * part.itemsize
    while isinstance(part.base, np.ndarray):
        part = part.base
    return part.ctypes.data, part.nbytes


def _modules(subject: tuple[Any, ...]) -> list[nn.Module]:
    return [module for part in subject if isinstance(part, nn.Module) for module in part.modules()]


def _mode(module: nn.Module) -> tuple[object, ...]:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return module.training, *map(len, hooks), [param.requires_grad for param in module.parameters()]


def _copied(part: Any) -> Any:
    return (
        part.detach().clone()
        if isinstance(part, Tensor)
        else part[:].copy()
        if isinstance(part, np.ndarray)
        else part[:]
    )


def _same(before: Any, now: Any) -> bool:
    if isinstance(now, Tensor):
        return before.dtype == now.dtype and before.shape == now.shape and _bits(before) == _bits(now.detach())
    return bool(type(before) is type(now) and bytes(memoryview(before).cast("B")) == bytes(memoryview(now).cast("B")))


def _bits(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _generators() -> tuple[object, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state())  # noqa: NPY002 - it is watched


def _read(meter: Any, seed: int) -> Reading:
    reading: Reading = meter.read(*meter.draw(seed))
    return reading


def _calls(make: Make) -> int:
    """How often a reading calls into its subject."""
    meter, calls = make(), [0]
    meter.read(*_watched(meter.draw(1), calls.append))
    return calls[-1]


def _watched(subject: tuple[Any, ...], act: Callable[[int], None]) -> tuple[Any, ...]:
    """The subject, with `act(n)` done at the n-th call into it; as it is when there is nothing to call."""
    numbers = itertools.count(1)
    for place, part in enumerate(subject):
        if isinstance(part, nn.Module):
            part.register_forward_pre_hook(lambda module, inputs: act(next(numbers)))
            return subject
        if callable(part):

            def watched(*args: Any, part: Callable[..., Any] = part, **named: Any) -> Any:
                act(next(numbers))
                return part(*args, **named)

            return (*subject[:place], watched, *subject[place + 1 :])
    return subject


LAWS: tuple[Law, ...] = (
    readings_have_unit_and_how, the_subject_is_left_as_it_was, same_subject_same_reading, other_subjects_read_otherwise,
    errors_of_the_subject_pass_through, nested_readings_are_their_own, held_bytes_are_the_formula,
    global_randomness_is_left_alone,
)  # fmt: skip
