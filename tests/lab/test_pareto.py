"""Loss against bytes: the front by brute force, bytes in closed form, the walk on a grid, the picture, the kept rows."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from loci.lab import pareto, plot
from loci.lab.pareto import Entrant, Run


def row(of, loss, **parts):
    return {
        "of": of, "lr": 0.1, "loss": loss, "spread": 0.1, "bytes": parts, "unit": "nats, of a test",
        "seeds": {} if loss is None else {"0": loss - 0.05, "1": loss + 0.05}, "grid": {},
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_nothing_beats(seed):
    draw = random.Random(seed)
    rows = [row(f"optimizer/{i}", draw.randint(1, 6), weights=1, state=draw.randint(0, 6)) for i in range(12)]
    for size in (pareto.total, pareto.state):

        def beaten(one, size=size):
            return any(
                size(other) <= size(one) and other["loss"] <= one["loss"] and (size(other), other["loss"]) != (size(one), one["loss"])
                for other in rows
            )  # fmt: skip

        expected = {(size(one), one["loss"]) for one in rows if not beaten(one)}
        assert [(size(one), one["loss"]) for one in pareto.front(rows, size)] == sorted(expected)


@pytest.mark.parametrize("best", range(7))
def test_the_walk_finds_the_lowest_of_a_valley_from_anywhere(best):
    grid = [10.0**power for power in range(7)]
    tried = pareto.walk(lambda lr: abs(math.log10(lr) - best), grid)
    assert min(tried, key=tried.get) == grid[best]
    assert all(grid[place] in tried for place in (best - 1, best + 1) if 0 <= place < 7)


def test_the_walk_leaves_where_training_diverges():
    tried = pareto.walk(lambda lr: math.nan if lr > 2 else lr, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert min(tried, key=tried.get) == 1.0
    assert set(pareto.walk(lambda _: math.nan, [1.0, 2.0, 3.0]).values()) == {math.inf}


def test_a_row_tells_mean_range_and_bytes_at_the_best_lr():
    def run(lr, seed):
        return Run(1e3 if seed == pareto.TUNED_ON and lr != 0.3 else lr + seed, {"weights": 8, "state": 4})

    found = pareto.measure(Entrant("optimizer/toy", run), grid=(0.1, 0.3, 0.9), seeds=(0, 1, 2))
    assert (found["lr"], found["loss"], found["spread"]) == (0.3, 1.3, 2.0)
    assert found["seeds"] == {"0": 0.3, "1": 1.3, "2": 2.3}
    assert pareto.total(found) == 12


def test_runs_that_diverge_are_null_and_a_grid_that_does_is_an_error():
    def run(lr, seed):
        return Run(math.nan, {}) if lr > 1 or seed == 1 else Run(2.0, {"state": 4})

    found = pareto.measure(Entrant("optimizer/toy", run), grid=(0.5, 3.0), seeds=(1, 2))
    assert (found["loss"], found["seeds"], found["bytes"]) == (None, {"1": None, "2": 2.0}, {"state": 4})
    assert pareto.front([found]) == []
    with pytest.raises(ValueError, match="optimizer/toy diverged at every lr down to 2.0"):
        pareto.measure(Entrant("optimizer/toy", run), grid=(2.0, 3.0))


@pytest.mark.parametrize(("suffix", "starts"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_the_picture_names_every_row_and_is_the_same_again(tmp_path, suffix, starts):
    pytest.importorskip("matplotlib")
    rows = [
        row("torch/AdamW", 2.0, weights=4, state=8),
        row("optimizer/mezo", 3.0, weights=4, state=0),
        row("local-trainer/later", 2.5, weights=4, state=3),
        row("optimizer/lost", None, weights=4, state=1),
    ]
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    best = [[one["of"] for one in plot.draw(path, rows=rows)] for path in paths]
    assert best == [["optimizer/mezo", "local-trainer/later", "torch/AdamW"]] * 2
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(starts)
    if suffix == ".svg":
        assert first == second
        assert all(first.count(name) == 2 for name in (b"<!-- AdamW  2.000 -->", b"<!-- mezo  3.000 -->"))
        assert b"lost" not in first


def test_a_picture_of_nothing_or_of_no_known_form_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no suffix that says its form; give one of .svg, .png, .pdf"):
        plot.draw(tmp_path / "a.gif", rows=[row("torch/AdamW", 2.0, state=1)])
    with pytest.raises(ValueError, match="no measured rows"):
        plot.draw(tmp_path / "a.svg", rows=[row("torch/AdamW", None, state=1)])
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    from loci.core.errors import MissingExtra

    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r'The picture needs matplotlib; pip install "loci\[dev\]"'):
        plot.draw(tmp_path / "a.svg", rows=[row("torch/AdamW", 2.0, state=1)])


def test_every_kept_row_is_whole_and_the_lrs_beside_its_own_were_tried():
    rows = pareto.kept()
    assert len({one["of"] for one in rows}) == len(rows) >= 4
    for one in rows:
        losses = list(one["seeds"].values())
        assert len(losses) == len(pareto.SEEDS)
        if one["loss"] is not None:
            assert one["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-4)
            assert one["spread"] == pytest.approx(max(losses) - min(losses), abs=2e-4)
        around = [place for place, lr in enumerate(pareto.GRID) if str(lr) in one["grid"]]
        best = pareto.GRID.index(one["lr"])
        assert {max(0, best - 1), best, min(len(pareto.GRID) - 1, best + 1)} <= set(around)
        assert set(one["bytes"]) == {"weights", "gradients", "state", "saved"}


def test_no_row_is_of_a_method_that_is_gone():
    pytest.importorskip("torch")
    assert {one["of"] for one in pareto.kept()} <= {entrant.of for entrant in pareto.entrants()}


def test_methods_are_built_as_their_papers_use_them():
    torch = pytest.importorskip("torch")
    from loci.lab.tasks.language import Transformer
    from loci.weights.optim import LAMB, APOLLOMini, GaLore, MeZO

    model = Transformer(5, D=32)
    inner = {
        id(param) for name, param in model.named_parameters() if ("attn" in name or "mlp" in name) and param.dim() == 2
    }
    for member, rank in ((GaLore, 16), (APOLLOMini, 1)):
        groups = pareto.ours(member, 0.1, model).param_groups
        assert [group["rank"] for group in groups] == [None, rank]
        assert {id(param) for param in groups[1]["params"]} == inner
    plain = pareto.ours(LAMB, 0.1, model).param_groups[1]
    assert (plain["adapt"], plain["weight_decay"]) == (False, 0.0)
    assert all(param.dim() == 1 for param in plain["params"])
    assert len(pareto.ours(MeZO, 0.1, model).param_groups[0]["params"]) == len(list(model.parameters()))
    assert isinstance(pareto.ours(torch.optim.AdamW, 0.1, model), torch.optim.AdamW)


def test_bytes_of_a_step_are_those_of_its_tensors():
    """A transformer of 300 steps is not needed: parameters and moments are counted by hand after one."""
    torch = pytest.importorskip("torch")
    from loci.lab.claim import NotTestable
    from loci.lab.tasks import language
    from loci.weights.optim import MeZO

    try:
        by_adam = language.trained(lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3), 0, steps=1)
    except NotTestable as why:
        pytest.skip(str(why))
    d = sum(param.numel() for param in by_adam.model.parameters())
    tensors = len(list(by_adam.model.parameters()))
    one, two = (language.parts(by_adam, batch=batch) for batch in (16, 32))
    assert one | {"saved": 0} == {"weights": 4 * d, "gradients": 4 * d, "state": 8 * d + 4 * tensors, "saved": 0}
    per_row = (two["saved"] - one["saved"]) / 16
    assert 0 <= one["saved"] - 16 * per_row <= 100_000  # but for places, and a mask, what is saved is saved per row
    by_loss = language.trained(lambda model: MeZO(model.parameters(), lr=1e-3), 0, steps=1)
    assert language.parts(by_loss) == {"weights": 4 * d, "gradients": 0, "state": 0, "saved": 0}


def test_a_run_that_leaves_its_limit_ends_and_says_so():
    torch = pytest.importorskip("torch")
    from loci.lab.claim import NotTestable
    from loci.lab.tasks import language

    stepped = itertools.count()

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            next(stepped)
            return super().step(closure)

    try:
        end = language.trained(lambda model: Counting(model.parameters(), lr=1e4), 0, limit=10.0)
    except NotTestable as why:
        pytest.skip(str(why))
    assert math.isnan(end.loss)
    assert next(stepped) < 20


def test_saved_tensors_are_counted_once_for_each_storage():
    torch = pytest.importorskip("torch")
    from loci.lab.tasks.peak import saved_for_backward

    x, w1, w2 = torch.ones(5, 7), torch.ones(7, 3, requires_grad=True), torch.ones(3, 2, requires_grad=True)

    def net():
        return ((x @ w1).sigmoid() @ w2).square().sum()  # saved: x, sigmoid's result for two, w2, the last product

    assert saved_for_backward(net, besides=[x, w1, w2]) == 4 * (5 * 3 + 5 * 2)
    assert saved_for_backward(net) == 4 * (5 * 3 + 5 * 2 + 5 * 7 + 3 * 2)
    with torch.no_grad():
        assert saved_for_backward(net) == 0
