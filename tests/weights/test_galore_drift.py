"""Why GaLore chooses its subspace anew: a gradient whose subspace turns leaves a projector of the first step blind."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.weights.optim.galore import GaLore

torch.set_num_threads(1)

M, N, RANK, GAP = 12, 8, 3, 50


def subspaces(size, seed=0):
    """Two orthogonal subspaces of rank 3, as projections (size, size)."""
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)))
    return [basis[:, place : place + RANK] @ basis[:, place : place + RANK].T for place in (0, RANK)]


def train(make, shape, steps=2 * GAP):
    """Least squares on inputs that span one subspace and, from half time on, the other; the weights after each half."""
    m, n = shape
    random = torch.Generator().manual_seed(1)
    target, param = torch.randn(shape, generator=random), nn.Parameter(torch.zeros(shape))
    optimizer, halves = make(param), []
    for span in subspaces(min(shape)):
        for _ in range(steps // 2):
            optimizer.zero_grad()
            off = param - target
            (0.5 * ((off @ span) if m >= n else (span @ off)).square().sum()).backward()
            optimizer.step()
        halves.append(param.detach().clone())
    return *halves, target


def missed(param, target, span):
    """The loss that is left on a subspace, as a share of the target's own."""
    m, n = target.shape
    project = (lambda W: W @ span) if m >= n else (lambda W: span @ W)
    return float(project(param - target).square().sum() / project(target).square().sum())


@pytest.mark.parametrize("shape", [(M, N), (N, M)])
def test_with_refreshes_it_follows_as_sgd_does_on_whole_gradients(shape):
    """Every gradient has the rank of the projector, so nothing is lost: torch's SGD on the whole matrix is the oracle."""
    ours = train(
        lambda p: GaLore([p], lr=0.2, rank=RANK, update_proj_gap=GAP, scale=1.0, base="sgd", momentum=0.0), shape
    )
    theirs = train(lambda p: torch.optim.SGD([p], lr=0.2), shape)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(M, N), (N, M)])
@pytest.mark.parametrize("base", ["adamw", "sgd", "adafactor"])
def test_refreshed_every_50_steps_it_learns_what_a_fixed_projector_cannot_see(shape, base):
    lr = {"adamw": 0.1, "sgd": 0.05, "adafactor": 0.05}[base]
    _, then = subspaces(min(shape))

    def build(gap):
        return lambda p: GaLore([p], lr=lr, rank=RANK, update_proj_gap=gap, scale=1.0, base=base, momentum=0.5)

    _, refreshed, target = train(build(GAP), shape)
    _, never, _ = train(build(10**9), shape)
    assert missed(refreshed, target, then) < 0.05
    assert missed(never, target, then) > 0.99
