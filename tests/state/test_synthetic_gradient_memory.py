"""Predicted gradients against exact ones: closed forms, autograd through time, and the equations in loops."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
import numpy as np
from torch.nn import functional

from loci.lab.tasks.glyphs import POINTS, Scores, Show, Streams, glyphs, known, scores, streams, train
from loci.state.neural_memory import START, NeuralMemory, read, write
from loci.state.neuromodulator import Feedback, Neuromodulator, alignment, clipped, regression_loss, regression_targets
from loci.state.synthetic_gradient_memory import Fast, SyntheticGradientMemory, slow_losses
from tests.state.drawn import DOUBLE, drawn, fresh, sigmoid

torch.set_num_threads(1)
B, T, FEATURES, CLASSES, n, L, k = 3, 9, 4, 2, 5, 4, 3
D = FEATURES + CLASSES
SIZES = {"L": L, "k": k}


def awake(seed: int = 0, **options) -> SyntheticGradientMemory:
    """A network whose feedback says something."""
    mixer = fresh(SyntheticGradientMemory, D, n, seed=seed, classes=CLASSES, **SIZES, **options)
    with torch.no_grad():
        for place, param in enumerate(mixer.feedback.parameters()):
            param.add_(0.5 * drawn(*param.shape, seed=place))
    return mixer


def episode(seed: int = 1):
    labels = torch.randint(CLASSES, (B, T), generator=torch.Generator().manual_seed(seed))
    told = functional.pad(functional.one_hot(labels, CLASSES)[:, :-1], (0, 0, 1, 0))
    return torch.cat([drawn(B, T, FEATURES, seed=seed), told.double()], -1), labels


def lived(mixer, x):
    """The equations in loops, for one stream: answers, memory and fast changes."""
    w = {name: param.detach().numpy() for name, param in mixer.state_dict().items()}
    h, s = np.zeros(n), np.zeros(n)
    M = np.array([[START * math.cos(math.pi * (i + 0.5) * j / L) for j in range(k)] for i in range(L)])
    names = ("reader", "controller.readout", "writer")
    F = [np.zeros_like(w[f"{name}.weight"]) for name in names]
    said, heard = [np.zeros(len(f)) for f in F], [np.zeros(f.shape[1]) for f in F]

    def soft(z):
        return np.exp(z - z.max()) / np.exp(z - z.max()).sum()

    def layer(place, a):
        return (w[f"{names[place]}.weight"] + F[place]) @ a + w[f"{names[place]}.bias"]

    out = []
    for moment in x:
        for c in range(3):
            path = f"feedback.paths.{c}."
            seen = np.concatenate([said[c], M.mean(0), moment[-CLASSES:]])
            hidden = np.tanh(w[path + "hidden.weight"] @ seen + w[path + "hidden.bias"])
            ghat = w[path + "last.weight"] @ hidden + w[path + "last.bias"]
            F[c] = F[c] - mixer.rate * np.outer(ghat / max(1.0, np.linalg.norm(ghat)), heard[c])
        gates = w["controller.inward.weight"] @ moment + w["controller.inward.bias"]
        i, f, g, o = np.split(gates + w["controller.recurrent.weight"] @ h, 4)
        s = sigmoid(i) * np.tanh(g) + sigmoid(f) * s
        h = sigmoid(o) * np.tanh(s)
        key = layer(0, h)
        z = soft(M @ key) @ M
        answer = layer(1, np.concatenate([h, z]))
        order = layer(2, np.concatenate([h, answer]))
        p, erase, add = soft(M @ order[:k]), sigmoid(order[k : 2 * k]), np.tanh(order[2 * k :])
        for slot in range(L):
            M[slot] = M[slot] * (1 - p[slot] * erase) + p[slot] * add
        said, heard = [key, answer, order], [h, np.concatenate([h, z]), np.concatenate([h, answer])]
        out.append(answer)
    return np.stack(out), M, F


def test_the_network_is_its_equations() -> None:
    mixer, (x, _) = awake(rate=0.3), episode()
    y, state = mixer(x)
    fast = Fast(*state[2:])
    for row in range(B):
        due, M, F = lived(mixer, x[row].numpy())
        assert np.abs(y[row].detach().numpy() - due).max() < 1e-12
        assert np.abs(fast.M[row].detach().numpy() - M).max() < 1e-12
        for got, want in zip((fast.F_read, fast.F_answer, fast.F_write), F, strict=True):
            assert np.abs(want).max() > 1e-3
            assert np.abs(got[row].detach().numpy() - want).max() < 1e-12


def test_a_linear_predictor_finds_the_gradient_of_a_linear_layer_and_its_updates_are_sgd() -> None:
    m, outs, heard, count = 4, 3, 5, 200
    W, a, y = drawn(outs, m), drawn(count, heard, seed=2), drawn(count, outs, seed=3)
    phi = drawn(m, heard, seed=4)
    h = (a @ phi.T).requires_grad_()
    losses = [0.5 * (h @ W.T - y).square().sum()]
    ((target,),) = regression_targets(losses, [(h,)], [(torch.zeros_like(h),)], n=1)
    known = torch.cat([h.detach(), y], 1)
    fitted = torch.linalg.lstsq(known, target).solution  # slow learning to its end: the regression is least squares
    ghat = known @ fitted
    assert float(regression_loss([(ghat,)], [(target,)])) < 1e-20
    assert torch.allclose(fitted, torch.cat([W.T @ W, -W]), rtol=0, atol=1e-10)
    assert math.isclose(alignment([(ghat,)], [(target,)]), 1.0, abs_tol=1e-9)
    weight = phi.clone().requires_grad_()
    optimizer, fast = torch.optim.SGD([weight], 0.05), phi.clone()
    for one, due in zip(a, y, strict=True):
        optimizer.zero_grad()
        (0.5 * (W @ (weight @ one) - due).square().sum()).backward()
        optimizer.step()
        said = torch.cat([fast @ one, due]) @ fitted
        fast = fast - 0.05 * said.unsqueeze(1) * one
        assert torch.allclose(fast, weight, rtol=0, atol=1e-6)


def unrolled(seed: int = 5, steps: int = 6):
    """A recurrent network of one output, which is all of its state: losses and outputs in one graph."""
    U, x = 0.6 * drawn(4, 4, seed=seed), drawn(steps, B, 4, seed=seed + 1)
    h, said, losses = torch.zeros(B, 4, dtype=DOUBLE, requires_grad=True), [], []
    for now in x:
        h = torch.tanh(h @ U.T + now)
        said.append((h,))
        losses.append((h - 0.3 * now).square().sum() + h.prod(1).sum())
    return losses, said


def test_targets_over_all_steps_are_backpropagation_through_time() -> None:
    losses, said = unrolled()
    nothing = [(torch.zeros_like(h),) for (h,) in said]
    for t, (target,) in enumerate(regression_targets(losses, said, nothing, n=len(losses))):
        (due,) = torch.autograd.grad(sum(losses[t:]), said[t][0], retain_graph=True)
        assert torch.allclose(target, due, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_targets_bootstrapped_on_exact_gradients_are_exact(steps: int) -> None:
    losses, said = unrolled()
    exact = [torch.autograd.grad(sum(losses[t:]), said[t], retain_graph=True) for t in range(len(losses))]
    for target, due in zip(regression_targets(losses, said, exact, n=steps), exact, strict=True):
        assert torch.allclose(target[0], due[0], rtol=0, atol=1e-12)
    nothing = [(torch.zeros_like(h),) for (h,) in said]
    blind = regression_targets(losses, said, nothing, n=steps)
    assert not torch.allclose(blind[0][0], exact[0][0], rtol=0, atol=1e-3)


def test_targets_of_the_network_over_the_episode_are_backpropagation_through_time() -> None:
    mixer, (x, labels) = awake(), episode()
    state, losses, said = mixer.initial_state(B), [], []
    for t in range(T):
        y, state = mixer.step(x[:, t], state)
        said.append(Fast(*state[2:]).said())
        losses.append(functional.cross_entropy(y[:, -CLASSES:], labels[:, t], reduction="sum"))
    nothing = [tuple(torch.zeros_like(h) for h in now) for now in said]
    targets = regression_targets(losses, said, nothing, n=T)
    for t in range(T):
        due = torch.autograd.grad(
            torch.stack(losses).sum(), said[t], retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for got, want in zip(targets[t], due, strict=True):
            assert torch.allclose(got, want, rtol=0, atol=1e-12)
    assert all(target[2].abs().max() > 1e-6 for target in targets[:-2])  # what is written is heard later


def test_without_predictions_it_is_the_plain_network_bit_for_bit() -> None:
    plain = fresh(NeuralMemory, D, n, **SIZES).float()
    mixer = SyntheticGradientMemory(D, n, classes=CLASSES, **SIZES)
    missing = mixer.load_state_dict(plain.state_dict(), strict=False)
    assert all(name.startswith("feedback.") for name in missing.missing_keys)
    x = episode()[0].float()
    for form in ("scan", "scan_by_steps"):
        y, state = getattr(mixer, form)(x, mixer.initial_state(B))
        due, (h, s, M) = getattr(plain, form)(x, plain.initial_state(B))
        assert torch.equal(y, due)
        assert all(torch.equal(one, two) for one, two in zip(state[:3], (h, s, M), strict=True))
        assert not any(part.any() for part in state[3:6])


def test_a_row_written_at_a_sharp_key_is_the_row_read() -> None:
    keys, value, sharp = torch.eye(4, dtype=DOUBLE)[None], torch.tensor([0.5, -0.25, 0.75, -0.9], dtype=DOUBLE), 60.0
    order = torch.cat([sharp * keys[:, 2], torch.full((1, 4), 60.0, dtype=DOUBLE), value.atanh()[None]], 1)
    M = write(order, keys)
    assert torch.allclose(M[0, 2], value, rtol=0, atol=1e-5)
    assert torch.allclose(M[0, [0, 1, 3]], keys[0, [0, 1, 3]], rtol=0, atol=1e-5)
    found = read(sharp * 4 * value[None], M)  # of all the slots the one most like the value is the value
    assert torch.allclose(found[0], value, rtol=0, atol=1e-5)
    assert torch.allclose(read(sharp * keys[:, 1], M)[0], keys[0, 1], rtol=0, atol=1e-5)


def test_erase_then_add_is_that_of_the_turing_machine() -> None:
    M, order = drawn(B, L, k), drawn(B, 3 * k, seed=2)
    for row in range(B):
        key, erase, add = np.split(order[row].numpy(), 3)
        p = np.exp(M[row].numpy() @ key)
        p /= p.sum()
        for slot in range(L):
            due = M[row, slot].numpy() * (1 - p[slot] * sigmoid(erase)) + p[slot] * np.tanh(add)
            assert np.abs(write(order, M)[row, slot].numpy() - due).max() < 1e-12


def test_the_regression_trains_the_feedback_alone() -> None:
    mixer, (x, labels) = awake(), episode()
    slow_losses(mixer, x, labels).gradients.backward()
    for name, param in mixer.named_parameters():
        if name.startswith("feedback."):
            assert param.grad is not None
            assert param.grad.any()
        else:
            assert param.grad is None


def test_the_regression_is_against_what_is_known_one_moment_later() -> None:
    """The predictions that are trained are those that the next step uses."""
    mixer, (x, labels) = awake(), episode()
    state = mixer.initial_state(B)
    slow = slow_losses(mixer, x, labels, n=T)
    said, used, losses = [], [], []
    for t in range(T):
        y, state = mixer.step(x[:, t], state)
        fast = Fast(*state[2:])
        told = functional.one_hot(labels[:, t], CLASSES).double()
        said.append(fast.said())
        used.append(mixer.feedback(fast.said(), torch.cat([fast.M.mean(1), told], -1)))
        losses.append(functional.cross_entropy(y[:, -CLASSES:], labels[:, t], reduction="sum"))
        if t + 1 < T:
            after = mixer.step(x[:, t + 1], state)[1]
            grown = Fast(*after[2:]).F_read - fast.F_read
            due = -mixer.rate * clipped(used[-1][0]).unsqueeze(-1) * state[0].unsqueeze(-2)
            assert torch.allclose(grown, due, rtol=0, atol=1e-12)
    due = regression_loss(used, regression_targets(losses, said, used, n=T))
    assert torch.allclose(slow.gradients, due, rtol=0, atol=1e-12)
    assert torch.allclose(slow.answers, torch.stack(losses).sum() / (B * T), rtol=0, atol=1e-12)
    assert torch.allclose(slow.logits, mixer(x)[0][..., -CLASSES:], rtol=0, atol=1e-12)


def test_fast_changes_are_those_of_one_episode() -> None:
    mixer, (x, _) = awake(), episode()
    fast = Fast(*mixer(x)[1][2:])
    assert all(F.any() for F in (fast.F_read, fast.F_answer, fast.F_write))
    assert not torch.allclose(fast.F_read[0], fast.F_read[1])  # each stream its own
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, -1] = True
    forgotten = Fast(*mixer(x, reset=reset)[1][2:])
    assert not any(F.any() for F in (forgotten.F_read, forgotten.F_answer, forgotten.F_write))


def test_what_one_network_learns_is_known_to_all_that_share_the_feedback() -> None:
    one = fresh(SyntheticGradientMemory, D, n, classes=CLASSES, **SIZES)
    feedback = one.feedback
    other = fresh(SyntheticGradientMemory, D, n + 2, seed=1, classes=CLASSES, feedback=feedback, **SIZES)
    x, labels = episode()
    before = other(x)[0]
    optimizer = torch.optim.SGD(feedback.parameters(), 0.1)
    errors = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = slow_losses(one, x, labels, n=T).gradients
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.95 * errors[0]
    x, labels = episode(seed=7)
    assert not torch.allclose(other(x)[0], before, rtol=0, atol=1e-6)
    assert slow_losses(other, x, labels, n=T).cosine > 0.1  # of a stream and a network that it was not trained on
    with pytest.raises(ValueError, match="share it among networks"):
        SyntheticGradientMemory(D + 1, n, classes=CLASSES, feedback=feedback, **SIZES)


def test_predictions_start_at_zero_and_are_no_longer_than_one() -> None:
    path = Neuromodulator(3, 2, width=7)
    assert not path(torch.ones(4, 3), torch.ones(4, 2)).any()
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], requires_grad=True)
    short = clipped(rows)
    assert torch.allclose(short, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    short.sum().backward()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()
    assert len(Feedback((2, 3, 4), 5, width=6).paths) == 3


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="classes=6 does not fit D=6"):
        SyntheticGradientMemory(6, 4, classes=6)
    with pytest.raises(ValueError, match="L=0, k=4"):
        NeuralMemory(6, 4, L=0, k=4)
    losses, said = unrolled()
    with pytest.raises(ValueError, match="n=0 steps"):
        regression_targets(losses, said, said, n=0)


def test_streams_have_a_rare_class_and_names_that_change() -> None:
    show, pool = Show(ways=4, length=20), glyphs(1, 30)
    shown = streams(pool, 200, show, torch.Generator().manual_seed(2))
    assert shown.x.shape == (200, 20, POINTS + 4)
    assert ((shown.kinds == 0).sum(1) == 2).all()
    assert all(int((shown.kinds == kind).sum(1).unique()) == 6 for kind in (1, 2, 3))
    assert torch.equal(shown.x[:, 1:, POINTS:].argmax(-1), shown.labels[:, :-1])
    assert not shown.x[:, 0, POINTS:].any()
    assert 60 < int(shown.switched.sum()) < 140
    for row in range(200):
        names = [{}, {}]
        for t in range(20):
            kind, label = int(shown.kinds[row, t]), int(shown.labels[row, t])
            assert names[t >= 10].setdefault(kind, label) == label
        both = names[0].keys() & names[1].keys()
        assert all((names[0][kind] != names[1][kind]) == bool(shown.switched[row]) for kind in both)
    agree = (shown.x[:, :, :POINTS].unsqueeze(2) * pool).sum(-1).amax(-1)  # with the glyph it is a sight of
    assert abs(float(agree.mean()) / POINTS - 0.8) < 0.02  # a tenth flipped


def test_scores_count_what_was_told() -> None:
    kinds = torch.tensor([[1, 0, 1, 0], [1, 0, 1, 0]])
    labels = torch.tensor([[0, 1, 0, 1], [0, 1, 1, 0]])
    shown = Streams(torch.zeros(2, 4, POINTS + 2), labels, kinds, torch.tensor([False, True]))
    assert known(shown).tolist() == [[False, False, True, True], [False] * 4]
    right = torch.tensor([[False, False, True, False], [True] * 4])
    assert scores(right, shown)[:2] == (0.5, 0.0)
    assert math.isnan(scores(right, shown).switched)  # no name was told after it changed
    assert Scores._fields == ("overall", "rare", "switched")


def test_learning_slowly_lowers_the_loss_and_turns_predictions_to_the_gradient() -> None:
    torch.manual_seed(0)
    show, pool = Show(ways=2, length=8), glyphs(0, 10)
    mixer = SyntheticGradientMemory(POINTS + 2, 8, classes=2, L=4, k=4)
    cosines = train(mixer, pool, show, torch.Generator().manual_seed(0), steps=40, batch=16, lr=1e-2)
    assert cosines[0] == 0.0
    assert sum(cosines[-10:]) / 10 > 0.1
    assert mixer.feedback.paths[0].last.weight.any()
