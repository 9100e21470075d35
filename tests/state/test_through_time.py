"""Gradients through time: backwards, cut, forwards; and how far they reach."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from loci.state.elman import Elman
from loci.state.gru import GRU
from loci.state.irnn import IRNN
from loci.state.jordan import Jordan
from loci.state.lstm import LSTM
from loci.state.lstm_no_forget import NoForgetLSTM
from loci.state.lstm_peephole import PeepholeLSTM
from loci.state.ntm import NTM
from loci.state.through_time import bptt, reach, rtrl, truncated
from tests.state.drawn import DOUBLE, B, D, T, drawn, fresh, n

torch.set_num_threads(1)
CELLS = (Elman, IRNN, Jordan, LSTM, PeepholeLSTM, NoForgetLSTM, GRU)


def squares(y, moments):
    """A loss that knows the time: each moment has targets of its own."""
    return (y - torch.arange(100, dtype=DOUBLE)[moments].view(1, -1, 1).cos()).square().sum()


@pytest.mark.parametrize("kind", CELLS)
def test_forwards_is_backwards(kind) -> None:
    cell, x = fresh(kind, D, n), drawn(B, T, D)
    back, forth, short = (
        bptt(cell, x, squares),
        rtrl(cell, x, squares),
        truncated(cell, x, squares, every=T, back=T),
    )
    for name, param in cell.named_parameters():
        (due,) = torch.autograd.grad(squares(cell.scan_by_steps(x, cell.initial_state(B))[0], slice(0, T)), param)
        for grads in (back, forth, short):
            assert torch.allclose(grads[name], due, rtol=1e-9, atol=1e-9), name


def test_forwards_from_a_given_state_and_through_a_memory() -> None:
    cell, x = fresh(NTM, 3, 4, N=4, M=2), drawn(2, 5, 3)
    with torch.no_grad():
        state = cell(drawn(2, 3, 3, seed=8))[1]
    back, forth = bptt(cell, x, squares, state=state), rtrl(cell, x, squares, state=state)
    assert all(torch.allclose(back[name], forth[name], rtol=1e-9, atol=1e-9) for name in back)


def test_forwards_knows_a_start_that_is_learned() -> None:
    class Started(Elman):
        def __init__(self, D, n):
            super().__init__(D, n)
            self.first = nn.Parameter(torch.full((n,), 0.3))

        def initial_state(self, batch):
            return (self.first.expand(batch, -1),)

    cell, x = fresh(Started, D, n), drawn(B, T, D)
    back, forth = bptt(cell, x, squares), rtrl(cell, x, squares)
    assert back["first"].abs().min() > 0
    assert torch.allclose(back["first"], forth["first"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("every", "back"), [(1, 1), (2, 2), (2, 6), (5, 5), (1, 4)])
def test_truncated_is_the_sum_over_chunks_of_gradients_cut_before_them(every, back) -> None:
    cell, x = fresh(LSTM, D, n), drawn(B, T, D)
    got = truncated(cell, x, squares, every=every, back=back)
    due = {name: torch.zeros_like(param) for name, param in cell.named_parameters()}
    for begin in range(0, T, every):
        end = min(begin + every, T)
        state, out = cell.initial_state(B), []
        for t in range(end):
            if t == max(0, begin + every - back):
                state = tuple(part.detach() for part in state)  # the gradient goes no further back
            y, state = cell.step(x[:, t], state)
            out.append(y)
        torch.autograd.backward(squares(torch.stack(out, 1)[:, begin:end], slice(begin, end)))
        for name, param in cell.named_parameters():
            due[name] += param.grad
            param.grad = None
    assert all(torch.allclose(got[name], due[name], rtol=0, atol=1e-10) for name in due)


# vanishing


def test_reach_is_the_product_of_jacobians_and_below_its_bound() -> None:
    cell, x = fresh(Elman, D, n), drawn(B, T, D)
    U, h, product = cell.recurrent.weight.detach(), torch.zeros(B, n, dtype=DOUBLE), []
    for moment in x.unbind(1):
        h = torch.tanh(cell.inward(moment) + h @ U.T).detach()
        product.append((1 - h**2).unsqueeze(-1) * U)  # diag(1 - h^2) U
    got, sigma = reach(cell, x), float(torch.linalg.matrix_norm(U, 2))
    for t in range(T + 1):
        J = torch.eye(n, dtype=DOUBLE).expand(B, n, n)
        for step in product[t:]:
            J = step @ J
        assert torch.allclose(got[:, t], torch.linalg.matrix_norm(J, 2), rtol=1e-9, atol=1e-12)
        assert (got[:, t] <= sigma ** (T - t) + 1e-12).all()  # gamma = 1 for tanh


def test_an_lstm_with_open_gate_reaches_further_than_elman() -> None:
    x = drawn(B, 40, D)
    slopes = [
        float((reach(fresh(kind, D, n, **options), x)[:, 0].log() / 40).mean())
        for kind, options in ((Elman, {}), (LSTM, {"forget_bias": 5.0}))
    ]
    assert slopes[0] < -0.05 < slopes[1]


def test_chunks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="every=2, back=3"):
        truncated(Elman(2, 2), torch.ones(1, 4, 2), squares, every=2, back=3)
