"""Training under a plan: every optimizer learns, plans that should be equal are, and data come in the forms they have."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

import loci
from loci.budget.plan import PRECISIONS, Plan, fuses, optimizers
from loci.budget.rows import batches
from loci.budget.subject import subject
from loci.budget.training import Training
from tests.budget.small import ROWS, TOKENS, T, averages, batch, dropping, exact, words

torch.set_num_threads(1)
SIZES = {  # step sizes that fit so small a model; the others' defaults do
    "galore-sgd": 1.0, "lamb": 0.02, "lars": 0.1, "lars-2017": 5.0, "mezo": 0.01, "natural-galore": 0.02, "sgd": 0.1,
}  # fmt: skip


def two_rows():
    model, x, loss = words()
    return model, x[:2], loss


def trained(target, plan, steps=5, **options):
    """A training after a few steps, its losses, and its weights as one vector."""
    torch.manual_seed(0)
    training = Training(subject(target), plan, options=options)
    losses = [float(training.step(batch(number))) for number in range(steps)]
    return losses, nn.utils.parameters_to_vector(training.model.parameters()).detach()


def moved(target, weights):
    torch.manual_seed(0)
    return float((nn.utils.parameters_to_vector(target()[0].parameters()).detach() - weights).abs().max())


@pytest.fixture(scope="module")
def fit():
    return loci.fit(words, device="cpu", optimizer=["sgd"], precision=["fp32"], options={"lr": 0.1})


@pytest.mark.parametrize("name", list(optimizers()))
def test_every_optimizer_trains(name):
    options = {"lr": SIZES[name]} if name in SIZES else {}
    fit = loci.fit(two_rows, device="cpu", optimizer=[name], precision=["fp32"], options=options)
    seen = []
    fixed = batch(0)[:2]
    steps = 150 if name == "mezo" else 40
    done = fit.train([fixed], steps=steps, report=seen.append)
    assert done.losses[-1] < 0.9 * done.losses[0]
    assert all(map(math.isfinite, done.losses))
    assert [now.step for now in seen] == list(range(1, steps + 1))
    assert [now.loss for now in seen] == done.losses
    assert done.plan == fit.best.plan
    assert not done.notes
    assert done.peak == seen[-1].peak
    assert done.foreseen == seen[-1].foreseen == fit.best.bytes
    assert done.peak <= 1.03 * done.foreseen


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_trains(precision):
    fit = loci.fit(words, device="cpu", optimizer=["sgd"], precision=[precision], options={"lr": 0.1})
    done = fit.train([batch(0)], steps=30)
    assert done.losses[-1] < 0.8 * done.losses[0]
    held = {param.dtype for param in done.model.parameters()}
    assert held == {torch.bfloat16 if precision == "bf16" else torch.float32}


@pytest.mark.parametrize("name", ["sgd", "adamw", "galore", "lamb", "sgd-sai", "mezo"])
def test_parts_of_a_batch_are_the_whole_batch(name):
    whole, weights = trained(exact, Plan(name))
    assert moved(exact, weights) > (1e-6 if name == "mezo" else 1e-4)
    for parts in (2, 4):
        losses, others = trained(exact, Plan(name, micro_batches=parts))
        assert losses == pytest.approx(whole, abs=1e-10)
        assert (others - weights).abs().max() < 1e-8


def test_parts_of_a_batch_are_the_whole_batch_in_float32():
    whole, weights = trained(words, Plan("sgd"))
    losses, others = trained(words, Plan("sgd", micro_batches=4))
    assert losses == pytest.approx(whole, abs=1e-5)
    assert (others - weights).abs().max() < 1e-5


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "bf16"])
def test_recomputed_blocks_give_the_same_run_to_the_bit(precision):
    """Under dropout too: the second pass draws what the first one drew."""
    whole, weights = trained(dropping, Plan("adamw", precision))
    losses, others = trained(dropping, Plan("adamw", precision, checkpointing=True))
    assert losses == whole
    assert torch.equal(others, weights)


@pytest.mark.parametrize("name", [name for name in optimizers() if fuses(name)])
def test_a_fused_backward_gives_the_same_run(name):
    whole, weights = trained(words, Plan(name), lr=0.01)
    losses, others = trained(words, Plan(name, fused=True), lr=0.01)
    assert moved(words, weights) > 1e-4
    assert losses == pytest.approx(whole, abs=1e-5)
    assert (others - weights).abs().max() < 1e-5


def test_a_plan_changes_midway_as_if_it_had_been_so():
    torch.manual_seed(0)
    training = Training(subject(dropping), Plan("galore"))
    losses = []
    for number, plan in enumerate(
        [
            Plan("galore"),
            Plan("galore", checkpointing=True),
            Plan("galore", checkpointing=True, fused=True),
            Plan("galore"),
        ]
    ):
        training.replan(plan)
        losses.append(float(training.step(batch(number))))
    assert losses == pytest.approx(trained(dropping, Plan("galore"), 4)[0], abs=1e-5)


def test_losses_alone_are_taken_without_dropout():
    losses, _ = trained(dropping, Plan("mezo"))
    assert losses == trained(words, Plan("mezo"))[0]


def test_a_step_that_overflows_is_left_out_by_the_scaler():
    torch.manual_seed(0)
    training = Training(subject(words), Plan("adamw", "fp16-mixed"))
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = copy.deepcopy(training.model.state_dict())
    training.step(batch(0))
    assert all(torch.equal(now, before[name]) for name, now in training.model.state_dict().items())
    assert not training.optimizer.state
    assert training.scaler.get_scale() == 2.0**39
    training.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    training.step(batch(0))
    assert not torch.equal(training.model.head.weight, before["head.weight"])


def test_running_means_are_trained_too():
    fit = loci.fit(averages, device="cpu", optimizer=["sgd"], precision=["fp32"])
    done = fit.train(lambda number: torch.randn(64, 32, generator=torch.Generator().manual_seed(number)), steps=3)
    assert int(done.model.layers[0][1].num_batches_tracked) == 3
    assert done.peak == done.foreseen


def test_a_batch_cut_from_a_large_set_costs_its_own_bytes(fit):
    many = torch.cat([batch(number) for number in range(500)])
    done = fit.train(list(many.split(ROWS)), steps=2)
    assert done.peak == done.foreseen


# What data may be


def test_tokens_a_text_and_a_file_of_tokens_are_the_same_windows(tmp_path):
    codes = np.frombuffer(b"to remember, put things in places. " * 20, np.uint8).astype(np.int64)
    text, array = tmp_path / "a.txt", tmp_path / "a.npy"
    text.write_bytes(bytes(codes.astype(np.uint8)))
    np.save(array, codes.astype(np.int32))
    forms = [torch.from_numpy(codes), torch.from_numpy(codes.astype(np.int32)), text, str(text), array]
    made = [batches(form, rows=3, window=9, tokens=256, seed=5) for form in forms]
    rows = [[one(number) for number in (0, 1, 7)] for one in made]
    for held in rows:
        assert all(torch.equal(one, two) for one, two in zip(held, rows[0], strict=True))
    windows = {tuple(codes[start : start + 9]) for start in range(len(codes) - 8)}
    assert all(tuple(row.tolist()) in windows for held in rows[0] for row in held)
    assert rows[0][0].shape == (3, 9)
    assert not torch.equal(rows[0][0], rows[0][1])
    assert not torch.equal(rows[0][0], batches(forms[0], rows=3, window=9, tokens=256, seed=6)(0))


def test_windows_reach_both_ends_of_a_text():
    codes = torch.arange(12)
    rows = torch.cat([batches(codes, rows=8, window=9, tokens=None, seed=0)(number) for number in range(20)])
    assert set(rows[:, 0].tolist()) == {0, 1, 2, 3}


def test_a_preset_trains_on_a_text(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("to remember, put things in places. " * 30, "utf-8")
    fit = loci.fit("gpt:nano", batch=(2, 16), device="cpu", optimizer=["adamw"], precision=["fp32"])
    done = fit.train(text, steps=20)
    assert done.losses[-1] < done.losses[0] - 1
    assert done.peak == done.foreseen


def test_a_list_of_batches_is_gone_round(fit):
    listed = [batch(0), batch(1), batch(2)]
    told = fit.train(listed, steps=5).losses
    assert (
        told == fit.train(lambda number: batch(number % 3), steps=5).losses == fit.train(tuple(listed), steps=5).losses
    )


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (iter([1]), "data is list_iterator; give a list of batches"),
        ([], "data is list; give a list of batches"),
        (None, "data is NoneType"),
        (torch.zeros(4, 9), "data is Tensor"),
        (torch.zeros(90, dtype=torch.long), "tokens were given, but the target takes no rows of text"),
        ("no/such/file.txt", "is no file; give a text or a .npy of tokens"),
    ],
    ids=["iterator", "empty", "nothing", "rows", "tokens", "no file"],
)
def test_data_of_another_form_are_refused_before_anything_is_written(fit, tmp_path, data, says):
    with pytest.raises(ValueError, match=says):
        fit.train(data, steps=2, checkpoints=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        (torch.arange(8), "the text has 8 tokens, a row takes 9"),
        (torch.arange(40), "the text has token 39, the model knows 20"),
        (torch.arange(-1, 15), "the text has token -1"),
        (torch.zeros(0, dtype=torch.long), "the text has 0 tokens"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(codes, says):
    with pytest.raises(ValueError, match=says):
        batches(codes, rows=2, window=9, tokens=TOKENS, seed=0)


@pytest.mark.parametrize("array", [np.zeros((3, 4), np.int64), np.zeros(30)], ids=["two axes", "floats"])
def test_an_array_that_is_no_row_of_integers_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="give one row of integers"):
        batches(tmp_path / "a.npy", rows=2, window=9, tokens=None, seed=0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": -1}, "steps=-1"),
        ({"every": 0}, "every=0"),
        ({"plan": Plan("adamw")}, "plan adamw, fp32 is none of those that were weighed"),
        ({"plan": Plan("sgd", micro_batches=3)}, "none of those that were weighed"),
    ],
)
def test_options_that_cannot_be_are_refused(fit, tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        fit.train(batch, checkpoints=tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_rows_that_parts_do_not_divide_are_refused(fit):
    with pytest.raises(ValueError, match="2 micro-batches do not divide 3 rows; choose a divisor"):
        fit.train(lambda number: batch(number)[:3], steps=1, plan=Plan("sgd", micro_batches=2))


def test_an_error_of_the_users_own_passes(fit):
    def broken(number):
        if number == 1:
            raise RuntimeError("the disk is gone")
        return batch(number)

    with pytest.raises(RuntimeError, match="the disk is gone"):
        fit.train(broken, steps=3)
    with pytest.raises(IndexError, match="out of range"):
        fit.train(lambda number: batch(number) + TOKENS, steps=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_plan_for_a_device_that_is_not_here_is_refused():
    fit = loci.fit(words, optimizer=["sgd"], precision=["fp32"])
    with pytest.raises(ValueError, match="planned for cuda, which is not here; plan with device='cpu'"):
        fit.train(batch, steps=1)


def test_a_model_that_was_made_before_is_refused_and_left_alone():
    model = words()[0]
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="returned a model that was made before; build it inside"):
        loci.fit(lambda: (model, torch.zeros(ROWS, T + 1, dtype=torch.long), words()[2]), device="cpu")
    assert all(torch.equal(held, before[name]) for name, held in model.state_dict().items())
    assert all(param.grad is None for param in model.parameters())


def test_a_rank_larger_than_the_matrix_is_refused():
    with pytest.raises(ValueError, match=r"rank=64 does not fit .*choose 1 <= rank <= 16"):
        loci.fit(words, device="cpu", optimizer=["galore"], precision=["fp32"], options={"rank": 64})
