"""Operation-level rounding: every result is a number of the format, in torch, its backward, and numpy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from loci.budget.precision import RoundedArray, Rounder, preset, rounded_operations

torch.set_num_threads(1)
Q = Rounder(preset("q52"))
BF = Rounder(preset("bfloat16"))


def is_held(x: torch.Tensor) -> bool:
    return torch.equal(x.to(torch.float8_e5m2).float(), x.float())  # torch's own cast is the oracle


class Recorder(TorchDispatchMode):
    """Writes down every floating-point tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen += [
            (str(func), x.clone()) for x in tree_leaves(out) if isinstance(x, torch.Tensor) and x.is_floating_point()
        ]
        return out


def test_every_result_of_forward_backward_and_step_is_a_number_of_the_format() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 3))
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(Q(param))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.5)
    x, y = Q(torch.randn(5, 6)), torch.tensor([0, 1, 2, 0, 1])
    recorder = Recorder()
    with rounded_operations(Q), recorder:  # what the recorder calls goes through the rounding
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
    held = [param for param in model.parameters()] + [param.grad for param in model.parameters()]
    held += [state["momentum_buffer"] for state in optimizer.state.values()] + [loss.detach()]
    assert all(is_held(part) for part in held)
    assert len(recorder.seen) > 100
    assert not [name for name, part in recorder.seen if not is_held(part)]
    assert not is_held(model(x).detach()), "outside of the with nothing is rounded"


def test_one_operation_is_rounded_once() -> None:
    a, b = (
        Q(torch.randn(64, generator=torch.Generator().manual_seed(0))),
        Q(torch.rand(64, generator=torch.Generator().manual_seed(1)) + 0.5),
    )
    exact = {"add": a.double() + b.double(), "mul": a.double() * b.double(), "exp": torch.exp(a.double())}
    with rounded_operations(Q):
        got = {"add": a + b, "mul": a * b, "exp": torch.exp(a)}
    for name, value in exact.items():
        assert torch.equal(got[name].double(), preset("q52").round(value)), name


def test_views_share_memory_and_in_place_results_are_rounded_in_place() -> None:
    x = torch.ones(4, 4)
    with rounded_operations(Q):
        view = x.view(16)[:8]
        view.add_(0.3)
        pair = torch._foreach_mul([x], 1.1)
        torch._foreach_add_([x], 0.1)
        out = torch.empty(4, 4)
        torch.mul(x, 1.01, out=out)
    assert view.data_ptr() == x.data_ptr()
    assert view.tolist() == [1.25] * 8  # 1 + 0.3 -> 1.25, and 1.25 + 0.1 -> 1.25 again
    assert all(map(is_held, (x, pair[0], out)))


def test_order_of_rounding_shows() -> None:
    big, one = torch.tensor(2048.0), torch.tensor(1.0)
    with rounded_operations(Rounder(preset("half"))):
        assert float((big + one) - big) == 0.0
        assert float(big - big + one) == 1.0


def test_complex_results_and_integers() -> None:
    with rounded_operations(Q):
        z = torch.complex(torch.tensor([1.1]), torch.tensor([-2.3])) * 1.0
        n = torch.arange(1000) + 1
    assert (z.real.item(), z.imag.item()) == (1.0, -2.5)
    assert n[-1].item() == 1000


def test_stochastic_operations_repeat_by_seed() -> None:
    def run(seed: int) -> torch.Tensor:
        x = torch.full((50,), 0.3)
        with rounded_operations(Rounder(preset("q43"), "stochastic", seed=seed)):
            for _ in range(5):
                x = x * 1.1
        return x

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


class TestNumpy:
    def test_operators_are_rounded(self) -> None:
        random = np.random.default_rng(0)
        half = Rounder(preset("half"))
        a, b = random.standard_normal((2, 100)).astype(np.float16)
        x, y = RoundedArray(a.astype(np.float64), half), RoundedArray(b.astype(np.float64), half)
        for got, want in ((x + y, a + b), (x * y, a * b), (x - y, a - b), (x / y, a / b), (-x, -a), (abs(x), abs(a))):
            assert (got.value == want.astype(np.float64)).all()  # numpy's float16 rounds each operation

    def test_sums_and_products_round_each_addition(self) -> None:
        random = np.random.default_rng(1)
        a, b = random.standard_normal((3, 20)).astype(np.float16), random.standard_normal((20, 4)).astype(np.float16)
        half = Rounder(preset("half"))
        want = np.zeros((3, 4), dtype=np.float16)
        for k in range(20):
            term = a[:, k, None] * b[None, k]
            want = term if k == 0 else want + term
        x = RoundedArray(a.astype(np.float64), half)
        got = x @ RoundedArray(b.astype(np.float64), half)
        assert (got.value == want.astype(np.float64)).all()
        assert ((x @ b.astype(np.float64)[:, 0]).value == want[:, 0].astype(np.float64)).all()
        total = np.float16(0)
        for k in range(20):
            total = np.float16(total + a[0, k])
        assert np.add.reduce(x, axis=1).value[0] == total

    def test_what_would_not_round_is_refused(self) -> None:
        x = RoundedArray(np.ones(3), Q)
        with pytest.raises(TypeError, match="would not round"):
            np.add.accumulate(x)
        with pytest.raises(ValueError, match="does not fit"):
            x @ np.ones((2, 2))
        assert (x > 0).tolist() == [True] * 3
