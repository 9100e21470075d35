"""The cells of the review: torch.nn as oracle where equations agree, numpy and closed forms where they do not."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
import numpy as np
from torch import nn

from loci.state import checks
from loci.state.elman import Elman
from loci.state.encoder import checks as encoder_checks
from loci.state.encoder.bidirectional import Bidirectional, turned
from loci.state.gru import GRU
from loci.state.irnn import IRNN
from loci.state.jordan import Jordan
from loci.state.layers import Layers
from loci.state.lstm import LSTM
from loci.state.lstm_1997 import LSTM1997
from loci.state.lstm_no_forget import NoForgetLSTM
from loci.state.lstm_peephole import PeepholeLSTM
from tests.state.drawn import DOUBLE, B, D, T, drawn, fresh, n, sigmoid

torch.set_num_threads(1)


def outputs_of(cell, x):
    """The units' outputs at every moment: a readout of width n that changes nothing."""
    cell.readout = nn.Identity()
    state = tuple(torch.zeros(len(x), cell.n, dtype=DOUBLE) for _ in range(cell.parts))
    return cell.scan_by_steps(x, state)


# 1. the equations


@pytest.mark.parametrize(
    ("kind", "oracle", "options"),
    [(Elman, nn.RNN, {}), (IRNN, nn.RNN, {"nonlinearity": "relu"}), (LSTM, nn.LSTM, {}), (GRU, nn.GRU, {})],
)
def test_a_cell_is_that_of_torch(kind, oracle, options) -> None:
    cell = fresh(kind, D, n)
    torchs = fresh(oracle, D, n, batch_first=True, seed=3, **options)
    with torch.no_grad():
        cell.inward.weight.copy_(torchs.weight_ih_l0)
        cell.recurrent.weight.copy_(torchs.weight_hh_l0)
        cell.inward.bias.copy_(torchs.bias_ih_l0)
        if kind is GRU:
            cell.recurrent.bias.copy_(torchs.bias_hh_l0)
        else:
            cell.inward.bias.add_(torchs.bias_hh_l0)
    x = drawn(B, 30, D).requires_grad_()
    y, state = outputs_of(cell, x)
    due, last = torchs(x)
    last = last if isinstance(last, tuple) else (last,)
    assert torch.allclose(y, due, rtol=0, atol=1e-12)
    assert all(torch.allclose(part, want[0], rtol=0, atol=1e-12) for part, want in zip(state, last, strict=True))
    (ours,), (theirs,) = (torch.autograd.grad(out.square().sum(), x) for out in (y, due))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)


def test_without_forget_gate_is_the_lstm_of_torch_whose_gate_is_open() -> None:
    cell, torchs = fresh(NoForgetLSTM, D, n), fresh(nn.LSTM, D, n, batch_first=True, seed=3)
    keep = torch.cat([torch.arange(n), torch.arange(2 * n, 4 * n)])  # i, g, o
    with torch.no_grad():
        torchs.weight_ih_l0[n : 2 * n] = 0
        torchs.weight_hh_l0[n : 2 * n] = 0
        torchs.bias_ih_l0[n : 2 * n] = 1e3
        cell.inward.weight.copy_(torchs.weight_ih_l0[keep])
        cell.recurrent.weight.copy_(torchs.weight_hh_l0[keep])
        cell.inward.bias.copy_((torchs.bias_ih_l0 + torchs.bias_hh_l0)[keep])
    x = drawn(B, 30, D)
    assert torch.allclose(outputs_of(cell, x)[0], torchs(x)[0], rtol=0, atol=1e-12)


def test_peepholes_look_at_the_old_and_the_new_state() -> None:
    cell = fresh(PeepholeLSTM, D, n)
    W, b, U, p = (
        param.detach().numpy() for param in (cell.inward.weight, cell.inward.bias, cell.recurrent.weight, cell.peephole)
    )
    x = drawn(B, T, D)
    h, s, due = np.zeros((B, n)), np.zeros((B, n)), []
    for moment in x.numpy().transpose(1, 0, 2):
        a_i, a_f, a_g, a_o = np.split(moment @ W.T + b + h @ U.T, 4, axis=1)
        i, f = sigmoid(a_i + p[0] * s), sigmoid(a_f + p[1] * s)
        s = i * np.tanh(a_g) + f * s
        h = sigmoid(a_o + p[2] * s) * np.tanh(s)
        due.append(h)
    y = outputs_of(cell, x)[0].detach().numpy()
    assert np.abs(y - np.stack(due, 1)).max() < 1e-12


def test_closed_peepholes_are_the_lstm() -> None:
    cell, plain = fresh(PeepholeLSTM, D, n), fresh(LSTM, D, n, seed=5)
    plain.load_state_dict({name: value for name, value in cell.state_dict().items() if name != "peephole"})
    with torch.no_grad():
        cell.peephole.zero_()
    x = drawn(B, T, D)
    assert torch.allclose(cell(x)[0], plain(x)[0], rtol=0, atol=1e-14)


