"""The tasks of claims about mixers: what is due is what the task says, a perfect answer counts as one, and twins lack one thing."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from loci.lab.claims import mixer_base_conv
from loci.lab.tasks import ablated, delays, longer_copying, recalling, structure
from loci.lab.tasks.copying import GatedS5
from loci.lab.tasks.mqar import NOTHING
from loci.state.attention import Attention
from loci.state.elman import Elman
from loci.state.irnn import IRNN
from loci.state.jordan import Jordan
from loci.state.mixer import state_bytes
from loci.state.s5 import S5
from loci.state.titans import Titans

torch.set_num_threads(1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def weights(module):
    return sum(param.numel() for param in module.parameters())


# Learning and asking


def test_a_lesson_is_learned_and_leaves_the_global_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    lesson = recalling.Lesson(steps=60, lr=0.02, batch=16)
    got = delays.missed(
        "loci.state.elman:Elman", 0, D=2, options={"n": 4}, lesson=lesson, lags=(0, 1), shortest=8, length=16
    )
    assert torch.equal(torch.rand(3), expected)
    assert got.value < 30, "who answers 0 misses 100"
    assert got.bytes == 16


def test_the_same_seed_gives_the_same_evidence():
    lesson = recalling.Lesson(steps=3, lr=0.01, batch=4)
    once, twice = (
        structure.predicted("loci.state.jordan:Jordan", 3, D=2, options={"n": 3}, lesson=lesson) for _ in range(2)
    )
    assert once == twice


def test_controls_have_no_fewer_weights():
    claim = mixer_base_conv
    mine, theirs = (weights(recalling.layered(claim.D, parts=parts)) for parts in (claim.MIXERS, claim.CONTROL))
    assert mine <= theirs < 1.05 * mine
    assert weights(Attention(32, 1)) == 4096
    assert weights(GatedS5(32, P=16, expand=1)) == 4312


def test_layers_keep_the_order_of_their_parts():
    layers = recalling.layered(8, parts=mixer_base_conv.MIXERS)
    assert [type(part.mixer).__name__ for part in layers.layers] == ["BaseConv", "LinearAttention"]


# What is due


def test_noise_has_the_variance_of_its_waves_at_every_moment():
    u = delays.noise(20000, 40, shortest=10, random=generator())
    assert u.shape == (20000, 40)
    assert (u.var(0) - 1).abs().max() < 0.05
    spectrum = torch.fft.rfft(u).abs().mean(0)
    assert spectrum[1:5].min() > 1
    assert spectrum[5:].max() < 1e-3


def test_a_shift_register_misses_nothing():
    u, due = delays.delays(3, 30, lags=(0, 2, 5), shortest=5, random=generator())
    rolled = torch.stack([u[:, :, 0].roll(lag, 1) for lag in (0, 2, 5)], -1)
    assert torch.equal(rolled[:, 5:], due)


def test_third_bits_are_known_and_the_others_are_chance():
    bits = structure.threes(4000, 3, generator()).view(-1, 3, 3)
    assert torch.equal(bits[..., 2], bits[..., 0] ^ bits[..., 1])
    assert (bits[..., :2].double().mean((0, 1)) - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("count", [1, 3])
def test_what_was_read_is_due_again_in_order(count):
    shown, due = longer_copying.texts(5, count, symbols=4, random=generator())
    assert shown.shape == (5, 2 * count + 1, 6)
    ids = shown.argmax(-1)
    assert torch.equal(due[:, count + 1 :], ids[:, :count])
    assert (due[:, : count + 1] == NOTHING).all()
    assert (ids[:, count] == 4).all()
    assert (ids[:, count + 1 :] == 5).all()


# Twins


PAIRS = [
    (Titans, ablated.UnforgettingTitans, {"heads": 2, "chunk": 4}),
    (S5, ablated.RealS5, {"P": 6}),
    (IRNN, ablated.RandomIRNN, {"n": 5}),
    (Elman, ablated.PresentElman, {"n": 5}),
    (Jordan, ablated.PresentJordan, {"n": 5}),
]


@pytest.mark.parametrize(("whole", "twin", "options"), PAIRS, ids=[twin.__name__ for _, twin, _ in PAIRS])
def test_a_twin_has_the_same_weights_and_state(whole, twin, options):
    one, two = whole(4, **options), twin(4, **options)
    assert [(name, part.shape) for name, part in one.named_parameters()] == [
        (name, part.shape) for name, part in two.named_parameters()
    ]
    assert state_bytes(one.initial_state(3)) == state_bytes(two.initial_state(3))


@pytest.mark.parametrize("twin", [ablated.PresentElman, ablated.PresentJordan])
def test_who_sees_only_the_present_says_the_same_whatever_came_before(twin):
    torch.manual_seed(0)
    mixer, x = twin(4, 5), torch.randn(2, 6, 4)
    assert torch.allclose(mixer(x)[0][:, 3:], mixer(x[:, 3:])[0])
    assert torch.allclose(mixer(x)[0], mixer.scan_by_steps(x, mixer.initial_state(2))[0])


def test_titans_without_forgetting_does_not_see_its_alpha():
    torch.manual_seed(0)
    twin, whole, x = ablated.UnforgettingTitans(4, heads=2, chunk=4), Titans(4, heads=2, chunk=4), torch.randn(2, 9, 4)
    whole.load_state_dict(twin.state_dict())
    says, would = twin(x)[0], whole(x)[0]
    assert not torch.allclose(says, would)
    with torch.no_grad():
        for mixer in (twin, whole):
            mixer.keyed.gates.bias[:2] = 40.0  # alpha of both heads is 1 then
    assert torch.equal(twin(x)[0], says)
    assert torch.allclose(whole(x)[0], says)


def test_the_real_system_decays_and_does_not_turn():
    twin = ablated.RealS5(2, 6)
    Lbar, _ = twin.discrete()
    assert (Lbar.imag == 0).all()
    assert torch.allclose(Lbar.real.log(), -torch.arange(1.0, 4) * twin.log_step.exp())
