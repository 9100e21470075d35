"""GaLore: closed forms, torch's AdamW, and the authors' package as oracles."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.weights.optim.backward import fuse_into_backward
from loci.weights.optim.base import split
from loci.weights.optim.blocks import dequantize, quantize
from loci.weights.optim.galore import GaLore, GaLore8bit
from loci.weights.optim.projection import SIDES, lift, lower, sides, subspace, subspace_by_svd

torch.set_num_threads(1)


def gradients(shape, steps, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random) for _ in range(steps)]


def run(optimizer, param, grads):
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param.detach()


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6)])
def test_at_full_rank_over_sgd_it_is_sgd(shape, foreach):
    grads = gradients(shape, 6)
    one, two = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    ours = GaLore(
        [one], lr=0.1, rank=min(shape), scale=1.0, base="sgd", momentum=0.0, update_proj_gap=2, foreach=foreach
    )
    torch.testing.assert_close(
        run(ours, one, grads), run(torch.optim.SGD([two], lr=0.1), two, grads), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("shape", [(9, 5), (5, 9)])
def test_a_gradient_of_rank_one_passes_whole(shape):
    grad = torch.outer(gradients(shape[:1], 1)[0], gradients(shape[1:], 1, 1)[0])
    one, two = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    ours = GaLore([one], lr=0.1, rank=1, scale=1.0, base="sgd", momentum=0.0)
    torch.testing.assert_close(
        run(ours, one, [grad]), run(torch.optim.SGD([two], lr=0.1), two, [grad]), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("side", ["left", "right", "std"])
def test_what_is_lost_is_the_discarded_singular_values(side):
    """Eckart and Young."""
    G = gradients((12, 7), 1)[0]
    kept = subspace(G, 3, sides(12, 7, side))
    lost = (G - lift(lower(G, kept), kept)).square().sum()
    torch.testing.assert_close(lost, torch.linalg.svdvals(G)[3:].square().sum(), rtol=1e-4, atol=0)


def spectrum(shape, values):
    """A matrix of these singular values, float64."""
    random = torch.Generator().manual_seed(5)
    k = min(shape)
    U, V = (torch.linalg.qr(torch.randn(d, k, generator=random, dtype=torch.float64)).Q for d in shape)
    return U @ torch.diag(values(torch.arange(1, k + 1, dtype=torch.float64))) @ V.T


@pytest.mark.parametrize("shape", [(60, 24), (24, 60), (24, 24)])
@pytest.mark.parametrize(
    "values",
    [
        lambda k: 1 / k, lambda k: 10 ** (-k / 6), lambda k: 1 + 1e-4 * (24 - k), lambda k: 1e-30 / k,
        lambda k: 1e30 / k,
    ],
    ids=["slow", "steep", "crowded", "tiny", "huge"],
)  # fmt: skip
def test_the_gram_form_finds_the_vectors_of_an_svd_in_float64(shape, values):
    """Nearer than the SVD in float32, which it replaces; both name each vector with the same sign."""
    G = spectrum(shape, values).float()
    which = sides(*shape, "std")
    true = subspace_by_svd(G.double(), 8, which)[which[0]]
    fast, slow = (form(G, 8, which)[which[0]].double() for form in (subspace, subspace_by_svd))
    assert fast.shape == true.shape
    assert float((fast - true).abs().max()) < 1e-6
    assert float((fast - true).norm()) < float((slow - true).norm())


@pytest.mark.parametrize(
    "grad", [torch.zeros(6, 4), torch.ones(6, 4), torch.eye(6), torch.full((4, 6), 1e200, dtype=torch.float64)]
)
def test_where_vectors_are_not_unique_the_gram_form_still_keeps_the_most(grad):
    which = sides(*grad.shape, "std")
    for form in (subspace, subspace_by_svd):
        P = form(grad, 3, which)[which[0]]
        torch.testing.assert_close(P.T @ P, torch.eye(3, dtype=P.dtype), rtol=0, atol=1e-6)
        unit = grad / grad.max() if grad.any() else grad
        lost = (unit - lift(lower(unit, {which[0]: P}), {which[0]: P})).norm().square()
        torch.testing.assert_close(lost, torch.linalg.svdvals(unit)[3:].square().sum(), rtol=1e-6, atol=1e-10)


class Identity(GaLore):
    """GaLore whose subspace is the whole space, in the coordinates of the matrix."""

    def before(self, slot, group):
        slot.state["right"] = torch.eye(slot.param.shape[1])
        return lower(slot.grad, {"right": slot.state["right"]})


@pytest.mark.parametrize("foreach", [False, True])
def test_with_the_identity_as_projector_it_is_torch_adamw(foreach):
    """eps apart, which torch adds after the correction: so it is made to vanish; decay apart, which torch does first."""
    grads = gradients((6, 4), 20)
    one, two = (nn.Parameter(torch.ones(6, 4)) for _ in range(2))
    ours = Identity([one], lr=0.01, rank=4, scale=1.0, eps=1e-30, foreach=foreach)
    theirs = torch.optim.AdamW([two], lr=0.01, eps=1e-30, weight_decay=0.0)
    torch.testing.assert_close(run(ours, one, grads), run(theirs, two, grads), rtol=1e-6, atol=1e-6)


def test_eps_and_decay_stand_where_the_authors_put_them():
    """By hand: W = 1, g = 3, one step, P = 1."""
    param = nn.Parameter(torch.ones(1, 1))
    run(GaLore([param], lr=0.1, rank=1, scale=1.0, eps=0.5, weight_decay=0.2), param, [torch.full((1, 1), 3.0)])
    step = 0.1 * 0.001**0.5 / 0.1
    moved = 1 - step * 0.3 / (0.009**0.5 + 0.5)
    assert param.item() == pytest.approx(moved * (1 - 0.1 * 0.2), abs=1e-6)


def test_vectors_and_groups_without_rank_take_plain_adamw_and_keep_its_bytes():
    bias, matrix = nn.Parameter(torch.ones(7)), nn.Parameter(torch.ones(5, 4))
    optimizer = GaLore([{"params": [bias], "rank": 3}, {"params": [matrix]}], lr=0.01, eps=1e-30)
    others = [nn.Parameter(torch.ones(7)), nn.Parameter(torch.ones(5, 4))]
    theirs = torch.optim.AdamW(others, lr=0.01, eps=1e-30, weight_decay=0.0)
    for grad7, grad54 in zip(gradients((7,), 5), gradients((5, 4), 5), strict=True):
        for params in ((bias, matrix), others):
            params[0].grad, params[1].grad = grad7.clone(), grad54.clone()
        optimizer.step()
        theirs.step()
    torch.testing.assert_close(
        [bias.detach(), matrix.detach()], [other.detach() for other in others], rtol=1e-5, atol=1e-6
    )
    for param in (bias, matrix):
        assert (
            sum(part.nbytes for part in optimizer.state[param].values() if torch.is_tensor(part)) == 8 * param.numel()
        )


def test_the_subspace_is_chosen_at_the_first_step_and_every_gap_after_it():
    param = nn.Parameter(torch.ones(6, 4))
    optimizer = GaLore([param], lr=0.01, rank=2, update_proj_gap=3)
    seen = []
    for grad in gradients((6, 4), 7):
        run(optimizer, param, [grad])
        seen.append(optimizer.state[param]["right"].clone())
    changed = [not torch.equal(a, b) for a, b in zip(seen, seen[1:], strict=False)]
    assert changed == [False, False, True, False, False, True]


def test_moments_are_neither_reset_nor_rotated_at_a_refresh():
    param = nn.Parameter(torch.ones(6, 4))
    optimizer = GaLore([param], lr=0.01, rank=2, update_proj_gap=1)
    first, second = gradients((6, 4), 2)
    run(optimizer, param, [first])
    before = optimizer.state[param]["exp_avg"].clone()
    run(optimizer, param, [second])
    expected = 0.9 * before + 0.1 * second @ optimizer.state[param]["right"]
    torch.testing.assert_close(optimizer.state[param]["exp_avg"], expected)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (5, 5)])
@pytest.mark.parametrize("side", SIDES)
def test_every_side_holds_its_shapes_and_steps_at_every_rank(side, shape, foreach):
    m, n = shape
    for rank in (1, min(shape)):
        param = nn.Parameter(torch.zeros(shape))
        optimizer = GaLore(
            [param], lr=0.1, rank=rank, proj_type=side, scale=1.0, base="sgd", momentum=0.0, foreach=foreach
        )
        grad = gradients(shape, 1)[0]
        run(optimizer, param, [grad])
        state = optimizer.state[param]
        U, S, Vh = torch.linalg.svd(grad, full_matrices=False)
        best = U[:, :rank] @ torch.diag(S[:rank]) @ Vh[:rank]  # every side of one gradient keeps its leading part
        torch.testing.assert_close(param.detach(), -0.1 * best, rtol=1e-4, atol=1e-5)
        assert {key: tuple(state[key].shape) for key in sides(m, n, side)} == {
            key: ((m if key == "left" else n), rank) for key in sides(m, n, side)
        }


def test_gradients_without_singular_vectors_are_refused_and_nothing_moves():
    one, two = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    optimizer = GaLore([("first", one), ("second", two)], lr=0.1, rank=2)
    one.grad, two.grad = torch.ones(4, 4), torch.full((4, 4), float("nan"))
    with pytest.raises(ValueError, match=r"'second' \(4, 4\) is not finite"):
        optimizer.step()
    assert torch.equal(one, torch.ones(4, 4))
    assert not optimizer.state


@pytest.mark.parametrize(
    ("options", "said"), [({"base": "lion"}, "base='lion'"), ({"proj_type": "up"}, "proj_type='up'")]
)
def test_unknown_words_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        GaLore([nn.Parameter(torch.ones(4, 4))], rank=2, **options)


def test_only_one_gradient_lives_in_the_backward_form():
    """Counted when each hook starts: the parameter's own gradient, and no other."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(4)])
    twin = copy.deepcopy(model)
    living = []
    for param in model.parameters():
        param.register_post_accumulate_grad_hook(
            lambda _: living.append(sum(other.grad is not None for other in model.parameters()))
        )
    fused, plain = (GaLore(one.parameters(), lr=0.01, rank=4, update_proj_gap=2) for one in (model, twin))
    with fuse_into_backward(fused):
        for x in gradients((5, 8), 5):
            model(x).square().sum().backward()
            plain.zero_grad()
            twin(x).square().sum().backward()
            plain.step()
    assert living == [1] * 5 * 8
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_blocks_keep_every_value_within_its_level_and_zero_exactly():
    x = torch.cat([torch.zeros(256), gradients((700,), 1)[0], torch.logspace(-5, 0, 100)])
    codes, absmax = quantize(x, signed=True)
    back = dequantize(codes, absmax, signed=True)
    assert codes.dtype == torch.uint8
    assert (len(codes), len(absmax)) == (len(x), 5)
    assert torch.equal(back[:256], torch.zeros(256))
    scale = absmax.repeat_interleave(256)[: len(x)]
    assert float(((back - x).abs() / scale)[256:].max()) < 0.01
    again = dequantize(*quantize(back, signed=True), signed=True)
    torch.testing.assert_close(again, back, rtol=1e-6, atol=0)  # what is a level stays one


def test_8_bit_moments_follow_32_bit_ones_closely():
    one, two = (nn.Parameter(torch.zeros(40, 30)) for _ in range(2))
    grads = [grad + 1 for grad in gradients((40, 30), 30)]
    narrow = run(GaLore8bit([one], lr=0.01, rank=8, update_proj_gap=10), one, grads)
    wide = run(GaLore([two], lr=0.01, rank=8, update_proj_gap=10), two, grads)
    assert float((narrow - wide).norm() / wide.norm()) < 0.05


def test_split_finds_names_and_refuses_a_pattern_that_finds_none():
    model = nn.ModuleDict({"attn": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})
    rest, found = split(model, [r"attn\.weight"], rank=2)
    assert [name for name, _ in found["params"]] == ["attn.weight"]
    assert len(rest["params"]) == 3
    with pytest.raises(ValueError, match="finds none of 4"):
        split(model, ["mlp"], rank=2)
