"""Broad Mamba against scipy's zero-order hold, double sums, numpy's least squares, and closed forms of its fusion."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from scipy.signal import cont2discrete
from torch.nn import functional

from loci.lab.tasks import dialogues
from loci.state.encoder.broad import BroadLearning, BroadNodes, ridge_solution, widened
from loci.state.encoder.broad_mamba import BroadMamba, TwoSidedBlock
from loci.state.encoder.fusion import (
    Concatenated,
    DialogueClassifier,
    ProbabilityGuided,
    by_share,
    by_softmax,
    loss_of,
)
from loci.state.encoder.two_sided import TwoSided, two_sided, two_sided_by_sums
from tests.state.drawn import DOUBLE, drawn, fresh

torch.set_num_threads(1)


# 1. the convolution


@pytest.mark.parametrize("T", [1, 2, 3, 16, 61])
def test_one_fft_is_the_double_sum(T) -> None:
    x, forth, back = drawn(2, T, 5), drawn(5, T, seed=2), drawn(5, T - 1, seed=3)
    assert torch.allclose(two_sided(x, forth, back), two_sided_by_sums(x, forth, back), rtol=0, atol=1e-8)


def test_each_half_is_the_recurrence_of_scipys_zero_order_hold() -> None:
    E, N, T = 3, 4, 40
    system, x = fresh(TwoSided, E, N), drawn(1, T, E)
    with torch.no_grad():
        system.B.copy_(drawn(2, E, N, seed=4))
    due = np.zeros((2, T, E))
    for way in range(2):
        u = x[0].numpy() if way == 0 else x[0].flip(0).numpy()
        for e in range(E):
            A = -np.diag(system.A_log[way, e].detach().exp())
            B, C = system.B[way, e].detach().numpy()[:, None], system.C[way, e].detach().numpy()[None]
            step = float(system.log_step[way, e].detach().exp())
            Ad, Bd, *_ = cont2discrete((A, B, C, np.zeros((1, 1))), step, method="zoh")
            h = np.zeros((N, 1))
            for t in range(T):
                h = Ad @ h + Bd * u[t, e]
                due[way, t, e] = (C @ h).item() - (way * (C @ Bd).item() * u[t, e])  # the way back skips the present
    with torch.no_grad():
        y = system(x)[0].numpy()
        forth, back = system.kernels(T)
        past = two_sided(x, forth, torch.zeros_like(back))[0].numpy()
    np.testing.assert_allclose(past, due[0], atol=1e-8)
    np.testing.assert_allclose(y, due[0] + due[1][::-1], atol=1e-8)


def test_without_a_backward_kernel_it_is_causal() -> None:
    encoder, x, changed = fresh(BroadMamba, 4, 6, N=3), drawn(2, 20, 4), drawn(2, 20, 4)
    changed[:, 12:] = 3 * drawn(2, 8, 4, seed=2)
    gap = (encoder(x) - encoder(changed)).detach().abs().amax((0, 2))
    assert float(gap[:12].min()) > 1e-9  # the future was heard
    with torch.no_grad():
        encoder.block.system.C[1] = 0
    gap = (encoder(x) - encoder(changed)).detach().abs().amax((0, 2))
    assert float(gap[:12].max()) < 1e-10
    assert float(gap[12:].min()) > 1e-6


def test_the_block_is_its_equations() -> None:
    block, x = fresh(TwoSidedBlock, 4, 6, N=3, K=3), drawn(2, 9, 4)
    u, z = (functional.layer_norm(x, (4,)) @ block.inward.weight.T).chunk(2, -1)
    taps, late = block.conv.weight[:, 0], torch.cat([torch.zeros(2, 2, 6, dtype=DOUBLE), u], 1)
    u = block.conv.bias + sum(taps[:, k] * late[:, k : k + 9] for k in range(3))
    u = two_sided_by_sums(u * torch.sigmoid(u), *block.system.kernels(9))
    due = x + (u * z * torch.sigmoid(z)) @ block.outward.weight.T
    assert torch.allclose(block(x, torch.ones(2, 9, dtype=torch.bool)), due, rtol=0, atol=1e-10)


def saved_bytes(encoder, T):
    """What a call keeps for its gradient, each storage once."""
    held = {}

    def keep(part):
        held[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
        return part

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda part: part):
        y = encoder(drawn(2, T, encoder.D))
    assert y.requires_grad
    return sum(held.values())


def test_memory_grows_with_the_length_and_attention_with_its_square() -> None:
    class Attention(BroadMamba):
        def encode(self, x, heard):
            return (x @ self.broad.feature.weight.T @ x.mT).softmax(-1) @ x

    for kind, low, high in ((BroadMamba, 0.8, 1.2), (Attention, 1.8, 2.1)):
        encoder = fresh(kind, 8, 16, N=4, Z=8)
        growth = math.log2(saved_bytes(encoder, 2048) / saved_bytes(encoder, 1024))
        assert low <= growth <= high, (kind.__name__, growth)


# 2. broad learning


def system(ridge, *, rows=60, H=7):
    random = torch.Generator().manual_seed(3)
    X, Y = drawn(rows, 4), drawn(rows, 3, seed=6)
    return BroadLearning(4, Z=5, H=H, generator=random, ridge=ridge).fit(X, Y), X, Y


@pytest.mark.parametrize("ridge", [1e-3, 0.5])
def test_the_readout_is_least_squares_on_the_augmented_system(ridge) -> None:
    broad, X, Y = system(ridge)
    F = broad.features(X).numpy()
    wide = F.shape[1]
    due, *_ = np.linalg.lstsq(np.vstack([F, ridge**0.5 * np.eye(wide)]), np.vstack([Y, np.zeros((wide, 3))]))
    np.testing.assert_allclose(broad.W_o, due, atol=1e-8)
    np.testing.assert_allclose(ridge_solution(torch.from_numpy(F), Y, ridge), due, atol=1e-8)
    Z = X.numpy() @ broad.W_e[:-1].numpy() + broad.W_e[-1].numpy()
    np.testing.assert_allclose(F[:, :5], Z, atol=1e-12)
    np.testing.assert_allclose(F[:, 5:], np.tanh(Z @ broad.W_h[:-1].numpy() + broad.W_h[-1].numpy()), atol=1e-12)


@pytest.mark.parametrize("ridge", [0.0, 1e-2])
def test_nodes_that_were_added_are_as_if_they_had_always_been_there(ridge) -> None:
    broad, X, Y = system(ridge)
    for count in (4, 1, 3):
        broad.enlarge(count)
    F = broad.features(X).numpy()
    assert F.shape[1] == 5 + 7 + 8
    root = ridge**0.5 * np.eye(F.shape[1])
    inverse = np.linalg.pinv(np.vstack([F, root]), rcond=1e-10)[:, : len(X)]
    np.testing.assert_allclose(broad(X), F @ inverse @ Y.numpy(), atol=1e-8)
    np.testing.assert_allclose(broad.W_o, inverse @ Y.numpy(), atol=1e-6)


@pytest.mark.parametrize("spanned", [0, 2, 4])
def test_a_pseudo_inverse_is_widened_whatever_the_ranks(spanned) -> None:
    F = drawn(20, 6)
    F[:, 5] = F[:, 0] - F[:, 1]  # F itself lacks a rank
    G = drawn(20, 4, seed=2)
    G[:, :spanned] = F @ drawn(6, spanned, seed=3)
    got = widened(F, torch.linalg.pinv(F), G)
    due = np.linalg.pinv(torch.cat([F, G], 1).numpy(), rcond=1e-10)
    np.testing.assert_allclose(got, due, atol=1e-8)


def test_drawn_nodes_and_trained_nodes_are_one_map() -> None:
    broad, X, _ = system(0.1)
    nodes = fresh(BroadNodes, 4, 5, H=7)
    with torch.no_grad():
        for map_, drawn_ in ((nodes.feature, broad.W_e), (nodes.enhancement, broad.W_h)):
            map_.weight.copy_(drawn_[:-1].T)
            map_.bias.copy_(drawn_[-1])
        assert torch.allclose(nodes.features(X), broad.features(X), rtol=0, atol=1e-12)
        assert torch.allclose(nodes(X), broad.features(X) @ nodes.output.weight.T, rtol=0, atol=1e-12)


# 3. fusion


@pytest.mark.parametrize("weigh", [by_softmax, by_share])
def test_the_surest_weighs_most_and_equals_weigh_the_same(weigh) -> None:
    p = drawn(50, 3, 6).softmax(-1)
    w = weigh(p)
    assert torch.allclose(w.sum(-1), torch.ones(50, dtype=DOUBLE), rtol=0, atol=1e-12)
    assert torch.equal(w.argmax(-1), p.amax(-1).argmax(-1))
    same = weigh(p[:, :1].expand_as(p))
    assert torch.allclose(same, torch.full_like(same, 1 / 3), rtol=0, atol=1e-12)
    sure = torch.full((3, 6), 1 / 6, dtype=DOUBLE)
    sure[0] = torch.eye(6, dtype=DOUBLE)[2]
    due = {by_softmax: [math.exp(1), math.exp(1 / 6)], by_share: [1, 1 / 6]}[weigh]
    assert weigh(sure).tolist() == pytest.approx(
        [due[0] / (due[0] + 2 * due[1])] + [due[1] / (due[0] + 2 * due[1])] * 2
    )
    turn = [2, 0, 1]
    assert torch.allclose(weigh(p[:, turn]), w[:, turn], rtol=0, atol=1e-12)


def test_fusion_is_the_weighted_sum_in_any_order() -> None:
    fusion, h, p = fresh(ProbabilityGuided, 4, 6), drawn(2, 5, 3, 4), drawn(2, 5, 3, 6, seed=2).softmax(-1)
    e = p.numpy().max(-1)
    w = np.exp(e) / np.exp(e).sum(-1, keepdims=True)
    due = np.einsum("btm,btmd->btd", w, h.numpy()) @ fusion.head.weight.detach().numpy().T
    got = fusion(h, p).detach()
    np.testing.assert_allclose(got, due + fusion.head.bias.detach().numpy(), atol=1e-12)
    turn = [1, 2, 0]
    assert torch.allclose(fusion(h[:, :, turn], p[:, :, turn]), got, rtol=0, atol=1e-12)


@pytest.mark.parametrize("detach", [True, False])
def test_being_sure_is_learned_through_the_weights_only_where_that_is_asked_for(detach) -> None:
    fusion, p = fresh(ProbabilityGuided, 4, 6, detach=detach), drawn(3, 6, seed=2).softmax(-1).requires_grad_()
    y = fusion(drawn(3, 4).requires_grad_(), p).sum()
    (grad,) = torch.autograd.grad(y, p, allow_unused=True)
    assert (grad is None) is detach
    if grad is not None:
        assert int((grad != 0).sum()) == 3  # through each modality's largest probability alone


# 4. the classifier


def classifier(fusion=None):
    def build():
        fused = ProbabilityGuided(8, 6) if fusion is None else fusion(8, 6)
        return DialogueClassifier((3, 4, 5), encoders=[BroadMamba(8, 8, N=2, Z=6, H=6) for _ in range(3)], fusion=fused,
                                  classes=6)  # fmt: skip

    return fresh(build)


def heard_rows():
    features = [drawn(3, 9, width, seed=width) for width in (3, 4, 5)]
    speaker = (drawn(3, 9, seed=8) > 0).long()
    return features, speaker, torch.tensor([9, 4, 0])


@pytest.mark.parametrize("fusion", [ProbabilityGuided, Concatenated])
def test_padded_utterances_change_neither_what_is_said_nor_what_is_learned(fusion) -> None:
    model, (features, speaker, lengths) = classifier(fusion), heard_rows()
    emotion = torch.arange(27).view(3, 9) % 6
    beyond = torch.arange(9) >= lengths.unsqueeze(1)
    grads, outs = [], []
    for filler, who in ((0.0, 0), (torch.nan, -1), (1e6, 1)):
        rows = [u.masked_fill(beyond.unsqueeze(-1), filler) for u in features]
        rows = [torch.cat([u, u.new_full((3, 3, u.shape[2]), filler)], 1) for u in rows]
        spoken = torch.cat([speaker.masked_fill(beyond, who), torch.full((3, 3), who)], 1)
        said = model(rows, spoken, lengths=lengths)
        heard = torch.arange(12) < lengths.unsqueeze(1)
        loss = loss_of(said, torch.cat([emotion, emotion[:, :3]], 1), heard=heard)
        grads.append(torch.autograd.grad(loss, list(model.parameters())))
        outs.append(said)
        assert not said.fused[~heard].any()
        assert not said.each[~heard].any()
    for said, grad in zip(outs[1:], grads[1:], strict=True):
        assert torch.equal(said.fused, outs[0].fused)
        assert all(torch.equal(one, two) for one, two in zip(grad, grads[0], strict=True))
    alone = model([u[1:2, :4] for u in features], speaker[1:2, :4])
    assert torch.allclose(outs[0].fused[1, :4], alone.fused[0], rtol=0, atol=1e-10)
    assert torch.allclose(outs[0].each[1, :4], alone.each[0], rtol=0, atol=1e-10)


def test_the_loss_is_the_fused_cross_entropy_and_that_of_each() -> None:
    model, (features, speaker, lengths) = classifier(), heard_rows()
    emotion, said = torch.arange(27).view(3, 9) % 6, model(features, speaker, lengths=lengths)
    heads = [said.fused, *said.each.unbind(2)]
    places = [(row, t) for row in range(3) for t in range(int(lengths[row]))]
    due = -sum(float(head[at].detach().log_softmax(-1)[emotion[at]]) for head in heads for at in places) / len(places)
    heard = torch.arange(9) < lengths.unsqueeze(1)
    assert loss_of(said, emotion, heard=heard).item() == pytest.approx(due, abs=1e-12)


def test_who_speaks_and_every_modality_matter() -> None:
    model, (features, speaker, _) = classifier(), heard_rows()
    said = model(features, speaker).fused
    assert not torch.allclose(model(features, 1 - speaker).fused, said, rtol=0, atol=1e-4)
    for place in range(3):
        changed = [u + (k == place) for k, u in enumerate(features)]
        assert not torch.allclose(model(changed, speaker).fused, said, rtol=0, atol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    model, (features, speaker, _) = classifier(), heard_rows()
    calls = [
        (lambda: model(features[:2], speaker), "give features"),
        (lambda: model(features, speaker + 1), "speaker has numbers outside"),
        (lambda: model(features, speaker.double()), "speaker is float64"),
        (lambda: model(features, speaker, lengths=torch.tensor([10, 1, 1])), "lengths"),
        (lambda: DialogueClassifier((3,), encoders=[], fusion=Concatenated(8, 6), classes=6), "1 widths"),
        (lambda: TwoSided(0, 3), "E=0"),
        (lambda: TwoSidedBlock(4, K=0), "K=0"),
        (lambda: BroadNodes(4, 0), "Z=0"),
        (lambda: by_softmax(torch.ones(2, 2), tau=0.0), "tau=0"),
        (lambda: ridge_solution(torch.eye(2), torch.eye(2), 0.0), "ridge=0"),
        (lambda: BroadLearning(0, Z=1, H=1, generator=torch.Generator()), "D=0"),
        (lambda: BroadLearning(1, Z=1, H=1, generator=torch.Generator()).enlarge(2), "fit first"),
        (lambda: BroadLearning(1, Z=1, H=1, generator=torch.Generator())(torch.ones(2, 1)), "call fit"),
        (lambda: system(0.1)[0](torch.ones(2, 9)), "X is"),
        (lambda: system(0.1)[0].fit(torch.ones(2, 4), torch.ones(3, 1)), "Y is"),
    ]
    for call, words in calls:
        with pytest.raises(ValueError, match=words):
            call()


# 5. the task


def test_the_score_is_sklearns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = torch.Generator().manual_seed(0)
    said, due = torch.randint(5, (2, 300), generator=random)  # the sixth class is never seen
    want = metrics.f1_score(due, said, average="weighted")
    assert dialogues.weighted_f1(said, due, 6) == pytest.approx(want, abs=1e-12)


def test_dialogues_are_what_they_say() -> None:
    random = torch.Generator().manual_seed(5)
    looks = dialogues.prototypes(random)
    drawn_ = dialogues.dialogues(600, looks, random)
    again = dialogues.dialogues(600, looks, torch.Generator().manual_seed(1))
    assert not torch.equal(drawn_.emotion, again.emotion)
    assert drawn_.lengths.min() == 20
    assert drawn_.lengths.max() == 30
    assert all(not u[~drawn_.heard].any() for u in drawn_.features)
    same = drawn_.speaker[:, 1:] == drawn_.speaker[:, :-1]
    assert float(same.float().mean()) == pytest.approx(0.2, abs=0.02)
    kept = (drawn_.emotion[:, 1:] == drawn_.emotion[:, :-1])[same].float().mean()
    assert float(kept) > 0.7  # own 0.7, a new one that is the old 0.025, and what is caught
    distance = (drawn_.features[0] - looks[0][drawn_.emotion]).square().mean(-1).sqrt()[drawn_.heard]
    assert float((distance > 1.2).float().mean()) == pytest.approx(0.5, abs=0.06)


def test_arms_are_of_one_size_and_the_causal_one_stays_causal() -> None:
    sizes = {}
    for name, arm in dialogues.ARMS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sizes[name] = sum(param.numel() for param in arm().parameters())
    sizes["causal"] -= 3 * 64 * (1 + 3 * 16)  # the backward half, which is not trained
    assert max(sizes.values()) < 1.02 * min(sizes.values())
    model, test = dialogues.learned("causal", 3, epochs=1)
    assert all(not encoder.block.system.C[1].any() for encoder in model.encoders)
    assert test.emotion.shape == (100, 30)
