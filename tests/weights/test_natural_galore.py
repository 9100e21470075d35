"""Natural GaLore: a dense solve, the dual vector, the two limits of the damping, and the history."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.weights.optim.galore import GaLore
from loci.weights.optim.natural_galore import NaturalGaLore, natural

torch.set_num_threads(1)


def history(d, s, seed=0):
    return torch.randn(d, s, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("damping", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("k", [0, 3])
def test_it_is_the_dense_solve(k, damping):
    G = history(40, 7)
    dense = torch.linalg.solve(damping * torch.eye(40, dtype=torch.float64) + G @ G.T, G[:, k])
    torch.testing.assert_close(natural(G, k, damping), dense, rtol=1e-8, atol=1e-10)


def test_one_gradient_is_only_rescaled():
    v = history(10, 1)
    torch.testing.assert_close(natural(v, 0, 0.5), v[:, 0] / (0.5 + v.square().sum()), rtol=1e-6, atol=0)


def test_without_damping_it_is_orthogonal_to_all_older_gradients():
    G = history(30, 5)
    found = G.T @ natural(G, 2, 1e-10)
    torch.testing.assert_close(found, torch.eye(5, dtype=torch.float64)[2], rtol=0, atol=1e-4)


def test_with_much_damping_it_is_the_gradient():
    G = history(30, 5)
    torch.testing.assert_close(1e6 * natural(G, 1, 1e6), G[:, 1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(8, 6), (6, 8)])
def test_with_much_damping_the_optimizer_is_galore(shape):
    """lambda * F^{-1} v -> v, and Adam does not see the factor when eps vanishes."""
    one, two = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
    random = torch.Generator().manual_seed(1)
    shared = {"lr": 0.01, "rank": 3, "update_proj_gap": 4, "eps": 1e-30}
    ours, plain = NaturalGaLore([one], damping=1e6, history=3, **shared), GaLore([two], **shared)
    for _ in range(10):
        one.grad = torch.randn(shape, generator=random)
        two.grad = one.grad.clone()
        ours.step()
        plain.step()
    torch.testing.assert_close(one.detach(), two.detach(), rtol=1e-3, atol=1e-4)


def test_the_history_drops_its_oldest_and_starts_afresh_with_the_subspace():
    param = nn.Parameter(torch.zeros(6, 4))
    optimizer = NaturalGaLore([param], lr=0.01, rank=2, history=3, update_proj_gap=5)
    random = torch.Generator().manual_seed(2)
    fed = []
    for step in range(7):
        param.grad = torch.randn(6, 4, generator=random)
        optimizer.step()
        state = optimizer.state[param]
        fed.append((param.grad @ state["right"]).reshape(-1))
        if step == 4:  # five gradients went through three places
            assert {tuple(row.tolist()) for row in state["history"].flatten(1)} == {
                tuple(row.tolist()) for row in fed[2:5]
            }
    assert state["seen"] == 2
    torch.testing.assert_close(state["history"][:2].flatten(1), torch.stack(fed[5:]))


@pytest.mark.parametrize("options", [{"history": 0}, {"damping": 0.0}])
def test_no_history_and_no_damping_are_refused(options):
    with pytest.raises(ValueError, match="give at least 1 gradient and a damping above 0"):
        NaturalGaLore([nn.Parameter(torch.zeros(4, 4))], **options)
