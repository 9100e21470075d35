"""Quantised layers, optimizers in low precision, and calibration."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.budget.precision import FloatFormat, IntegerFormat, Rounder, preset, quantised, rounded_layers, rounded_steps
from loci.budget.precision.clipping import divergence, kl, min_max, mse, percentile

torch.set_num_threads(1)
q52 = preset("q52")
E5M2 = torch.float8_e5m2


def cast(x: torch.Tensor) -> torch.Tensor:
    return x.to(E5M2).to(x.dtype)


def is_held(x: torch.Tensor) -> bool:
    return torch.equal(cast(x), x)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm1d(8)
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.rnn = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x)).transpose(1, 2)
        x = self.attn(x, x, x, need_weights=False)[0]
        return self.head(self.rnn(x)[0][:, -1])


def fresh() -> tuple[Model, torch.Tensor]:
    torch.manual_seed(0)
    return Model(), torch.randn(4, 3, 6)


class TestLayers:
    def test_weights_and_activations_are_those_of_a_hand_cast_layer(self) -> None:
        torch.manual_seed(0)
        layer, x = nn.Linear(5, 3), torch.randn(7, 5)
        want = cast(nn.functional.linear(cast(x), cast(layer.weight), cast(layer.bias)))
        with rounded_layers(layer, weights=Rounder(q52), activations=Rounder(q52)):
            assert torch.equal(layer(x), want)

    @pytest.mark.parametrize("training", [True, False])
    def test_a_model_of_all_kinds_is_a_model_with_cast_weights(self, training) -> None:
        model, x = fresh()
        other = copy.deepcopy(model)
        with torch.no_grad():
            for param in other.parameters():
                param.copy_(cast(param))
        model.train(training)
        other.train(training)
        with rounded_layers(model, weights=Rounder(q52)):
            assert torch.allclose(model(x), other(x), atol=1e-6)

    def test_gradients_reach_the_full_precision_weights_straight_through(self) -> None:
        torch.manual_seed(0)
        layer, x, w = nn.Linear(5, 3), torch.randn(7, 5), torch.randn(7, 3)
        rounding = rounded_layers(layer, weights=Rounder(q52), activations=Rounder(q52))
        (layer(x) * w).sum().backward()
        rounding.remove()
        assert torch.allclose(layer.weight.grad, w.T @ cast(x), atol=1e-5)
        assert not is_held(layer.weight.detach())

    def test_gradients_of_outputs_are_rounded(self) -> None:
        layer, w = nn.Linear(5, 3), torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
        with rounded_layers(layer, gradients=Rounder(q52)):
            (layer(torch.ones(1, 5)) * w).sum().backward()
        assert torch.equal(layer.bias.grad, cast(w)[0])

    def test_removal_gives_back_the_model_to_the_bit(self) -> None:
        model, x = fresh()
        model.eval()
        before, keys = model(x), set(model.state_dict())
        with rounded_layers(model, weights=Rounder(q52), activations=Rounder(q52)):
            assert not torch.equal(model(x), before)
        assert torch.equal(model(x), before)
        assert set(model.state_dict()) == keys
        assert type(model.head) is nn.Linear

    def test_a_quantised_model_trains(self) -> None:
        model, x = fresh()
        y = torch.tensor([0, 1, 0, 1])
        with rounded_layers(model, weights=Rounder(FloatFormat(4, 3)), activations=Rounder(FloatFormat(5, 4))):
            optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
            losses = []
            for _ in range(60):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        assert losses[-1] < losses[0] / 3

    def test_rounders_by_name(self) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        with rounded_layers(model, weights=lambda name: Rounder(q52) if name == "1" else None):
            assert is_held(model[1].weight.detach())
            assert not is_held(model[0].weight.detach())

    def test_what_cannot_be_rounded_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no layer of"):
            rounded_layers(nn.ReLU(), weights=Rounder(q52))
        layer = nn.Linear(2, 2)
        with rounded_layers(layer, weights=Rounder(q52)), pytest.raises(ValueError, match="parametrized already"):
            rounded_layers(layer, weights=Rounder(q52))


def trainer(kind: str, mode="stochastic", seed: int = 3):
    w = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
    make = {"sgd": lambda: torch.optim.SGD([w], lr=0.01, momentum=0.9), "adam": lambda: torch.optim.AdamW([w], lr=0.01)}
    optimizer = make[kind]()
    rounding = rounded_steps(
        optimizer,
        weights=Rounder(preset("bfloat16"), mode, seed=seed),
        states=Rounder(preset("bfloat16"), mode, seed=seed + 1),
    )
    return w, optimizer, rounding


def train(w, optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (w - 0.37).square().sum().backward()
        optimizer.step()


class TestSteps:
    @pytest.mark.parametrize("kind", ["sgd", "adam"])
    def test_parameters_and_states_are_numbers_of_the_format_after_each_step(self, kind) -> None:
        w, optimizer, _ = trainer(kind)
        for _ in range(4):
            train(w, optimizer, 1)
            floats = [w.detach()] + [value for name, value in optimizer.state[w].items() if name != "step"]
            assert all(torch.equal(x.bfloat16().float(), x) for x in floats)
        assert kind == "sgd" or float(optimizer.state[w]["step"]) == 4

    @pytest.mark.parametrize("kind", ["sgd", "adam"])
    def test_a_loaded_run_goes_on_to_the_bit(self, kind) -> None:
        w, optimizer, _ = trainer(kind)
        train(w, optimizer, 5)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        twin, other, _ = trainer(kind)
        with torch.no_grad():
            twin.copy_(w)
        other.load_state_dict(torch.load(file))
        train(w, optimizer, 5)
        train(twin, other, 5)
        assert torch.equal(w, twin)

    def test_one_step_is_the_plain_step_then_a_cast(self) -> None:
        w, optimizer, _ = trainer("sgd", "nearest-even")
        twin = nn.Parameter(w.detach().clone())
        plain = torch.optim.SGD([twin], lr=0.01, momentum=0.9)
        train(w, optimizer, 1)
        train(twin, plain, 1)
        assert torch.equal(w.detach(), twin.detach().bfloat16().float())

    def test_removal_ends_it_and_schedulers_go_on(self) -> None:
        w, optimizer, rounding = trainer("sgd")
        torch.optim.lr_scheduler.StepLR(optimizer, 1)
        rounding.remove()
        train(w, optimizer, 2)
        assert not torch.equal(w.detach().bfloat16().float(), w.detach())
        assert "rounding" not in optimizer.state_dict()

    def test_an_optimizer_of_this_house_is_one_as_well(self) -> None:
        from loci.weights.optim.galore import GaLore8bit

        w = nn.Parameter(torch.randn(8, 6, generator=torch.Generator().manual_seed(0)))
        optimizer = GaLore8bit([w], lr=0.05, rank=2)
        rounded_steps(optimizer, weights=Rounder(q52), states=Rounder(preset("bfloat16")))
        train(w, optimizer, 5)
        assert is_held(w.detach())


class TestCalibration:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))

    def batches(self) -> list[torch.Tensor]:
        random = torch.Generator().manual_seed(0)
        return [torch.randn(2000, 6, generator=random) for _ in range(4)]

    @pytest.mark.parametrize("rule", ["min-max", "percentile", "mse", "kl"])
    def test_int8_is_near_and_removal_is_exact(self, rule) -> None:
        batches = self.batches()
        before, model = self.model(batches[0]).detach(), self.model
        held = copy.deepcopy(model.state_dict())
        with quantised(
            model, batches, weights=IntegerFormat(8, 0), activations=IntegerFormat(8, symmetric=False), rule=rule
        ) as done:
            assert set(done.ranges) == {"0", "2"}
            assert done.ranges["2"][0] == pytest.approx(0, abs=1e-6), "what follows a ReLU is not negative"
            error = (model(batches[0]).detach() - before).square().mean() / before.square().mean()
            assert 0 < float(error) < 1e-3
            for row in model[0].weight.detach():
                assert len(row.unique()) <= 255
        assert torch.equal(model(batches[0]), before)
        assert all(torch.equal(value, held[name]) for name, value in model.state_dict().items())

    def test_ranges_are_those_of_what_entered(self) -> None:
        batches = self.batches()
        with quantised(self.model, batches, weights=IntegerFormat(8), activations=IntegerFormat(8)) as done:
            low, high = done.ranges["0"]
        x = torch.cat(batches)
        assert (low, high) == (float(x.min()), float(x.max()))

    def test_a_refused_call_changes_nothing(self) -> None:
        held = copy.deepcopy(self.model.state_dict())
        for options, words in (({"rule": "best"}, "rule='best'"), ({"activations": IntegerFormat(8, 0)}, "axis=None")):
            with pytest.raises(ValueError, match=words):
                quantised(
                    self.model,
                    self.batches(),
                    **{"weights": IntegerFormat(8), "activations": IntegerFormat(8), **options},
                )
        with pytest.raises(ValueError, match="no layer"):
            quantised(nn.ReLU(), self.batches(), weights=IntegerFormat(8), activations=IntegerFormat(8))
        assert all(torch.equal(value, held[name]) for name, value in self.model.state_dict().items())

    def test_rules_of_clipping(self) -> None:
        x = np.random.default_rng(0).standard_normal(20_000)
        assert min_max(x) == (x.min(), x.max())
        low, high = percentile(x, 99.0)
        assert ((x < low).mean(), (x > high).mean()) == (pytest.approx(0.005, abs=1e-4), pytest.approx(0.005, abs=1e-4))
        low, high = mse(x, IntegerFormat(4))
        error = {a: np.square(IntegerFormat(4).calibrated(-a, a).round(x) - x).mean() for a in np.linspace(1, 5, 81)}
        best = min(error, key=error.get)  # known for normal data: about 2.7 sigma at 4 bits
        assert abs(max(-low, high) - best) < 0.2
        assert 2.4 < best < 3.0
        assert max(map(abs, kl(x, 4))) < max(map(abs, min_max(x)))
        with pytest.raises(ValueError, match="no finite value"):
            min_max(np.array([np.nan]))

    def test_divergence_is_the_obvious_loop(self) -> None:
        counts = np.random.default_rng(1).integers(0, 50, 60).astype(float)
        counts[::7] = 0
        for end in (16, 37, 60):
            p = counts[:end].copy()
            p[-1] += counts[end:].sum()
            q = np.zeros(end)
            for level in range(8):
                inside = slice(level * end // 8, (level + 1) * end // 8)
                part = counts[inside]
                q[inside] = np.where(part > 0, part.sum() / max((part > 0).sum(), 1), 0)
            p, q = p / p.sum(), q / q.sum()
            want = sum(a * np.log(a / max(b, 1e-12)) for a, b in zip(p, q) if a > 0)
            assert divergence(counts, end, 8) == pytest.approx(want, rel=1e-12)
