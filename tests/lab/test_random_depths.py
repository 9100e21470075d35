"""Depths by chance: as often as asked, whatever the text, and gated as the router would have."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scipy.stats import chisquare

from loci.lab.tasks.random_depths import Drawn, by_chance
from loci.state.decoder.mixture_of_recursions import MixtureOfRecursionsTokenChoice
from loci.state.decoder.routers import TokenChoice

torch.set_num_threads(1)
SHARES = (0.5, 0.2, 0.3)
SIZES = {"D": 8, "heads": 2, "hidden": 12, "layers": 1, "recursions": 3, "window": 16}


def router(seed=1):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Drawn(TokenChoice(4, 3), SHARES, torch.Generator().manual_seed(seed)).double()


def test_depths_come_as_often_as_asked_whatever_the_text():
    h = torch.randn(20, 200, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 100
    depth = router()(h).depth.numpy()
    counts = np.bincount(depth.ravel(), minlength=4)
    assert counts[0] == 0
    assert chisquare(counts[1:], np.array(SHARES) * depth.size).pvalue > 0.001
    assert (router()(-h).depth.numpy() == depth).all()
    assert (router(seed=3)(h).depth.numpy() != depth).mean() > 0.3


def test_gates_are_the_routers_own():
    one, h = router(), torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    depth, gate, loss = (part.detach().numpy() for part in one(h))
    odds = np.exp(h.numpy() @ one.router.theta.detach().numpy().T)
    odds /= odds.sum(-1, keepdims=True)
    np.testing.assert_allclose(gate[..., 0], np.take_along_axis(odds, depth[..., None] - 1, -1)[..., 0])
    assert loss == pytest.approx(float(one.router(h).loss.detach()))


def test_nothing_but_the_choice_is_another():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = MixtureOfRecursionsTokenChoice(11, **SIZES)
        torch.manual_seed(0)
        chance = by_chance(11, **SIZES, shares=SHARES, seed=5)
    assert [p.shape for p in own.parameters()] == [p.shape for p in chance.parameters()]
    assert all(torch.equal(one, two) for one, two in zip(own.parameters(), chance.parameters(), strict=True))
    assert not torch.equal(own.depths(torch.arange(11).expand(3, 11)), chance.depths(torch.arange(11).expand(3, 11)))


def test_what_are_no_shares_is_refused():
    for shares in ((0.5, 0.5), (0.5, -0.1, 0.6), (0.0, 0.0, 0.0)):
        with pytest.raises(ValueError, match="3 depths"):
            Drawn(TokenChoice(4, 3), shares, torch.Generator())
