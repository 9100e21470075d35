"""Plans put together from parts against plans simulated whole, against the allocator, and against the cards' formulas."""

from __future__ import annotations

import json
from itertools import product

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from loci.budget.device import device
from loci.budget.forecast import Forecasts
from loci.budget.gpt import GPT, Sizes, next_token_loss
from loci.budget.plan import PRECISIONS, Plan, fuses, is_zeroth_order, member, optimizers
from loci.budget.simulate import dearest, simulate, warm
from loci.budget.subject import subject
from loci.budget.training import Training, build
from loci.core import formula

torch.set_num_threads(1)
CPU = device("cpu")
GRID = list(product(PRECISIONS[:2] + PRECISIONS[3:], (False, True), (1, 2)))  # fp16-mixed is bf16-mixed and a scaler


def tiny():
    return GPT(Sizes(2, 16, 2, V=32, T=16)), torch.zeros(4, 9, dtype=torch.long), next_token_loss


def wide():
    return GPT(Sizes(3, 64, 4, V=128, T=64)), torch.zeros(8, 65, dtype=torch.long), next_token_loss


class Map(nn.Module):
    """One matrix in a block."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(24, 24, bias=False)

    def forward(self, x):
        return self.linear(x).relu()


def matrices():
    return nn.Sequential(*(Map() for _ in range(3))), torch.zeros(4, 24), lambda model, x: model(x).square().mean()


@pytest.fixture(scope="module")
def parts():
    """Forecasts whose simulated parts all tests share."""
    return Forecasts(subject(tiny), CPU)


def whole(plan, where=CPU):
    peak = simulate(subject(tiny), plan, where).peak()
    return peak.plus("temporaries", where.workspace)


def plans_of(name):
    """A plan of each kind that an optimizer has."""
    yield Plan(name)
    if not is_zeroth_order(name):
        yield Plan(name, "bf16", checkpointing=True, micro_batches=2)
    if fuses(name):
        yield Plan(name, "fp32", fused=True)


@pytest.mark.parametrize("plan", [plan for name in optimizers() for plan in plans_of(name)], ids=str)
def test_every_optimizer_composed_is_simulated(plan, parts):
    assert parts.peak(plan).bytes == whole(plan).bytes


@pytest.mark.parametrize(("precision", "checkpointing", "micro"), GRID)
def test_all_passes_composed_are_simulated(precision, checkpointing, micro, parts):
    plan = Plan("galore", precision, checkpointing, micro)
    assert parts.peak(plan).bytes == whole(plan).bytes


@pytest.mark.parametrize("plan", [Plan(), Plan("galore", "bf16-mixed", True, 2), Plan("lamb", fused=True)], ids=str)
def test_with_the_rounding_of_cuda_too(plan):
    cuda = device("cuda")
    assert Forecasts(subject(tiny), cuda).peak(plan).bytes == whole(plan, cuda).bytes


def test_the_split_sums_to_the_peak(parts):
    for plan in (Plan(), Plan("galore", micro_batches=4), Plan("sgd-sai", "bf16", fused=True), Plan("mezo")):
        peak = parts.peak(plan)
        assert sum(peak.split.values()) == peak.bytes
        assert min(peak.split.values()) >= 0


def test_parameters_and_gradients_are_the_models_own(parts):
    size = sum(p.nbytes for p in tiny()[0].parameters())
    assert parts.peak(Plan()).split["parameters"] == size
    assert parts.peak(Plan("adamw", "bf16")).split["parameters"] == size // 2
    assert parts.peak(Plan("adamw", micro_batches=4)).split["gradients"] == size
    assert parts.peak(Plan("mezo")).split["gradients"] == 0
    assert parts.peak(Plan("lamb", fused=True)).split["gradients"] < size / 2


def test_what_a_plan_is_for_it_brings():
    parts = Forecasts(subject(wide), CPU)
    plain = parts.peak(Plan())
    assert parts.peak(Plan(checkpointing=True)).split["activations"] < plain.split["activations"] / 2
    assert parts.peak(Plan(micro_batches=8)).split["activations"] < plain.split["activations"] / 4
    assert parts.peak(Plan("galore")).split["optimizer"] < plain.split["optimizer"]
    assert parts.flops(Plan("mezo")) * 3 == parts.flops(Plan()) * 2
    assert parts.flops(Plan()) < parts.flops(Plan(checkpointing=True)) < parts.flops(Plan()) * 4 / 3 + 1


def test_products_are_counted_by_hand():
    parts = Forecasts(subject(matrices), CPU)
    forward, of_inputs, of_weights = 3, 2, 3  # the first layer's input needs no gradient
    assert parts.flops(Plan()) == (forward + of_inputs + of_weights) * 2 * 4 * 24 * 24


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", list(optimizers()))
def test_state_is_what_the_card_says(name, half):
    b, numbers = (2, "bf16") if half else (4, "fp32")
    model = matrices()[0]
    group = build(Plan(name), model, {}).param_groups[-1]
    said = {"adamw": "2*b*m*n + 4", "sgd": "b*m*n"}.get(name) or member(name).card.bytes
    sizes = {"m": 24, "n": 24, "b": b, "r": group.get("rank"), "s": group.get("history")}
    each = formula.evaluate(said, {name: size for name, size in sizes.items() if size is not None})
    found = Forecasts(subject(matrices), CPU).peak(Plan(name, numbers))
    assert found.split["optimizer"] == 3 * each


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan("galore", "bf16-mixed", checkpointing=True, micro_batches=2),
        Plan("sgd-sai", fused=True),
        Plan("mezo", "bf16"),
    ],
    ids=str,
)
def test_the_allocator_agrees_within_three_percent(plan, tmp_path):
    foreseen = Forecasts(subject(wide), CPU).peak(plan).bytes
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        training = Training(subject(wide), plan)
        with record_function("counted"):
            for _ in range(warm(training.optimizer)):
                training.step(training.batch)
            dearest(training.optimizer)
            training.step(training.batch)
    watched.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text("utf-8"))["traceEvents"]
    (start,) = (event["ts"] for event in events if event.get("name") == "counted" and event.get("ph") == "X")
    live = peak = 0
    for event in sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"]):
        live += event["args"]["Bytes"]
        peak = max(peak, live) if event["ts"] >= start else live
    assert foreseen == pytest.approx(peak, rel=0.03)
