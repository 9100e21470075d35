"""The neural Turing machine against its equations in loops."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
import numpy as np

from loci.state.ntm import NTM
from tests.state.drawn import DOUBLE, B, D, T, drawn, fresh, n, sigmoid

torch.set_num_threads(1)


def turing(cell, x):
    """Graves et al. by loops over slots, equations 2 to 9."""
    weight = {name: param.detach().numpy() for name, param in cell.state_dict().items()}
    N, M, n = cell.N, cell.M, cell.n
    h, s, tape, r = np.zeros(n), np.zeros(n), np.full((N, M), 1e-6), np.zeros(M)
    heads = {"reader": np.eye(N)[0], "writer": np.eye(N)[0]}

    def soft(z):
        return np.exp(z - z.max()) / np.exp(z - z.max()).sum()

    def aim(name, p):
        k, beta, g, gamma, shift = p[:M], np.log1p(np.exp(p[M])), sigmoid(p[M + 1]), p[M + 2], soft(p[M + 3 : M + 6])
        gamma = 1 + np.log1p(np.exp(gamma))
        likeness = np.array([k @ row / (np.linalg.norm(k) * np.linalg.norm(row)) for row in tape])
        w = g * soft(beta * likeness) + (1 - g) * heads[name]
        moved = np.zeros(N)
        for i in range(N):
            for j in range(N):
                offset = (i - j) % N  # 0 stays, 1 moves on, N - 1 moves back
                moved[i] += w[j] * {N - 1: shift[0], 0: shift[1], 1: shift[2]}.get(offset, 0.0)
        heads[name] = moved**gamma / (moved**gamma).sum()
        return heads[name]

    out = []
    for moment in x:
        gates = weight["controller.inward.weight"] @ np.concatenate([moment, r]) + weight["controller.inward.bias"]
        i, f, g, o = np.split(gates + weight["controller.recurrent.weight"] @ h, 4)
        s = sigmoid(i) * np.tanh(g) + sigmoid(f) * s
        h = sigmoid(o) * np.tanh(s)
        p = weight["writer.weight"] @ h + weight["writer.bias"]
        w, erase, add = aim("writer", p), sigmoid(p[M + 6 : 2 * M + 6]), np.tanh(p[2 * M + 6 :])
        for slot in range(N):
            tape[slot] = tape[slot] * (1 - w[slot] * erase) + w[slot] * add
        w = aim("reader", weight["reader.weight"] @ h + weight["reader.bias"])
        r = sum(w[slot] * tape[slot] for slot in range(N))
        answer = np.concatenate([h, r])
        out.append(weight["controller.readout.weight"] @ answer + weight["controller.readout.bias"])
    return np.stack(out), tape


def test_the_machine_is_its_equations() -> None:
    cell, x = fresh(NTM, D, n, N=7, M=3), drawn(B, T, D)
    with torch.no_grad():
        for head in (cell.reader, cell.writer):
            head.weight.mul_(4)  # sharp keys and gates
        y, state = cell(x)
    for row in range(B):
        due, tape = turing(cell, x[row].numpy())
        assert np.abs(y[row].numpy() - due).max() < 1e-10
        assert np.abs(state[2][row].numpy() - tape).max() < 1e-10


def test_a_head_told_to_move_on_writes_slot_after_slot() -> None:
    cell = fresh(NTM, D, n, N=6, M=2)
    with torch.no_grad():
        for param in cell.writer.parameters():
            param.zero_()
        bias = cell.writer.bias
        bias[2 + 1] = -1e3  # the gate trusts the place, not the content
        bias[2 + 3 : 2 + 6] = torch.tensor([-1e3, -1e3, 1e3], dtype=DOUBLE)  # one slot on
        bias[2 + 6 + 2 :] = 50.0  # add 1, erase half
    state = cell.initial_state(1)
    for slot in (1, 2, 3, 4, 5, 0):
        state = cell.step(drawn(1, D), state)[1]
        assert torch.allclose(state[4][0], torch.eye(6, dtype=DOUBLE)[slot], rtol=0, atol=1e-12)
        assert torch.allclose(state[2][0, slot], torch.ones(2, dtype=DOUBLE), rtol=0, atol=1e-5)
    assert math.isclose(float(state[2].detach().sum()), 12.0, abs_tol=1e-4)


def test_weightings_are_distributions_and_memory_is_bounded() -> None:
    cell = fresh(NTM, D, n, N=6, M=2)
    with torch.no_grad():
        for head in (cell.reader, cell.writer):
            head.weight.mul_(10)
        _, (_, _, memory, reading, writing, _) = cell(5 * drawn(B, 300, D))
    for weights in (reading, writing):
        assert (weights >= 0).all()
        assert torch.allclose(weights.sum(1), torch.ones(B, dtype=DOUBLE), rtol=0, atol=1e-12)
    assert memory.isfinite().all()


def test_a_memory_too_small_to_move_in_is_refused() -> None:
    with pytest.raises(ValueError, match="N=2"):
        NTM(3, 4, N=2)
