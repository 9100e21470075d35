"""Optimizers inside other people's loops: transformers' Trainer and Accelerate, on a tiny random model, offline."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
accelerate = pytest.importorskip("accelerate")

from torch import nn

from loci.weights.optim import optimizers
from loci.weights.optim.base import split

torch.set_num_threads(1)
NAMES = [name for name, member in optimizers().items() if not member.zeroth_order]  # MeZO's step needs a closure
ROWS = [{"input_ids": row, "labels": row} for row in (torch.arange(12 * 8).view(12, 8) * 7 % 32)]


def tiny():
    """A random Llama of two layers."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=32, max_position_embeddings=16, num_key_value_heads=2, **sizes)
    )


def built(name, model):
    """The member with the options of its card; where it has a rank, the layers' matrices are projected."""
    member = optimizers()[name]
    options = dict(member.card.example)
    options["lr"] /= 10
    if "rank" in options:
        return member(split(model, [r"(attn|mlp).*weight"], rank=options.pop("rank")), **options)
    return member(model.parameters(), **options)


def trainer(name, folder, steps):
    model = tiny()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=steps, save_steps=3, per_device_train_batch_size=2, logging_steps=1,
        report_to=[], use_cpu=True, disable_tqdm=True, lr_scheduler_type="linear", seed=3, dataloader_pin_memory=False,
    )  # fmt: skip
    return transformers.Trainer(model, arguments, train_dataset=ROWS, optimizers=(built(name, model), None))


def losses(run):
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_trainer_trains_saves_and_goes_on_to_the_bit(name, tmp_path):
    whole = trainer(name, tmp_path, 6)
    whole.train()
    assert type(whole.optimizer.optimizer) is optimizers()[name]
    assert not same(whole.model, tiny())
    assert all(torch.isfinite(torch.tensor(losses(whole))))
    assert len(losses(whole)) == 6
    again = trainer(name, tmp_path, 6)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert losses(again) == losses(whole)
    assert same(again.model, whole.model)


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_accumulates_as_one_large_batch(name):
    plain = tiny()
    optimizer = built(name, plain)
    rows = torch.stack([row["input_ids"] for row in ROWS])
    for four in rows.split(4):
        optimizer.zero_grad()
        plain(input_ids=four, labels=four).loss.backward()
        optimizer.step()

    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = tiny()
    loader = torch.utils.data.DataLoader(rows, batch_size=2)
    model, stepper, loader = accelerator.prepare(model, built(name, model), loader)
    for two in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(input_ids=two, labels=two).loss)
            stepper.step()
            stepper.zero_grad()
    gaps = [(a - b).detach().abs().max() for a, b in zip(model.parameters(), plain.parameters(), strict=True)]
    assert max(gaps) < 1e-5
    assert not same(plain, tiny())


def test_accelerate_saves_and_goes_on_to_the_bit(tmp_path):
    def prepared():
        accelerator, model = accelerate.Accelerator(cpu=True), tiny()
        return accelerator, *accelerator.prepare(model, built("galore-8bit", model))

    def step(accelerator, model, optimizer, row):
        accelerator.backward(model(input_ids=row[None], labels=row[None]).loss)
        optimizer.step()
        optimizer.zero_grad()

    one, two = prepared(), prepared()
    for row in ROWS[:6]:
        step(*one, row["input_ids"])
    one[0].save_state(str(tmp_path))
    two[0].load_state(str(tmp_path))
    for run in (one, two):
        for row in ROWS[6:]:
            step(*run, row["input_ids"])
    assert same(one[1], two[1])


def test_a_scheduler_of_the_trainer_sets_the_step_size(tmp_path):
    run = trainer("apollo", tmp_path, 4)
    run.train()
    assert {group["lr"] for group in run.optimizer.param_groups} == {0.0}


def test_mezo_in_a_trainer_says_what_it_needs(tmp_path):
    run = trainer("mezo", tmp_path, 1)
    with pytest.raises(ValueError, match="got no closure; give one that returns the loss"):
        run.train()


def test_float16_weights_are_refused_and_scaled_gradients_are_not():
    """float16 belongs under autocast with a GradScaler; its weights alone are refused by name."""
    with pytest.raises(ValueError, match=r"'model.embed_tokens.weight' \(32, 16\) is float16.*GradScaler"):
        optimizers()["galore"](tiny().half().named_parameters())
    model = tiny()
    optimizer, scaler = built("galore", model), torch.amp.GradScaler("cpu", init_scale=2.0**10)
    rows = ROWS[0]["input_ids"][None]
    with torch.autocast("cpu", torch.float16):
        loss = model(input_ids=rows, labels=rows).loss
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert not same(model, tiny())


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_that_overflowed_leaves_weights_and_state(name):
    """GradScaler leaves the step out; the next one is as if it had never been."""
    model = tiny()
    optimizer = built(name, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for param in model.parameters():
        param.grad = torch.full_like(param, float("inf"))
    scaler.scale(torch.zeros(()))
    scaler.step(optimizer)
    assert same(model, tiny())
    assert not optimizer.state


def test_tied_weights_are_one_parameter():
    """A model that ties its head to its embedding gives it once; given twice it is refused by shape."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=32, n_positions=16)
    model = transformers.GPT2LMHeadModel(config)
    assert model.lm_head.weight is model.transformer.wte.weight
    optimizer = built("galore", model)
    rows = ROWS[0]["input_ids"][None]
    model(input_ids=rows, labels=rows).loss.backward()
    optimizer.step()
    assert model.lm_head.weight is model.transformer.wte.weight
    with pytest.raises(ValueError, match=r"\(32, 16\) is given twice, as tied weights are"):
        optimizers()["galore"]([model.lm_head.weight, model.transformer.wte.weight])


def test_a_sparse_embedding_is_refused_and_nothing_moves():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(8, 4, sparse=True), nn.Linear(4, 4))
    optimizer = optimizers()["apollo"](model.named_parameters(), rank=2)
    before = [param.detach().clone() for param in model.parameters()]
    model(torch.tensor([1, 2])).square().sum().backward()
    with pytest.raises(ValueError, match=r"gradient of parameter '0.weight' \(8, 4\) is sparse.*SparseAdam"):
        optimizer.step()
    assert all(torch.equal(param, held) for param, held in zip(model.parameters(), before, strict=True))
    assert not optimizer.state
