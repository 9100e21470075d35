"""APOLLO: its factors in closed form, its projector's statistics, its direction and its limiter."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.weights.optim.apollo import APOLLO, APOLLOMini, factors, growth, random_projection

torch.set_num_threads(1)
CPU = torch.device("cpu")


def gradients(shape, steps, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random) for _ in range(steps)]


def run(optimizer, param, grads):
    moves = []
    for grad in grads:
        before = param.detach().clone()
        param.grad = grad.clone()
        optimizer.step()
        moves.append(before - param.detach())
    return moves


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_without_memory_the_factor_is_the_root_of_the_rank_over_the_norm(shape):
    """beta1 = beta2 = 0 and eps = 0: Adam is the sign, each channel's update has length |G_j| sqrt(r) / |R_j|."""
    param, grad = nn.Parameter(torch.zeros(shape)), gradients(shape, 1)[0]
    (moved,) = run(APOLLO([param], lr=1.0, rank=4, betas=(0.0, 0.0), eps=0.0, seed=3), param, [grad])
    P = random_projection(8, 4, 3, 0, CPU)
    R = grad @ P if shape[0] > shape[1] else P.T @ grad
    axis = 1 if shape[0] > shape[1] else 0
    expected = grad * 2 / R.norm(dim=axis, keepdim=True)
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_with_the_identity_as_projector_the_factors_are_adams(shape, monkeypatch):
    monkeypatch.setattr("loci.weights.optim.apollo.random_projection", lambda size, *_: torch.eye(size))
    param, other = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
    grads = gradients(shape, 3)
    ours = run(APOLLO([param], lr=0.01, rank=8, eps=1e-30, gamma=None), param, grads)
    adam = run(torch.optim.Adam([other], lr=0.01, eps=1e-30), other, grads)
    axis = 1 if shape[0] > shape[1] else 0
    for moved, full, grad in zip(ours, adam, grads, strict=True):
        ratio = full.norm(dim=axis, keepdim=True) / grad.norm(dim=axis, keepdim=True)
        torch.testing.assert_close(moved, grad * ratio, rtol=1e-5, atol=1e-6)


def test_the_projector_keeps_norms_on_average_and_comes_back_from_its_seed():
    g = gradients((20,), 1)[0]
    mean = torch.stack([(g @ random_projection(20, 8, seed, 0, CPU)).square().sum() for seed in range(2000)]).mean()
    assert float(mean / g.square().sum()) == pytest.approx(1, abs=0.05)
    assert torch.equal(random_projection(20, 8, 5, 2, CPU), random_projection(20, 8, 5, 2, CPU))
    assert not torch.equal(random_projection(20, 8, 5, 2, CPU), random_projection(20, 8, 5, 3, CPU))


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (8, 8)])
def test_every_channel_moves_along_its_gradient(shape):
    """Nothing is projected back: the update is the raw gradient, scaled along the long side."""
    param = nn.Parameter(torch.zeros(shape))
    grads = gradients(shape, 6)
    axis = 1 if shape[0] >= shape[1] else 0
    for moved, grad in zip(run(APOLLO([param], lr=0.01, rank=2, update_proj_gap=2), param, grads), grads, strict=True):
        torch.testing.assert_close(
            torch.cosine_similarity(moved, grad, dim=axis), torch.ones(max(shape)), rtol=0, atol=1e-4
        )
    mini = nn.Parameter(torch.zeros(shape))
    for moved, grad in zip(run(APOLLOMini([mini], lr=0.01), mini, grads), grads, strict=True):
        assert torch.cosine_similarity(moved.flatten(), grad.flatten(), dim=0).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "scaling", [torch.tensor(2.0), torch.arange(1.0, 7).unsqueeze(1), torch.arange(1.0, 5).unsqueeze(0)]
)
def test_a_gradient_made_100_times_larger_grows_the_update_by_a_hundredth(scaling):
    small, large = gradients((6, 4), 2)
    state = {}
    first = small * scaling / growth(small, scaling, state, 1.01)
    second = 100 * large * scaling / growth(100 * large, scaling, state, 1.01)
    assert torch.equal(first, small * scaling)
    assert (second.norm() / first.norm()).item() <= 1.01 + 1e-6
    torch.testing.assert_close(state["norm"], second.norm())


def test_a_gradient_of_zero_does_not_freeze_the_matrix():
    state = {}
    one = torch.ones(())
    growth(torch.zeros(3, 2), one, state, 1.01)
    assert growth(torch.ones(3, 2), one, state, 1.01).item() == 1


def test_scale_enters_as_its_root_and_mini_scales_the_whole():
    grad = gradients((6, 4), 1)[0]
    one, two = (nn.Parameter(torch.zeros(6, 4)) for _ in range(2))
    (plain,) = run(APOLLOMini([one], lr=0.01, scale=1.0), one, [grad])
    (scaled,) = run(APOLLOMini([two], lr=0.01), two, [grad])
    torch.testing.assert_close(scaled, plain * 128**0.5, rtol=1e-5, atol=1e-6)
    assert factors(torch.ones(6, 1), torch.ones(6, 1), "tensor").shape == ()


def test_the_projector_is_drawn_anew_at_every_gap_and_never_kept():
    param = nn.Parameter(torch.zeros(6, 4))
    optimizer = APOLLO([param], lr=0.01, rank=2, update_proj_gap=3, seed=9, betas=(0.0, 0.0))
    for step, grad in enumerate(gradients((6, 4), 5)):
        run(optimizer, param, [grad])
        expected = grad @ random_projection(4, 2, 9, step // 3, CPU)
        torch.testing.assert_close(optimizer.state[param]["exp_avg"], expected)
    assert set(optimizer.state[param]) == {"step", "exp_avg", "exp_avg_sq", "norm"}
