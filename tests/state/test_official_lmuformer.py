"""LMUFormer and its spiking form beside their authors' code: whole models in training, in evaluation and as streams.

zeyuliu1037/LMUFormer at 5debaddf65a0d39cd09aa17a2e4c34b364e9040e, lmu_rnn_conv1d and slmu_rnn_ms_conv1d (num_classes=3,
in_channels=6, embed_dims=8, mlp_ratios=4, depths=2), in float64 on the CPU (what they call .float() read as .double()) with
SpikingJelly 0.0.0.0.14, neurons on its torch backend, and stand-ins for what they import of timm. Parameter i of
named_parameters is `wave` with k = 1.1 + i/100, and 1 more where it scales a normalisation; in the spiking model what shifts
one is 1/2 more. Running mean and variance of normalisation i are `wave` with k = 0.21 + i/100, and 1 more than that with
k = 0.31 + i/100. For evaluation the biases that our models lack, since a normalisation cancels them in training, are 0.
"all" are the logits of test_mode="all_seq" on row 1, after frames 0, 50 and 127.
"""

from __future__ import annotations

from itertools import chain

import pytest

torch = pytest.importorskip("torch")

from loci.state.classifier.delayed import DELAY
from loci.state.classifier.lmuformer import LMUFormer
from loci.state.classifier.spiking_lmuformer import SpikingLMUFormer
from tests.state.official import DOUBLE, close, wave

torch.set_num_threads(1)

PLAIN = {
    "training": [[3.407686741259706, 3.3245218577360447, 3.1284892330960945],
        [2.964606610020077, 2.901718666682947, 2.7376388595447136],
        [3.576423111819075, 3.4540879619219615, 3.2153070517055493]],
    "evaluation": [[10.162528893601062, 8.984221639832263, 7.5367517973800435],
        [10.153414810318187, 8.975911771984896, 7.52947562525486],
        [10.156060720231666, 8.977750328772121, 7.5304560564431124]],
    "all": [[10.384451615803878, 9.16284497428083, 7.667142990058347],
        [10.829519783316035, 9.60890422975312, 8.101875230760214],
        [10.153414810318187, 8.975911771984899, 7.529475625254862]],
    "norms": {
        "embedding.convs.0.weight": 28.539235838587874,
        "embedding.norms.3.weight": 0.30180950507439264,
        "embedding.convs.4.weight": 1.4937418105714366,
        "blocks.0.lmu.inward.weight": 0.5169333464734155,
        "blocks.0.lmu.outward.weight": 1.0401234087500257,
        "blocks.0.out.weight": 0.368196676245965,
        "blocks.1.wide.weight": 0.482460037284742,
        "blocks.1.narrow.weight": 0.28243354446642494,
    },
}  # fmt: skip
SPIKING = {
    "training": [[0.8796314617307058, -0.07563677364959306, -0.7708113759497635],
        [0.8358930148938256, -0.05205134367926102, -0.7132607116942509],
        [0.9412998815690086, -0.05491333832328711, -0.820343633981902]],
    "evaluation": [[0.9348803370334244, -0.013970418733654583, -0.7899468921750812],
        [0.89268418173407, -0.0231058475007754, -0.7531006723444728],
        [0.9420489090982463, -0.023025215673154326, -0.8024181796946247]],
    "all": [[0.49285958941777674, -0.16599259411036726, -0.43695413096451097],
        [0.8560390368651589, -0.052263083308657865, -0.7335307336859801],
        [0.89268418173407, -0.02310584750077538, -0.7531006723444726]],
    "norms": {
        "embedding.convs.0.weight": 0.8266914711492549,
        "embedding.convs.4.weight": 0.30934918096267916,
        "blocks.0.signal.weight": 0.6146540004708603,
        "blocks.0.read.weight": 0.28159186455836105,
        "blocks.0.out.weight": 0.14268714659185203,
        "blocks.1.wide.weight": 0.04133682698397027,
        "blocks.1.narrow.weight": 0.03687229553009007,
    },
}  # fmt: skip

