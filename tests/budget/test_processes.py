"""Training over two processes that torchrun starts, beside one process: the same losses, checkpoints of parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed.fsdp")

import loci
from loci.budget.plan import Plan, optimizers
from tests.budget.small import batch, exact

torch.set_num_threads(1)
pytestmark = pytest.mark.xdist_group("processes")  # one worker makes the runs that all of them look at
STEPS = 6
RATES = {"mezo": 1e-3, "lars-2017": 1.0, "sgd": 0.1}
APART = {"galore-8bit"}  # its blocks begin anew in each part
PLANS = {name: Plan(name) for name in optimizers() if name not in APART}
PLANS |= {
    "checkpointing": Plan("adamw", checkpointing=True),
    "parts": Plan("galore", micro_batches=2),
    "fused": Plan("galore", fused=True),
}


def weighed(name):
    plan = PLANS[name]
    options = {"lr": RATES[plan.optimizer]} if plan.optimizer in RATES else {}
    return loci.fit(exact, device="cpu", optimizer=[plan.optimizer], precision=["fp32"], options=options)


def main(folder):
    """What torchrun runs in each process: every plan at once, and cut after half of the steps."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    found = {}
    for name, plan in PLANS.items():
        fit, kept = weighed(name), folder / name
        whole = fit.train(batch, steps=STEPS, plan=plan)
        fit.train(batch, steps=STEPS // 2, plan=plan, checkpoints=kept, every=2)
        if torch.distributed.get_rank() == 1:  # as if it had been killed before it wrote the last one
            (kept / f"step-{STEPS // 2:09d}.1-of-2.pt").unlink()
        torch.distributed.barrier()
        numbers = []
        again = fit.train(batch, steps=STEPS, plan=plan, checkpoints=kept, report=lambda now: numbers.append(now.step))
        found[name] = {
            "losses": whole.losses,
            "again": again.losses,
            "from": numbers[0],
            "same": all(
                torch.equal(one.to_local(), two.to_local())
                for one, two in zip(whole.model.parameters(), again.model.parameters(), strict=True)
            ),
            "held": sum(param.to_local().numel() for param in whole.model.parameters()),
            "all": sum(param.numel() for param in whole.model.parameters()),
        }
    try:
        weighed("sgd").train(lambda number: batch(number)[:3], steps=1)
    except ValueError as error:
        found["odd"] = str(error)
    Path(folder, f"{torch.distributed.get_rank()}.json").write_text(json.dumps(found), "utf-8")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes found, and the folder of their checkpoints."""
    folder = tmp_path_factory.mktemp("two")
    here = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*started, __file__, str(folder)], env=here, capture_output=True, text=True, timeout=280, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, [json.loads((folder / f"{rank}.json").read_text("utf-8")) for rank in range(2)]


@pytest.mark.parametrize("name", PLANS)
def test_two_processes_have_the_losses_of_one(found, name):
    alone = weighed(name).train(batch, steps=STEPS, plan=PLANS[name]).losses
    assert len(set(alone)) == STEPS
    for rank in found[1]:
        assert rank[name]["losses"] == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize("name", PLANS)
def test_parts_of_a_checkpoint_go_on_to_the_bit(found, name):
    """From the newest step of which all processes have their part."""
    for rank in found[1]:
        assert rank[name]["from"] == 3
        assert rank[name]["again"] == rank[name]["losses"]
        assert rank[name]["same"]


def test_each_process_holds_its_part_of_the_weights(found):
    held = [rank["adamw"]["held"] for rank in found[1]]
    assert sum(held) == found[1][0]["adamw"]["all"]
    assert max(held) < 0.6 * sum(held)


def test_another_number_of_processes_is_refused(found):
    folder = found[0] / "sgd"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=r"step-000000006\.1-of-2\.pt was written by other processes than these"):
        weighed("sgd").train(batch, steps=STEPS, plan=PLANS["sgd"], checkpoints=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_rows_that_processes_do_not_divide_are_refused(found):
    for rank in found[1]:
        assert rank["odd"] == "2 processes do not divide 3 rows; give a multiple"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
