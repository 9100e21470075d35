"""Runs that were killed go on to the bit; a folder that cannot be gone on from says so."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import loci
from loci.budget.plan import Plan
from tests.budget import small
from tests.budget.small import RUNS, STEPS, batch, run, words

torch.set_num_threads(1)
KILLED = {"between": -signal.SIGKILL, "inside": -signal.SIGXFSZ}


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A folder with the checkpoints that killed runs left, and how each process ended."""
    folder = tmp_path_factory.mktemp("cut")
    paths = [Path(small.__file__).parents[2], *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, paths)))}
    done = subprocess.run(
        [sys.executable, small.__file__, str(folder)],
        env=here, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, {(name, how): int(code) for name, how, code in map(str.split, done.stdout.splitlines())}


@cache
def at_once(name):
    """The fit of a run, its losses and its weights when nothing cuts it."""
    fit = small.weighed(name)
    whole = run(name, None, fit=fit)
    return fit, whole.losses, copy.deepcopy(whole.model.state_dict())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def fit():
    return loci.fit(words, device="cpu", optimizer=["sgd"], precision=["fp32"])


@pytest.mark.parametrize("how", KILLED)
@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_goes_on_to_the_bit(cut, name, how):
    folder, codes = cut
    assert codes[name, how] == KILLED[how]
    left = sorted(path.name for path in (folder / f"{name}-{how}").iterdir())
    unfinished = ["step-000000006.new"] if how == "inside" else []
    assert left == ["step-000000002.pt", "step-000000004.pt", *unfinished]
    fit, losses, weights = at_once(name)
    numbers = []
    gone_on = run(name, folder / f"{name}-{how}", fit=fit, report=lambda now: numbers.append(now.step))
    assert numbers == list(range(5, STEPS + 1))
    assert gone_on.losses == losses
    assert same(gone_on.model.state_dict(), weights)
    assert gone_on.plan == RUNS[name][1]


def test_the_scaler_and_dropout_matter_to_those_runs():
    """Without them the same seeds give other numbers, so their state is something that can be lost."""
    _, losses, _ = at_once("scaler")
    assert losses != at_once("adamw")[1]
    fit, losses, _ = at_once("dropout")
    other = fit.train(batch, steps=3, seed=3, plan=RUNS["dropout"][1])
    torch.manual_seed(1)
    again = fit.train(batch, steps=3, seed=3, plan=RUNS["dropout"][1])  # the run's own seed rules
    assert other.losses == again.losses == losses[:3]
    assert fit.train(batch, steps=3, seed=4, plan=RUNS["dropout"][1]).losses != losses[:3]


def test_checkpoints_do_not_change_a_run(fit, tmp_path):
    assert fit.train(batch, steps=5, checkpoints=tmp_path, every=1).losses == fit.train(batch, steps=5).losses
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000004.pt", "step-000000005.pt"]


def test_a_finished_run_is_not_run_again(fit, tmp_path):
    first = fit.train(batch, steps=3, checkpoints=tmp_path)
    again = fit.train(batch, steps=3, checkpoints=tmp_path)
    assert again.losses == first.losses
    assert same(again.model.state_dict(), first.model.state_dict())
    assert len(fit.train(batch, steps=4, checkpoints=tmp_path).losses) == 4


def test_a_plan_may_change_where_the_method_stays(fit, tmp_path):
    fit.train(batch, steps=2, checkpoints=tmp_path)
    leaner = Plan("sgd", checkpointing=True)
    assert fit.train(batch, steps=4, checkpoints=tmp_path, plan=leaner).plan == leaner
    assert fit.train(batch, steps=6, checkpoints=tmp_path).plan == leaner  # the folder's, when none is asked for


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-2000]), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: torch.save({"step": 4}, path), "cannot be read"),
        (lambda path: torch.save([1, 2], path), "cannot be read"),
        (lambda path: torch.save({"format": 99}, path), "format 99, this loci reads 1"),
        (lambda path: torch.save({"format": 1, "plan": os.system}, path), "cannot be read"),
    ],
    ids=["cut short", "empty", "no format", "no dict", "later format", "code"],
)
def test_a_damaged_newest_checkpoint_is_refused(fit, tmp_path, damage, says):
    whole = fit.train(batch, steps=6)
    fit.train(batch, steps=4, checkpoints=tmp_path, every=2)
    newest = tmp_path / "step-000000004.pt"
    damage(newest)
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=says) as refused:
        fit.train(batch, steps=6, checkpoints=tmp_path)
    assert str(newest) in str(refused.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == held
    newest.unlink()  # as the error says
    assert fit.train(batch, steps=6, checkpoints=tmp_path).losses == whole.losses


def test_checkpoints_of_another_model_are_refused(fit, tmp_path):
    fit.train(batch, steps=1, checkpoints=tmp_path)

    def wider():
        return small.Model(width=24), torch.zeros(small.ROWS, small.T + 1, dtype=torch.long), small.loss

    other = loci.fit(wider, device="cpu", optimizer=["sgd"], precision=["fp32"])
    with pytest.raises(ValueError, match=r"step-000000001\.pt is of another model or optimizer"):
        other.train(batch, steps=2, checkpoints=tmp_path)


def test_checkpoints_of_a_method_that_was_not_weighed_are_refused(fit, tmp_path):
    fit.train(batch, steps=1, checkpoints=tmp_path)
    other = loci.fit(words, device="cpu", optimizer=["adamw"], precision=["fp32"])
    with pytest.raises(ValueError, match="plan sgd, fp32 is none of those that were weighed"):
        other.train(batch, steps=2, checkpoints=tmp_path)


def test_several_processes_files_are_not_ones(fit, tmp_path):
    fit.train(batch, steps=1, checkpoints=tmp_path)
    only = tmp_path / "step-000000001.pt"
    only.rename(tmp_path / "step-000000001.0-of-2.pt")
    (tmp_path / "step-000000000.pt").unlink()
    with pytest.raises(ValueError, match="written by other processes than these; start as many as then"):
        fit.train(batch, steps=2, checkpoints=tmp_path)
