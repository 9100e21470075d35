"""The byte meter: bytes counted by hand, on real tensors and on fake ones, and what ends a run over its budget."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from loci.budget.device import device
from loci.budget.gpt import GPT, Sizes, next_token_loss
from loci.budget.meter import ByteMeter
from loci.budget.plan import Plan
from loci.budget.simulate import Imagined, fake, imagined, prepare
from loci.budget.subject import subject
from loci.budget.timeline import KINDS, Timeline
from loci.budget.training import Training
from loci.core.errors import OverBudget

torch.set_num_threads(1)
FLOAT = 4


def tiny():
    return GPT(Sizes(2, 16, 2, V=32, T=16)), torch.zeros(4, 9, dtype=torch.long), next_token_loss


def test_one_layer_by_hand():
    W, x = nn.Parameter(torch.ones(8, 4)), torch.ones(5, 4)
    with ByteMeter() as meter:
        meter.hold("parameters", [W])
        meter.hold("activations", [x])
        loss = torch.relu(x @ W.T).sum()  # 5 x 8 numbers twice; the product is freed, relu needs its own output
        assert meter.split()["activations"] == FLOAT * (20 + 40 + 1)
        assert meter.high == FLOAT * (32 + 20 + 40 + 40)
        with meter.phase("backward"):
            loss.backward()
        meter.mark("gradients", [W.grad])
    held = {"parameters": FLOAT * 32, "gradients": FLOAT * 32, "activations": FLOAT * (20 + 1)}
    assert {kind: size for kind, size in meter.split().items() if size} == held
    assert meter.live == FLOAT * (32 + 32 + 20 + 1)


def test_views_and_writes_in_place_cost_nothing():
    with ByteMeter() as meter:
        x = torch.zeros(6, 4)
        views = [x.T, x[2:], x.view(3, 8), x.detach()]
        x.add_(1).mul_(2)
        assert meter.live == FLOAT * 24
        del x
        assert meter.live == FLOAT * 24, "the views hold the storage"
        del views
        assert meter.live == 0


def test_each_death_is_entered_with_the_size_of_the_birth():
    with ByteMeter() as meter:
        for size in (10, 20, 30):
            x = torch.ones(size)
            x = x * 2
        del x
    deltas = meter.timeline().deltas
    assert deltas.sum() == 0
    assert sorted(deltas[deltas > 0]) == [40, 40, 80, 80, 120, 120] == sorted(-deltas[deltas < 0])


def test_what_backward_does_not_need_is_temporary():
    x = torch.ones(10, requires_grad=True)
    with ByteMeter() as meter:
        y = (x * 2).exp()  # exp saves its output, the product is gone
        kinds = meter.timeline().kinds
        assert [KINDS[kind] for kind in kinds] == ["temporaries", "activations", "temporaries"]
        with torch.no_grad():
            z = y + 1
        assert meter.split()["temporaries"] == z.nbytes


def test_phases_are_named_and_end():
    with ByteMeter() as meter:
        x = torch.ones(1)
        with meter.phase("step"):
            y = torch.ones(100)
            del y
        z = x + 1
    assert meter.timeline().phases == ("forward", "step", "step", "forward")
    assert meter.timeline().peak().phase == "step"
    assert z.nbytes + x.nbytes == meter.live


def test_parameters_stay_parameters():
    W = nn.Parameter(torch.ones(3))
    with ByteMeter() as meter:
        meter.hold("parameters", [W])
        meter.mark("optimizer", [W, torch.ones(2)])
    assert meter.timeline().peak().split["parameters"] == 12
    assert meter.split()["optimizer"] == 0, "it is freed by now"


def test_over_budget_says_what_was_alive_and_leaves_the_rest():
    W = nn.Parameter(torch.ones(100))
    with ByteMeter(limit=1000) as meter:
        meter.hold("parameters", [W])
        x = W * 2
        with (
            meter.phase("backward"),
            pytest.raises(
                OverBudget, match=r"1\.2 kB are alive in backward.*1 kB; parameters 400 B, activations 800 B"
            ),
        ):
            x + 1
        torch.ones(50)  # below the limit again, for the failed sum is gone
    assert meter.live == 800
    assert torch.equal(W.data, torch.ones(100))


def test_sizes_are_counted_as_the_allocator_rounds_them():
    with ByteMeter(count=device("cuda").count) as meter:
        x, y, z = torch.ones(1), torch.ones(128), torch.ones(129)
        assert meter.live == 512 + 512 + 1024
    assert x.numel() + y.numel() + z.numel() == 258


def test_bytes_inside_an_operation_raise_the_peak_alone():
    with ByteMeter() as meter:
        x = torch.ones(10)
        meter.pass_by(100)
    assert (meter.live, meter.high, meter.timeline().peak().split["temporaries"]) == (40, 140, 100)
    assert x.nbytes == 40


def test_reading_starts_at_nothing():
    before = torch.ones(1000)
    assert ByteMeter().read(lambda: before.sum()).value == FLOAT


@pytest.mark.parametrize(
    "plan",
    [
        Plan("adamw"),
        Plan("galore", "bf16-mixed", checkpointing=True, micro_batches=2),
        Plan("sgd-sai", "bf16", fused=True),
        Plan("mezo"),
    ],
    ids=str,
)
def test_a_fake_step_is_a_real_one_birth_by_birth(plan):
    found = []
    training = Training(subject(tiny), plan)
    found.append(steps(training, ByteMeter()))
    with fake(device("cpu")):
        training = prepare(subject(tiny), plan, device("cpu"), None)
        found.append(steps(training, Imagined(count=device("cpu").count, inside=None)))
    real, foreseen = found
    assert real.peak() == foreseen.peak()
    for sign in (1, -1):  # autocast frees its casts in the order of their addresses, so the deaths are sorted
        one, other = (made(timeline, sign) for timeline in (real, foreseen))
        assert one == other if sign > 0 else sorted(one) == sorted(other)


def made(timeline, sign):
    """Size, kind and phase of each birth or death."""
    rows = zip(timeline.deltas.tolist(), timeline.kinds.tolist(), timeline.phases, strict=True)
    return [row for row in rows if row[0] * sign > 0]


def steps(training, meter):
    with training.metered(meter):
        for _ in range(2):
            training.step(training.batch)
    return meter.timeline()


def test_nothing_is_allocated_for_fake_tensors():
    with FakeTensorMode(), imagined(device("cpu")) as meter:
        x = torch.empty(10**6, 10**6)  # 4 TB
        y = x @ x
    assert meter.high == 2 * FLOAT * 10**12
    assert meter.flops == 2 * 10**18
    assert y.shape == (10**6, 10**6)


def test_a_timeline_from_the_middle_starts_with_what_was_alive():
    whole = Timeline.of([8, 4, -4, 2, 16, -16], [0, 3, 3, 2, 4, 4], ["forward"] * 3 + ["step"] * 3)
    late = whole.since(3)
    assert late.peak() == whole.peak()
    assert late.peak().split == {"parameters": 8, "gradients": 0, "optimizer": 2, "activations": 0, "temporaries": 16}
    assert late.live()[-3:].tolist() == [10, 26, 10]
    assert late.curves().sum(axis=0).tolist() == late.live().tolist()
    assert set(late.phases) == {"step"}


def test_an_empty_timeline_has_no_peak():
    assert Timeline.of([], [], []).peak().bytes == 0
