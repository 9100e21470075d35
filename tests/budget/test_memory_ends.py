"""What training does when memory ends: inside a budget, and where the system gives no more."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn

import loci
from loci.budget.plan import Plan
from loci.core.errors import BudgetExceeded
from tests.budget.small import averages

torch.set_num_threads(1)
WIDTH = 64
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # glibc gives freed blocks back, so that what was freed can be had again


class Deep(nn.Module):
    """Blocks that keep many activations for few weights, and draw random numbers."""

    def __init__(self, width=WIDTH, depth=6):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.Sequential(nn.Tanh(), nn.Dropout(0.1), nn.Sigmoid()))
            for _ in range(depth)
        )

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


def squares(model, x):
    return model(x).square().mean()


def deep():
    """One row: recomputed blocks are the only way to fewer bytes."""
    return Deep(), torch.zeros(1, 256, WIDTH), squares


def wide():
    """One row: the update holds more than the passes."""
    return Deep(256, 2), torch.zeros(1, 256), squares


def rows(number, shape=(1, 256, WIDTH)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(number))


def row(number):
    return rows(number, (1, 256))


def weighed(target, budget, optimizer, options=None):
    return loci.fit(
        target, budget, device="cpu", optimizer=optimizer, precision=["fp32"], options=options or {}
    )  # fmt: skip


def peak(found, plan):
    return next(one.bytes for one in found.forecasts if one.plan == plan)


def same(one, other):
    held, others = one.model.state_dict(), other.model.state_dict()
    return one.losses == other.losses and all(torch.equal(held[name], others[name]) for name in held)


@pytest.fixture(scope="module")
def free():
    """The plans of the deep target without a budget."""
    return weighed(deep, None, ["adamw"])


def test_a_step_over_budget_changes_nothing_and_the_next_plan_goes_on(free):
    plain, leaner = Plan(), Plan(checkpointing=True)
    budget = (peak(free, plain) + peak(free, leaner)) // 2
    found = weighed(deep, budget, ["adamw"])
    assert found.best.plan == leaner
    seen = []
    done = found.train(rows, steps=4, plan=plain, report=seen.append)
    assert done.plan == leaner
    assert done.peak <= budget
    assert done.peak == done.foreseen == found.best.bytes
    (note,) = done.notes
    assert note.startswith("step 1 ran out of memory under adamw, fp32 (parameters ")
    assert "the budget is" in note
    assert note.endswith("Going on with adamw, fp32, checkpointing")
    assert [now.note for now in seen] == [note, "", "", "", ""]
    assert same(done, found.train(rows, steps=4))  # dropout drew the same numbers: to the bit


def test_a_late_step_over_budget_goes_on_from_the_weights_and_state_it_found(free):
    """The third batch is larger than was planned for."""
    plain, leaner = Plan(), Plan(checkpointing=True)
    found = weighed(deep, peak(free, plain), ["adamw"])

    def growing(number):
        return rows(number, (1, 256 + 64 * (number >= 2), WIDTH))

    seen = []
    done = found.train(growing, steps=5, plan=plain, report=seen.append)
    assert [now.step for now in seen] == [1, 2, 2, 3, 4, 5]
    assert seen[2].note.startswith("step 3 ran out of memory")
    assert done.plan == leaner
    unlimited = free.train(growing, steps=5, plan=plain)
    assert not unlimited.notes
    assert same(done, unlimited)


def test_running_means_are_put_back():
    """A forward pass that fails has moved some of them already."""
    free = weighed(averages, None, ["sgd"])
    plain, leaner = Plan("sgd"), Plan("sgd", micro_batches=2)
    found = weighed(averages, (peak(free, plain) + peak(free, leaner)) // 2, ["sgd"])
    small = lambda number: rows(number, (64, 32))  # noqa: E731
    done = found.train(small, steps=3, plan=plain)
    assert done.notes
    again = found.train(small, steps=3, plan=done.plan)
    assert not again.notes
    assert same(done, again)


def test_no_plan_left_says_what_is_needed(free):
    found = weighed(deep, peak(free, Plan()), ["adamw"])
    with pytest.raises(BudgetExceeded, match=r"step 2 ran out of memory under .*; no leaner plan is left") as ended:
        found.train(lambda number: rows(number, (1, 256 << 5 * number, WIDTH)), steps=3)
    assert ended.value.limit == found.budget
    assert ended.value.needed > found.budget


def test_nothing_fits_is_said_before_anything_is_built(free):
    found = weighed(deep, free.smallest.bytes - 1, ["adamw"])
    with pytest.raises(BudgetExceeded, match="the smallest budget that would do is") as ended:
        found.train(rows, steps=1)
    assert ended.value.needed == free.smallest.bytes
    assert ended.value.limit == free.smallest.bytes - 1


@pytest.fixture(scope="module")
def narrow():
    """A budget that holds SGD's update and not AdamW's."""
    free = weighed(wide, None, ["adamw", "sgd"])
    plain, other = Plan(), Plan("sgd")
    assert next(one for one in free.forecasts if one.plan == plain).peak.phase == "step"
    return weighed(wide, (peak(free, plain) + peak(free, other)) // 2, ["adamw", "sgd"])


def test_memory_that_ends_inside_an_update_is_an_error_without_checkpoints(narrow):
    with pytest.raises(BudgetExceeded, match="inside the update, so its weights are half updated; give checkpoints="):
        narrow.train(row, steps=2, plan=Plan())


def test_memory_that_ends_inside_an_update_goes_back_to_a_checkpoint(narrow, tmp_path):
    seen = []
    done = narrow.train(row, steps=3, plan=Plan(), checkpoints=tmp_path, report=seen.append)
    assert done.plan == Plan("sgd")
    (note,) = done.notes
    assert "Going on from step 0 with sgd, fp32; its optimizer starts anew" in note
    assert [now.step for now in seen] == [0, 1, 2, 3]
    assert same(done, narrow.train(row, steps=3, plan=Plan("sgd")))


def test_a_second_end_does_not_load_the_first_ones_optimizer(narrow, tmp_path):
    """AdamW's checkpoint is still the newest when SGD fails: its state is none of SGD's."""
    leanest = weighed(wide, narrow.budget, ["adamw", "sgd", "mezo"])
    huge = lambda number: rows(number, (1 + 200 * (number == 1), 256))  # noqa: E731
    done = leanest.train(huge, steps=3, plan=Plan(), checkpoints=tmp_path, every=10)
    assert len(done.notes) >= 2
    assert all(note.endswith("its optimizer starts anew") or "Going on with" in note for note in done.notes)
    assert len(done.losses) == 3


def test_an_error_leaves_the_folder_as_it_was(narrow, tmp_path):
    narrow.train(row, steps=2, plan=Plan("sgd"), checkpoints=tmp_path)
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BudgetExceeded, match="no leaner plan is left"):
        narrow.train(lambda number: rows(number, (4096, 256)), steps=3, checkpoints=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == held
    assert len(narrow.train(row, steps=3, checkpoints=tmp_path).losses) == 3


# The system's own refusal


def large():
    """Some 400 MB of activations."""
    return Deep(depth=8), torch.zeros(2, 2**15, WIDTH), squares


def held_by_process():
    """Bytes of address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def starved(room):
    """Train with so many bytes of address space beyond what is mapped already."""
    found = weighed(large, None, ["sgd"])
    torch.manual_seed(0)
    found.train(lambda number: rows(number, (2, 32, WIDTH)), steps=1, plan=Plan("sgd"))  # what is mapped once only
    batches = [rows(number, (2, 2**15, WIDTH)) for number in range(2)]
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held_by_process() + room, before[1]))
    told = {"plain": peak(found, Plan("sgd"))}
    try:
        done = found.train(batches, steps=2, plan=Plan("sgd"))
        told |= {"plan": str(done.plan), "notes": done.notes, "losses": done.losses}
    except BudgetExceeded as error:
        told |= {"error": str(error), "needed": error.needed}
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    if "plan" in told:
        plan = next(one.plan for one in found.forecasts if str(one.plan) == told["plan"])
        told["again"] = found.train(batches, steps=2, plan=plan).losses
    return told


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="address space is limited on Linux")
@pytest.mark.parametrize("room", [250_000_000, 60_000_000], ids=["some", "none"])
def test_a_refused_allocation_is_caught_explained_and_answered(room):
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", **RETURNED}
    done = subprocess.run(
        [sys.executable, __file__, str(room)], env=here, capture_output=True, text=True, timeout=280, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["plain"] > 300_000_000
    if room < 100_000_000:
        assert "allocate memory" in told["error"]
        assert "no leaner plan is left" in told["error"]
        return
    assert "ran out of memory under sgd, fp32 (parameters" in told["notes"][0]
    assert "allocate memory" in told["notes"][0]
    assert told["plan"] != "sgd, fp32"
    assert told["losses"] == told["again"]


if __name__ == "__main__":
    print(json.dumps(starved(int(sys.argv[1]))))
