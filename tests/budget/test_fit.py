"""`loci.fit`: targets, budgets at the byte, the order of plans, bad input, JSON and pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from xml.etree import ElementTree as ET

import pytest

torch = pytest.importorskip("torch")

from torch import nn

import loci
from loci.budget.plan import Plan
from loci.core.errors import BudgetExceeded
from loci.core.sizes import show

torch.set_num_threads(1)
LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 32, "max_position_embeddings": 32,
}  # fmt: skip
GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 32, "n_positions": 32}


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"])


def net():
    return (
        nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)),
        {"x": torch.zeros(4, 12), "y": torch.zeros(4).long()},
        loss,
    )


def few(target, budget=None, *, optimizer=("adamw",), precision=("fp32",), **options):
    return loci.fit(target, budget, device="cpu", optimizer=list(optimizer), precision=list(precision), **options)


@pytest.fixture(scope="module")
def found():
    return few(net, optimizer=("adamw", "galore", "sgd-sai", "mezo"), precision=("fp32", "bf16"))


def config(folder, said):
    path = folder / said["model_type"] / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(said), "utf-8")
    return path


def test_a_preset():
    fit = few("gpt:nano", batch=(1, 8), optimizer=("sgd",))
    V, T, D, layers = 256, 256, 128, 4
    block = 4 * D + (3 * D * D + 3 * D) + (D * D + D) + (4 * D * D + 4 * D) + (4 * D * D + D)
    assert fit.parameters == V * D + T * D + layers * block + 2 * D
    assert fit.best.split["parameters"] == 4 * fit.parameters


@pytest.mark.parametrize(("said", "given"), [(LLAMA, "file"), (GPT2, "folder")], ids=["llama", "gpt2"])
def test_a_configuration_of_transformers(said, given, tmp_path):
    transformers = pytest.importorskip("transformers")
    path = config(tmp_path, said)
    fit = few(path if given == "file" else str(path.parent), batch=(2, 8), optimizer=("sgd",))
    options = {key: value for key, value in said.items() if key != "model_type"}
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(said["model_type"], **options)
    )
    assert fit.parameters == sum(p.numel() for p in model.parameters())
    assert (fit.subject.rows, fit.subject.tokens) == (2, 32)
    assert {one.plan.checkpointing for one in fit.forecasts} == {False, True}


def test_a_function_and_its_name(tmp_path, monkeypatch):
    (tmp_path / "a_module_of_users.py").write_text(
        "import torch\ndef made():\n    return torch.nn.Linear(3, 2), torch.zeros(4, 3), lambda m, x: m(x).sum()\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    fit = few("a_module_of_users:made")
    assert fit.parameters == 8
    assert {one.plan.micro_batches for one in fit.forecasts} == {1, 2, 4}
    assert not any(one.plan.checkpointing for one in fit.forecasts), "it has no blocks"
    assert few(net).parameters == 12 * 8 + 8 + 8 * 3 + 3


def half():
    return nn.Linear(4, 4).half(), torch.zeros(2, 4).half(), lambda model, x: model(x).sum()


def sparse():
    return nn.Embedding(9, 4, sparse=True), torch.zeros(2, 3, dtype=torch.long), lambda model, x: model(x).sum()


def uneven():
    model, _, loss = net()
    return model, {"x": torch.zeros(4, 12), "y": torch.zeros(3).long()}, loss


BAD = {
    "preset": (("gpt:9b",), {}, r"'gpt:9b' is unknown; choose one of gpt:nano, gpt:125m"),
    "long": (("gpt:nano",), {"batch": (1, 512)}, r"longer than the 256 tokens of gpt:nano"),
    "file": (("none/config.json",), {}, r"is no file, preset or function"),
    "module": (("no_such_module:made",), {}, r"cannot be imported"),
    "optimizer": ((net,), {"optimizer": ("adam",)}, r"optimizer='adam' is unknown; choose one of adamw, sgd, apollo"),
    "precision": ((net,), {"precision": ("fp16",)}, r"precision='fp16' is unknown; choose one of fp32, bf16-mixed"),
    "size": ((net, "many"), {}, r"budget='many' is not a size"),
    "weights": (
        (net, 500),
        {},
        r"budget=500 B is below the 524 B of the 131 parameters|below the 524 B of the 131 weights",
    ),
    "batch": ((net,), {"batch": (1, 2)}, r"beside a function, which returns its own"),
    "options": ((net,), {"optimizer": ("adamw", "sgd"), "options": {"lr": 1.0}}, r"are for one optimizer"),
    "rank": (
        (net,),
        {"optimizer": ("galore",), "options": {"rank": 99}},
        r"rank=99 does not fit .*; choose 1 <= rank <= 8",
    ),
    "float16": ((half,), {"optimizer": ("galore",)}, r"is float16, in which squared gradients underflow"),
    "rows": ((uneven,), {}, r"have \[3, 4\] rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_sentence(case):
    given, options, said = BAD[case]
    with pytest.raises(ValueError, match=said) as caught:
        few(*given, **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_device():
    with pytest.raises(ValueError, match=r"device='tpu' is unknown; choose cpu or cuda"):
        loci.fit(net, device="tpu")


@pytest.mark.parametrize("text", ["{", "[]", '{"hidden_size": 3}', '{"model_type": "no-such-model"}'])
def test_a_file_that_is_no_configuration(text, tmp_path):
    pytest.importorskip("transformers")
    path = tmp_path / "config.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"not a model configuration|does not know"):
        few(path)


def test_a_function_that_returns_something_else():
    with pytest.raises(TypeError, match=r"return a module, a batch and loss"):
        few(lambda: nn.Linear(2, 2))


def test_the_smallest_budget_is_right_to_the_byte(found):
    least = found.smallest.bytes
    exact = few(net, least, optimizer=[found.smallest.plan.optimizer], precision=("bf16",))
    assert {one.bytes for one in exact.fitting} == {least}
    none = few(net, least - 1, optimizer=[found.smallest.plan.optimizer], precision=("bf16",))
    assert none.best is None
    assert (
        f"the smallest budget that would do is {least} bytes ({show(least)}), with {found.smallest.plan}" in none.advice
    )
    with pytest.raises(BudgetExceeded) as caught:
        none.timeline()
    assert (caught.value.needed, caught.value.limit) == (least, least - 1)


def test_nothing_fits_names_the_cheapest_change():
    wide = few("gpt:nano", batch=(1, 64), optimizer=("sgd",))
    none = few("gpt:nano", wide.smallest.bytes - 1, batch=(1, 64), optimizer=("sgd",))
    assert "; or cut rows to 32 tokens" in none.advice or "; no shorter rows would do" in none.advice


def test_the_best_fits_and_what_is_preferred_to_it_does_not(found):
    sizes = sorted({one.bytes for one in found.forecasts})
    for budget in (sizes[0], sizes[len(sizes) // 2], sizes[-1]):
        bound = replace(found, budget=budget)
        assert bound.best.bytes <= budget
        place = found.forecasts.index(bound.best)
        assert all(one.bytes > budget for one in found.forecasts[:place])
        assert list(bound.fitting) == [one for one in found.forecasts if one.bytes <= budget]
    assert found.best.plan == Plan("adamw"), "nothing is given up where there is no budget"


def test_what_is_given_up_is_told(found):
    told = {one.plan: " ".join(one.gives_up) for one in found.forecasts}
    assert told[Plan()] == ""
    assert "16" in told[Plan("adamw", "bf16")]
    assert "4 passes" in told[Plan(micro_batches=4)]
    assert "clipping" in told[Plan("galore", fused=True)]
    assert "many more steps" in told[Plan("mezo")]


def test_json_holds_everything(found):
    said = found.as_json()
    assert json.loads(json.dumps(said)) == said
    assert len(said["plans"]) == len(found.forecasts)
    for row, one in zip(said["plans"], found.forecasts, strict=True):
        assert sum(row["split"].values()) == row["bytes"] == one.bytes
        assert Plan(**{name: row[name] for name in asdict(one.plan)}) == one.plan
        assert row["fits"]
    assert said["best"] == said["plans"][0]


def test_the_picture_is_drawn_and_its_areas_sum_to_the_peak(found, tmp_path):
    pytest.importorskip("matplotlib")
    plans = [found.best.plan, Plan("galore", fused=True)]
    found.plot(tmp_path / "step.png", plans=plans)
    found.plot(tmp_path / "step.svg", plans=plans)
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert ET.parse(tmp_path / "step.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    foreseen = {one.plan: one.bytes for one in found.forecasts}
    for plan in plans:
        step = found.timeline(plan)
        assert step.curves().sum(axis=0).max() == step.peak().bytes == foreseen[plan]
        assert f"{plan}: {show(foreseen[plan])} at its peak" in (tmp_path / "step.svg").read_text("utf-8")
    with pytest.raises(ValueError, match=r"is neither \.png nor \.svg"):
        found.plot(tmp_path / "step.gif")


@pytest.mark.slow
def test_seven_billion_parameters_are_planned_in_eight_gigabytes():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 * 10**9,) * 2); import loci, torch; torch.set_num_threads(1)\n"
        "found = loci.fit('gpt:7b', '24GB', batch=(1, 1024), optimizer=['adamw', 'galore'], precision=['bf16'])\n"
        "print(found.parameters, found.best.plan.optimizer, found.best.bytes)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parameters, optimizer, size = done.stdout.split()
    assert 6.5e9 < int(parameters) < 7.5e9
    assert optimizer == "galore"
    assert 2 * int(parameters) < int(size) <= 24e9
