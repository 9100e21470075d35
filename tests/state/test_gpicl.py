"""Learning in context: cells, tasks, chance and baselines against closed forms, loops and scikit-learn."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
import numpy as np

from loci.lab.tasks.in_context import (
    UNSEEN,
    Base,
    descended,
    digits,
    improvement,
    nearest,
    pairs,
    prototypes,
    regime,
    rings,
    standardised,
    task,
)  # fmt: skip
from loci.lab.tasks.meta_learning import baselines
from loci.lab.tasks.plateau import plateau, ways
from loci.state.outer_product_lstm import OuterProductLSTM
from tests.state.drawn import B, D, T, drawn, fresh, sigmoid

torch.set_num_threads(1)


def matrix_cells(cell, x):
    """The equations in loops over heads, rows and columns."""
    w = {name: param.detach().numpy() for name, param in cell.state_dict().items()}
    n, H, d = cell.n, cell.heads, cell.d
    h, C, out = np.zeros(n), np.zeros((H, d, d)), []
    for moment in x:
        sums = w["inward.weight"] @ moment + w["inward.bias"] + w["recurrent.weight"] @ h
        i, f, g, o, k, q = np.split(sums, 6)
        h = np.zeros(n)
        for head in range(H):
            for a in range(d):
                row, read = head * d + a, 0.0
                for b in range(d):
                    column = head * d + b
                    new = sigmoid(i[row]) * np.tanh(g[row]) * np.tanh(k[column]) / math.sqrt(d)
                    C[head, a, b] = sigmoid(f[row]) * C[head, a, b] + new
                    read += C[head, a, b] * np.tanh(q[column])
                h[row] = sigmoid(o[row]) * np.tanh(read)
        out.append(w["readout.weight"] @ h + w["readout.bias"])
    return np.stack(out), C


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_matrix_cells_are_their_equations(heads: int) -> None:
    cell, x = fresh(OuterProductLSTM, D, 6, heads=heads), drawn(B, T, D)
    y, (_, C) = cell(x)
    for row in range(B):
        due, memory = matrix_cells(cell, x[row].numpy())
        assert np.abs(y[row].detach().numpy() - due).max() < 1e-12
        assert np.abs(C[row].detach().numpy() - memory).max() < 1e-12


def test_a_matrix_gives_back_the_value_of_a_key() -> None:
    cell = fresh(OuterProductLSTM, 4, 4)
    keys, values = torch.eye(4).double(), torch.tensor([0.4, -0.7, 0.2, 0.9]).double()
    big, none = 50.0, torch.zeros(1, 4).double()

    def told(i: float, g: torch.Tensor, k: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        gates = [torch.full((1, 4), value).double() for value in (i, big, big)]  # write or not, keep, show
        return torch.cat([gates[0], gates[1], g, gates[2], k, q], 1)

    with torch.no_grad():
        cell.recurrent.weight.zero_()
        state = cell.initial_state(1)
        for value, key in zip(values, keys, strict=True):
            state = cell.advance(told(big, value.expand(1, 4), big * key[None], none), state)[1]
        for value, key in zip(values, keys, strict=True):
            h = cell.advance(told(-big, none, none, big * key[None]), state)[0]
            assert torch.allclose(h, torch.tanh(torch.tanh(value) / 2).expand(1, 4), rtol=0, atol=1e-12)


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="heads=4 does not divide n=6"):
        OuterProductLSTM(3, 6, heads=4)


def test_without_projection_and_permutation_a_task_is_the_base_set() -> None:
    base = prototypes(3, classes=4, features=5, each=6)
    x, y = task(11, base, projected=False, permuted=False).apply(base.x, base.y)
    assert torch.equal(x, base.x)
    assert torch.equal(y, base.y)


def test_undoing_a_permutation_restores_the_labels() -> None:
    base = prototypes(3, classes=7, features=5, each=6)
    for number in range(20):
        one = task(number, base)
        assert sorted(one.rho.tolist()) == list(range(7))
        assert torch.equal(one.undo(one.apply(base.x, base.y)[1]), base.y)
        assert all(int(one.rho[int(one.undo(torch.tensor(label)))]) == label for label in range(7))


def test_a_task_is_its_id() -> None:
    base = prototypes(3)
    assert torch.equal(task(UNSEEN + 5, base).A, task(UNSEEN + 5, base).A)
    assert not torch.equal(task(UNSEEN + 5, base).A, task(5, base).A)
    x, y = pairs(base, [9, 4], 12, torch.Generator().manual_seed(0))
    for row, number in enumerate((9, 4)):
        source = base.x @ task(number, base).A.T
        for t in range(12):
            where = (source - x[row, t]).abs().amax(1).argmin()
            assert torch.allclose(source[where], x[row, t], rtol=0, atol=1e-5)
            assert int(task(number, base).rho[base.y[where]]) == int(y[row, t])
    with pytest.raises(ValueError, match="length=501"):
        pairs(base, [0], 501, torch.Generator())


def test_projections_keep_the_scale_of_inputs() -> None:
    base = prototypes(3, features=64)
    entries = torch.cat([task(number, base).A.flatten() for number in range(50)])
    assert abs(float(entries.var()) * 64 - 1) < 0.02
    x, _ = pairs(base, list(range(300)), 10, torch.Generator().manual_seed(1))
    assert 0.9 < float(x.square().mean()) < 1.1


@pytest.mark.parametrize("make", [prototypes, rings])
def test_base_sets_are_standardised(make) -> None:
    base = make(5, classes=6, features=9, each=20)
    assert base.x.mean(0).abs().max() < 1e-5
    assert (base.x.std(0, unbiased=False) - 1).abs().max() < 1e-5
    assert torch.bincount(base.y).tolist() == [20] * 6
    flat = standardised(torch.tensor([[1.0, 2.0], [1.0, 4.0]]), torch.tensor([0, 1]))
    assert flat.x.tolist() == [[0.0, -1.0], [0.0, 1.0]]


def test_digits_are_scikit_learns() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    base, (x, y) = digits(), datasets.load_digits(return_X_y=True)
    assert base.classes == 10
    assert base.y.tolist() == y.tolist()
    for pixel in range(64):
        due = (x[:, pixel] - x[:, pixel].mean()) / (x[:, pixel].std() or 1.0)
        assert np.abs(base.x[:, pixel].numpy() - due).max() < 1e-4


def test_few_permutations_are_those_of_the_first_tasks() -> None:
    base = prototypes(3)
    first = [task(number, base).rho.tolist() for number in range(3)]
    for number in (0, 2, 3, 100, UNSEEN + 7):
        one = task(number, base, ways=3)
        assert one.rho.tolist() == first[number % 3]
        assert torch.equal(one.A, task(number, base).A)
    fixed = Base(torch.eye(8), torch.arange(8), 8)
    x, y = pairs(fixed, list(range(50)), 8, torch.Generator().manual_seed(1), ways=2)
    found = set()
    for number in range(50):
        which = torch.cdist(x[number], task(number, fixed).A.T).argmin(1)
        found.add(tuple(y[number, which.argsort()].tolist()))
    assert found == {tuple(task(number, fixed).rho.tolist()) for number in (0, 1)}


def test_the_number_of_permutations_grows_as_a_power() -> None:
    assert ways(0, 100, 10) == 1
    assert ways(50, 100, 10) == 1905  # the root of 3,628,800
    assert ways(99, 100, 4) == 23
    assert ways(100, 100, 10) is None
    assert ways(0, 0, 10) is None


def test_biased_sequences_keep_the_labels_of_the_base_set() -> None:
    base = Base(torch.eye(8), torch.arange(8), 8)
    for bias in (0.0, 0.7, 1.0):
        x, y = pairs(base, list(range(1000)), 1, torch.Generator().manual_seed(2), bias=bias)
        kept = 0
        for number in range(1000):
            which = (task(number, base).A.T - x[number]).abs().sum(1).argmin()
            kept += int(y[number, 0]) == int(base.y[which])
        due = bias + (1 - bias) / 8  # a permutation leaves a label alone by chance
        assert abs(kept / 1000 - due) <= 4 * math.sqrt(due * (1 - due) / 1000)


def test_the_nearest_neighbours_are_those_of_scikit_learn() -> None:
    neighbours = pytest.importorskip("sklearn.neighbors")
    x, y = pairs(prototypes(4, noise=1.5), list(range(6)), 30, torch.Generator().manual_seed(6))
    for k in (1, 3, 4):
        said = nearest(x, y, 10, k=k)
        assert not said[:, 0].any()
        for row in range(6):
            for t in range(1, 30):
                oracle = neighbours.KNeighborsClassifier(min(k, t)).fit(x[row, :t].numpy(), y[row, :t].numpy())
                assert int(said[row, t]) == int(oracle.predict(x[row, t : t + 1].numpy())[0])


def test_the_nearest_neighbour_by_loops() -> None:
    x, y = pairs(prototypes(4, noise=1.5), list(range(4)), 25, torch.Generator().manual_seed(6))
    said = nearest(x, y, 10)
    for row in range(4):
        for t in range(1, 25):
            gaps = [float((x[row, t] - x[row, s]).double().square().sum()) for s in range(t)]
            assert int(said[row, t]) == int(y[row, gaps.index(min(gaps))])


def test_descent_in_context_is_torchs_own() -> None:
    x, y = pairs(prototypes(4, classes=5), [8], 40, torch.Generator().manual_seed(7))
    said = descended(x, y, 5, lr=0.2)
    model = torch.nn.Linear(16, 5)
    for param in model.parameters():
        torch.nn.init.zeros_(param)
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    for t in range(40):
        logits = model(x[:, t])
        assert (
            float((logits.max() - logits[0, said[0, t]]).detach()) < 1e-6
        )  # labels not yet seen are alike but for rounding
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, y[:, t]).backward()
        optimizer.step()


def test_regimes_are_told_apart() -> None:
    flat, low = torch.full((20,), 0.9), torch.full((20,), 0.1)
    rising = torch.linspace(0.1, 0.8, 20)
    assert regime(rising, rising, chance=0.1) == "general"
    assert regime(rising, low, chance=0.1) == "identification"
    assert regime(flat, low, chance=0.1) == "memorisation"
    assert regime(low, low, chance=0.1) == "none"
    assert math.isclose(improvement(torch.tensor([0.1, 0.5, 0.7, 0.9]), last=2), 0.7, abs_tol=1e-6)


def test_a_plateau_ends_where_the_loss_does_not_stay() -> None:
    assert plateau([math.log(4)] * 30, 4) == 30
    assert plateau([math.log(4)] * 30 + [0.0] * 30, 4) == 33  # 3 zeros of 20 make 0.85
    assert plateau([0.0] * 5, 4) == 5
    assert plateau([2.0, 1.25, 1.24, 0.0], 4, window=1) == 3  # 0.9 ln 4 is 1.2477


def test_the_nearest_of_points_is_right_once_its_label_was_told() -> None:
    base, length, count = prototypes(1, classes=5, features=6, noise=0.0), 12, 3000
    gained = baselines(base, length, torch.Generator().manual_seed(3), count=count)
    told = [1 - math.comb(200, t) / math.comb(249, t) for t in range(length - 5, length)]  # 49 of 249 are of the class
    assert abs(gained["nearest neighbour"] - (sum(told) / 5 - 1 / 5)) < 4 * math.sqrt(0.16 / count)
    assert 0.2 < gained["descent"] <= gained["nearest neighbour"]