MADE_PLAIN = [  # our names in the order of theirs, None for what a normalisation cancels
    *chain.from_iterable(
        (f"embedding.convs.{k}.weight", f"embedding.norms.{k}.weight", f"embedding.norms.{k}.bias") for k in range(4)
    ),
    "embedding.convs.4.weight",
    *chain.from_iterable(
        (
            f"blocks.{k}.lmu.inward.weight", f"blocks.{k}.lmu.inward.bias",
            f"blocks.{k}.lmu.outward.weight", f"blocks.{k}.lmu.outward.bias",
            f"blocks.{k}.out.weight", None, f"blocks.{k}.out_norm.weight", f"blocks.{k}.out_norm.bias",
            f"blocks.{k}.wide.weight", None, f"blocks.{k}.wide_norm.weight", f"blocks.{k}.wide_norm.bias",
            f"blocks.{k}.narrow.weight", None, f"blocks.{k}.narrow_norm.weight", f"blocks.{k}.narrow_norm.bias",
        ) for k in range(2)
    ),
    "head.weight", "head.bias",
]  # fmt: skip
MADE_SPIKING = [
    "embedding.convs.0.weight",
    *chain.from_iterable(
        (f"embedding.fires.{k}.norm.weight", f"embedding.fires.{k}.norm.bias", f"embedding.convs.{k + 1}.weight")
        for k in range(4)
    ),
    *chain.from_iterable(
        (
            f"blocks.{k}.signal.weight", None, f"blocks.{k}.read.weight", None,
            f"blocks.{k}.tell.norm.weight", f"blocks.{k}.tell.norm.bias",
            f"blocks.{k}.recall.norm.weight", f"blocks.{k}.recall.norm.bias",
            f"blocks.{k}.show.norm.weight", f"blocks.{k}.show.norm.bias",
            f"blocks.{k}.enter.norm.weight", f"blocks.{k}.enter.norm.bias",
            f"blocks.{k}.out.weight", None, f"blocks.{k}.out_norm.weight", None,
            f"blocks.{k}.mix.norm.weight", f"blocks.{k}.mix.norm.bias", f"blocks.{k}.wide.weight", None,
            f"blocks.{k}.spread.norm.weight", f"blocks.{k}.spread.norm.bias", f"blocks.{k}.narrow.weight", None,
        ) for k in range(2)
    ),
    "fire.norm.weight", "fire.norm.bias", "head.weight", "head.bias",
]  # fmt: skip
MODELS = pytest.mark.parametrize(
    ("kind", "N", "names", "official"),
    [(LMUFormer, 8, MADE_PLAIN, PLAIN), (SpikingLMUFormer, 16, MADE_SPIKING, SPIKING)],
)


@torch.no_grad()
def made(kind, N, names):
    """The model with their weights, as our own names have them."""
    model = kind(6, 8, classes=3, N=N, theta=128.0, depth=2, ratio=4).to(DOUBLE)
    assert {name for name in names if name} == {name for name, _ in model.named_parameters()}
    shifted = 0.5 if kind is SpikingLMUFormer else 0.0
    for at, name in enumerate(names):
        if name:
            param, of_norm = model.get_parameter(name), "norm" in name
            added = 1.0 if name.endswith("weight") else shifted
            param.copy_(wave(*param.shape, k=1.1 + at / 100) + (added if of_norm else 0))
    norms = [name.removesuffix(".weight") for name in names if name and "norm" in name and name.endswith("weight")]
    for at, norm in enumerate(map(model.get_submodule, norms)):
        norm.running_mean.copy_(wave(norm.num_features, k=0.21 + at / 100))
        norm.running_var.copy_(1 + wave(norm.num_features, k=0.31 + at / 100))
    return model


def frames():
    return wave(3, 128, 6, k=0.7, scale=1.0)


@MODELS
def test_training_is_the_authors_in_logits_and_gradients(kind, N, names, official):
    model = made(kind, N, names).train()
    logits = model(frames())
    close(logits.detach(), official["training"])
    torch.autograd.backward((wave(3, 3, k=1.3) * logits).sum())
    for name, norm in official["norms"].items():
        close(model.get_parameter(name).grad.norm(), norm)


@torch.no_grad()
@MODELS
def test_evaluation_and_a_stream_are_the_authors(kind, N, names, official):
    model = made(kind, N, names).eval()
    close(model(frames()), official["evaluation"])
    state, said = model.initial_state(3), []
    for frame in frames().unbind(1):
        logits, state = model.step(frame, state)
        said.append(logits[1])
    for frame, want in zip((0, 50), official["all"], strict=False):
        close(said[frame + DELAY], want)
    close(model.finish(state)[1], official["all"][2])