def test_jordan_and_elman_are_one_when_the_output_is_the_hidden_copy() -> None:
    jordan, elman = fresh(Jordan, n, n), fresh(Elman, n, n, seed=2)
    with torch.no_grad():
        for cell in (jordan, elman):
            cell.readout.weight.copy_(torch.eye(n))
            cell.readout.bias.zero_()
    own = {name: value for name, value in jordan.state_dict().items() if "readout" not in name}
    elman.load_state_dict(own, strict=False)
    x = drawn(B, T, n)
    assert torch.allclose(jordan(x)[0], elman(x)[0], rtol=0, atol=1e-14)


def test_a_context_is_the_decayed_sum_of_what_was_said() -> None:
    cell = fresh(Jordan, D, n, decay=0.7)
    y, (context,) = cell(drawn(B, T, D))
    due = sum(0.7 ** (T - 1 - t) * y[:, t] for t in range(T))
    assert torch.allclose(context, due, rtol=0, atol=1e-12)


def test_starts() -> None:
    assert torch.equal(fresh(LSTM, D, n).inward.bias[n : 2 * n], torch.ones(n, dtype=DOUBLE))
    assert not fresh(LSTM, D, n, forget_bias=0.0).inward.bias[n : 2 * n].any()
    irnn = fresh(IRNN, D, n, scale=0.5)
    assert torch.equal(irnn.recurrent.weight, torch.eye(n, dtype=DOUBLE) / 2)
    assert not irnn.inward.bias.any()


@pytest.mark.parametrize("build", [lambda: LSTM(0, 3), lambda: GRU(3, 0), lambda: Jordan(0, 3)])
def test_no_layer_is_refused(build) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        build()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="decay=1"):
        Jordan(3, 4, decay=1.0)
    with pytest.raises(ValueError, match=r"\[3, 4\]"):
        Layers([GRU(3, 2), GRU(4, 2)])


# 6. the carousel


def carousel(cell, kind):
    with torch.no_grad():
        cell.inward.weight.zero_()
        cell.recurrent.weight.zero_()
        cell.inward.bias[:n] = -1e4  # the input gate is shut
        if kind is LSTM:
            cell.inward.bias[n : 2 * n] = 1e4
    return cell


@pytest.mark.parametrize("kind", [LSTM, NoForgetLSTM])
def test_a_closed_carousel_carries_state_and_gradient_unchanged(kind) -> None:
    cell = carousel(fresh(kind, D, n), kind)
    s = drawn(1, n).requires_grad_()
    _, (_, last) = cell(drawn(1, 200, D), (torch.zeros(1, n, dtype=DOUBLE), s))
    jacobian = torch.stack([torch.autograd.grad(part, s, retain_graph=True)[0][0] for part in last[0]])
    assert torch.equal(last, s)
    assert torch.equal(jacobian, torch.eye(n, dtype=DOUBLE))


def test_the_first_lstm_speaks_as_the_untruncated_and_its_gradient_is_the_carousels() -> None:
    cell, whole, x = fresh(LSTM1997, D, n), fresh(NoForgetLSTM, D, n), drawn(B, T, D).requires_grad_()
    assert torch.equal(cell(x)[0], whole(x)[0])
    state, due = cell.initial_state(B), torch.zeros(B, T, D, dtype=DOUBLE)
    W_i, W_g, _ = cell.inward.weight.detach().chunk(3)
    for t in range(T):  # s_T is a sum over moments: each has the derivative of its own i * g, and no other
        with torch.no_grad():
            i, g, _ = (cell.inward(x[:, t]) + cell.recurrent(state[0])).chunk(3, -1)
            i, g = torch.sigmoid(i), torch.tanh(g)
            due[:, t] = (g * i * (1 - i)) @ W_i + (i * (1 - g**2)) @ W_g
            state = cell.step(x[:, t], state)[1]
    (got,) = torch.autograd.grad(cell(x)[1][1].sum(), x)
    (other,) = torch.autograd.grad(whole(x)[1][1].sum(), x)
    assert torch.allclose(got, due, rtol=0, atol=1e-12)
    assert not torch.allclose(other, due, rtol=0, atol=1e-3)


# 5. both ways


def both_ways(seed=0):
    both = Bidirectional(fresh(LSTM, D, n, seed=seed), fresh(LSTM, D, n, seed=seed + 1))
    with torch.no_grad():
        both.back.readout.bias.zero_()
    return both


def oracle_of(both):
    torchs = fresh(nn.LSTM, D, n, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for suffix, cell in (("", both.forth), ("_reverse", both.back)):
            getattr(torchs, f"weight_ih_l0{suffix}").copy_(cell.inward.weight)
            getattr(torchs, f"weight_hh_l0{suffix}").copy_(cell.recurrent.weight)
            getattr(torchs, f"bias_ih_l0{suffix}").copy_(cell.inward.bias)
            getattr(torchs, f"bias_hh_l0{suffix}").zero_()
    readout = torch.cat([both.forth.readout.weight, both.back.readout.weight], 1)
    return lambda out: out @ readout.T + both.forth.readout.bias, torchs


def test_both_ways_is_the_bidirectional_lstm_of_torch() -> None:
    both, x = both_ways(), drawn(B, T, D)
    readout, torchs = oracle_of(both)
    assert torch.allclose(both(x), readout(torchs(x)[0]), rtol=0, atol=1e-12)


def test_both_ways_over_padded_rows_is_torch_over_packed_ones() -> None:
    both, x, lengths = both_ways(), drawn(B, T, D), torch.tensor([T, 7, 1])
    readout, torchs = oracle_of(both)
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    due = readout(nn.utils.rnn.pad_packed_sequence(torchs(packed)[0], batch_first=True)[0])
    for row, length in enumerate(lengths):
        x[row, length:] = torch.nan  # padding is not read
    y = both(x, lengths=lengths)
    for row, length in enumerate(lengths):
        assert torch.allclose(y[row, :length], due[row, :length], rtol=0, atol=1e-12)
        assert not y[row, length:].any()


def test_both_ways_knows_the_future_and_one_way_does_not() -> None:
    both, x, t = both_ways(), drawn(B, T, D).requires_grad_(), 4
    for build, knows in ((both, True), (lambda x: both.forth(x)[0], False)):
        (grad,) = torch.autograd.grad(build(x)[1, t].sum(), x)
        assert bool(grad[1, t + 1 :].any()) is knows
        assert grad[1, : t + 1].any()
        assert not grad[[0, 2]].any()


def test_the_past_comes_through_one_of_the_two_alone() -> None:
    both, x = both_ways(), drawn(B, T, D)
    y, due = both(x), both.forth(x)[0]
    with torch.no_grad():
        both.back.readout.weight.zero_()
    assert torch.allclose(both(x), due, rtol=0, atol=1e-14)
    assert not torch.allclose(y, due, rtol=0, atol=1e-3)


@pytest.mark.parametrize("law", [law for law in encoder_checks.LAWS if law is not encoder_checks.bytes_are_the_formula])
def test_both_ways_keeps_the_laws_of_encoders(law) -> None:
    law(lambda: Bidirectional(LSTM(D, n), LSTM(D, n)))


def test_turning_twice_is_nothing() -> None:
    x, lengths = drawn(B, T, D), torch.tensor([0, 5, T])
    assert torch.equal(turned(turned(x, lengths), lengths), x)
    assert torch.equal(turned(x, torch.full((B,), T)), x.flip(1))


def test_wrong_pairs_and_lengths_are_refused() -> None:
    cell, both, x = GRU(3, 2), both_ways(), drawn(B, T, D)
    with pytest.raises(ValueError, match="the same mixer"):
        Bidirectional(cell, cell)
    with pytest.raises(ValueError, match="3 wide, back 4"):
        Bidirectional(cell, GRU(4, 2))
    for lengths in (torch.tensor([T + 1, 1, 1]), torch.tensor([1, 1]), torch.ones(B)):
        with pytest.raises(ValueError, match="lengths"):
            both(x, lengths=lengths)


# stacks, encoders


def test_a_stack_is_the_layers_of_torch() -> None:
    stack = Layers([fresh(GRU, D, D), fresh(GRU, D, D, seed=1)])
    torchs = fresh(nn.GRU, D, D, num_layers=2, batch_first=True)
    with torch.no_grad():
        for place, layer in enumerate(stack.layers):
            layer.readout.weight.copy_(torch.eye(D))
            layer.readout.bias.zero_()
            getattr(torchs, f"weight_ih_l{place}").copy_(layer.inward.weight)
            getattr(torchs, f"weight_hh_l{place}").copy_(layer.recurrent.weight)
            getattr(torchs, f"bias_ih_l{place}").copy_(layer.inward.bias)
            getattr(torchs, f"bias_hh_l{place}").copy_(layer.recurrent.bias)
    x = drawn(B, T, D)
    (y, state), (due, last) = stack(x), torchs(x)
    assert torch.allclose(y, due, rtol=0, atol=1e-12)
    assert torch.allclose(torch.stack(state), last, rtol=0, atol=1e-12)


@pytest.mark.parametrize("law", [law for law in checks.LAWS if law is not checks.state_bytes_are_the_formula])
def test_a_stack_keeps_the_laws(law) -> None:
    law(lambda: Layers([LSTM(D, n), Jordan(D, n), GRU(D, 2)]))


def test_an_encoder_hands_its_last_state_to_a_decoder() -> None:
    encoder, decoder = fresh(GRU, D, n), fresh(GRU, D, n, seed=1)
    source, target = drawn(B, T, D).requires_grad_(), drawn(B, 3, D, seed=2)
    y, _ = decoder(target, encoder(source.flip(1))[1])
    (grad,) = torch.autograd.grad(y[:, -1].sum(), source)
    assert grad.abs().sum((0, 2)).all()
