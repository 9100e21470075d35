"""Every optimizer on parameters that `fully_shard` has cut among two processes, beside one process that holds them whole.

The two run this file as a program: one run for all tests, on the loopback device, that leaves its findings in a file.
"""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch.distributed.tensor")

from torch import nn

from loci.weights.optim import optimizers
from loci.weights.optim.backward import fuse_into_backward
from loci.weights.optim.base import Composed
from loci.weights.optim.galore import GaLore, GaLore8bit
from loci.weights.optim.lamb import LAMB
from loci.weights.optim.sgd_sai import SGDSaI

torch.set_num_threads(1)
pytestmark = pytest.mark.xdist_group("processes")  # one worker makes the runs that all of them look at
WORLD, STEPS = 2, 4
NAMES = sorted(optimizers())


class Block(nn.Module):
    """Attention and an MLP; no biases whose gradient is zero but for rounding, which Adam would blow up."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        B, T, D = x.shape
        q, k, v = self.qkv(self.norm(x)).view(B, T, 3, 2, D // 2).permute(2, 0, 3, 1, 4)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, D))
        return x + self.down(self.up(x).relu())


class Model(nn.Module):
    """17 words, so that the two processes do not hold the same number of rows."""

    def __init__(self, width=32):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.block, self.head = (
            nn.Embedding(17, width),
            Block(width),
            nn.Linear(width, 17, bias=width < 512),
        )

    def loss(self, x):
        return nn.functional.cross_entropy(self(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())

    def forward(self, x):
        return self.head(self.block(self.embed(x)))


def cut(model):
    from torch.distributed.fsdp import fully_shard

    fully_shard(model.block)
    return fully_shard(model, reshard_after_forward=True)  # forward passes without backward leave no copy either


def batch(step):
    return torch.randint(0, 17, (4, 8), generator=torch.Generator().manual_seed(step))


def mine(step):
    return batch(step).chunk(WORLD)[int(os.environ["RANK"])]


def step(optimizer, model, x):
    if optimizer.zeroth_order:
        optimizer.step(lambda: model.loss(x))
    else:
        optimizer.zero_grad()
        model.loss(x).backward()
        optimizer.step()


def gap(whole, parts):
    return max(
        float((one - (two.full_tensor() if hasattr(two, "full_tensor") else two)).abs().max())
        for one, two in zip(whole.parameters(), parts.parameters(), strict=True)
    )


def rows_of_state(optimizer):
    """The tensors of the state as this process holds them."""
    held = [part for state in optimizer.state.values() for part in state.values() if isinstance(part, torch.Tensor)]
    return [part.to_local() if hasattr(part, "to_local") else part for part in held], held


def built(name, foreach):
    """The member on a whole model and on one that is cut; 8-bit blocks of 256 need shards that are multiples of it."""
    member, width = optimizers()[name], 512 if "8bit" in name else 32
    example = dict(member.card.example)
    options = {**example, "lr": example["lr"] / 10} | ({} if member.zeroth_order else {"foreach": foreach})
    models = Model(width), cut(Model(width))
    return models, tuple(member(model.named_parameters(), **options) for model in models), options


def trained(name, foreach):
    (whole, parts), (one, two), options = built(name, foreach)
    for turn in range(STEPS // 2):
        step(one, whole, batch(turn))
        step(two, parts, mine(turn))
    file = io.BytesIO()
    torch.save({"model": parts.state_dict(), "optimizer": two.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file)
    twin = cut(Model(whole.head.in_features))
    twin.load_state_dict(saved["model"])
    three = optimizers()[name](twin.named_parameters(), **options)
    three.load_state_dict(saved["optimizer"])
    for turn in range(STEPS // 2, STEPS):
        step(one, whole, batch(turn))
        step(two, parts, mine(turn))
        step(three, twin, mine(turn))
    local, held = rows_of_state(two)
    return {
        "gap": gap(whole, parts),
        "moved": gap(Model(whole.head.in_features), whole),
        "resumed": all(
            torch.equal(a.to_local(), b.to_local()) for a, b in zip(parts.parameters(), twin.parameters(), strict=True)
        ),
        "partial": sum(place.is_partial() for part in held for place in getattr(part, "placements", ())),
        "bytes": sum(part.nbytes for part in local),
        "bytes_whole": sum(part.nbytes for part in rows_of_state(one)[0]),
    }


def refused():
    """What each process says of a gradient that is not finite in the rows of one of them, and whether weights moved."""
    parts = cut(Model())
    optimizer = GaLore(parts.named_parameters(), rank=2)
    parts.loss(mine(0)).backward()
    if os.environ["RANK"] == "1":
        parts.head.weight.grad.to_local()[-1] = float("nan")
    try:
        optimizer.step()
    except ValueError as error:
        return {"said": str(error), "moved": gap(Model(), parts)}
    return {"said": "", "moved": gap(Model(), parts)}


def in_backward():
    whole, parts = Model(), cut(Model())
    one, two = (GaLore(model.named_parameters(), rank=2, lr=0.01) for model in (whole, parts))
    with fuse_into_backward(two):
        for turn in range(STEPS):
            step(one, whole, batch(turn))
            parts.loss(mine(turn)).backward()
    return {"gap": gap(whole, parts), "moved": gap(Model(), whole)}


def clipped():
    whole, parts = Model(), cut(Model())
    one, two = (LAMB(model.named_parameters(), lr=0.01, max_grad_norm=0.1) for model in (whole, parts))
    for turn in range(STEPS):
        step(one, whole, batch(turn))
        step(two, parts, mine(turn))
    return {"gap": gap(whole, parts), "moved": gap(Model(), whole)}


def beside_whole_ones():
    """One module is cut, the other is not: fused lists must not mix them."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
    twin = copy.deepcopy(model)
    fully_shard(model[0])
    moved = []
    for layers in (twin, model):
        optimizer = LAMB(layers.parameters(), lr=0.01, foreach=True)
        for _ in range(2):
            layers[1](layers[0](torch.ones(3, 6))).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        moved.append(layers)
    return {"gap": gap(*moved)}


def zero_rows():
    """SGD-SaI where one process has rows of zero gradient alone: the factor is the tensor's."""
    whole, parts = Model(), cut(Model())
    one, two = (SGDSaI([model.embed.weight], lr=0.01) for model in (whole, parts))
    words = torch.tensor([[1, 2, 3, 4]] * 2)
    whole.loss(words).backward()
    parts.loss(words).backward()
    one.step()
    two.step()
    return {"gap": gap(whole, parts), "moved": gap(Model(), whole)}


def eight_bits_of_uneven_rows():
    """Blocks that begin anew in each shard stand for other maxima, so this run is near the other one, no more."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    whole = nn.Linear(30, 37)
    parts, before = fully_shard(copy.deepcopy(whole)), whole.weight.detach().clone()
    x = torch.randn(8, 30, generator=torch.Generator().manual_seed(1))  # of a rank above that of the subspace
    one, two = (GaLore8bit(layer.parameters(), lr=0.01, rank=4) for layer in (whole, parts))
    for _ in range(STEPS):
        for layer, optimizer in ((whole, one), (parts, two)):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    kept = two.state[parts.weight]
    return {
        "gap": gap(whole, parts),
        "moved": float((whole.weight.detach() - before).abs().max()),
        "blocks": {name: list(kept[f"{name}_absmax"].full_tensor().shape) for name in ("exp_avg", "exp_avg_sq")},
        "same_shape": list(kept["exp_avg"].full_tensor().shape) == list(one.state[whole.weight]["exp_avg"].shape),
    }


def main(folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=int(os.environ["RANK"]), world_size=WORLD,
        timeout=timedelta(seconds=120),
    )  # fmt: skip
    found = {}
    for name in NAMES:
        forms = (None,) if optimizers()[name].zeroth_order else (False, True)
        for foreach in forms:
            found[f"{name} {foreach}"] = trained(name, foreach)
    found |= {case.__name__: case() for case in CASES}
    Path(folder, f"{os.environ['RANK']}.json").write_text(json.dumps(found), "utf-8")
    torch.distributed.destroy_process_group()


CASES = (refused, in_backward, clipped, beside_whole_ones, zero_rows, eight_bits_of_uneven_rows)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each process found."""
    folder = tmp_path_factory.mktemp("ranks")
    here = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": "ignore"}
    with ExitStack() as stack:
        ranks = []
        for rank in range(WORLD):
            said = stack.enter_context((folder / f"{rank}.said").open("w"))
            program = subprocess.Popen(  # noqa: S603
                [sys.executable, __file__, str(folder)], env={**here, "RANK": str(rank)}, stdout=said, stderr=said
            )
            ranks.append(stack.enter_context(program))
            stack.callback(program.kill)
        codes = [program.wait(timeout=540) for program in ranks]
    assert codes == [0] * WORLD, "\n".join((folder / f"{rank}.said").read_text() for rank in range(WORLD))
    return [json.loads((folder / f"{rank}.json").read_text("utf-8")) for rank in range(WORLD)]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one_does(found, name):
    for rank in found:
        for case in [rank[key] for key in rank if key.split(" ")[0] == name]:
            assert case["moved"] > 1e-4
            assert case["gap"] <= 1e-5, case


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_state_goes_on_to_the_bit(found, name):
    for rank in found:
        for case in [rank[key] for key in rank if key.split(" ")[0] == name]:
            assert case["resumed"]
            assert case["partial"] == 0, "a state tensor is a sum that was never taken"


def test_a_process_holds_its_rows_of_moments_and_all_of_a_basis(found):
    """By hand, 4 bytes each, in the process of the larger half (9 of 17 rows)."""
    rows = 2 * 9 * 32 + (48 + 16 + 32) * 32 + 16 * 64 + 2 * 16 + 16 + 32 + 16 + 9  # matrices, two norms, biases
    assert found[0]["lamb True"]["bytes"] == 2 * 4 * rows
    assert found[0]["lars True"]["bytes"] == 4 * rows
    r, vectors = 2, 2 * 16 + 16 + 32 + 16 + 9
    tall = (48 + 16 + 32) * r * 2 + 3 * 32 * r  # moments of its rows, and a basis (32, r) each: qkv, out, up
    wide = 2 * (32 * r * 2 + 17 * r) + (
        64 * r * 2 + 32 * r
    )  # embed, head, down: moments (r, n) and basis (m, r), whole
    assert found[0]["galore True"]["bytes"] == 4 * (tall + wide + 2 * vectors)


def test_all_refuse_what_one_cannot_take_and_no_weight_moves(found):
    for rank in found:
        assert "'head.weight' (17, 32) is not finite" in rank["refused"]["said"]
        assert rank["refused"]["moved"] == 0


@pytest.mark.parametrize("case", ["in_backward", "clipped", "beside_whole_ones", "zero_rows"])
def test_other_ways_to_step_are_those_of_one_process(found, case):
    for rank in found:
        assert rank[case]["gap"] <= 1e-5
        assert rank[case].get("moved", 1) > 1e-4


def test_blocks_of_uneven_shards_keep_their_shapes_and_stay_near(found):
    for rank in found:
        case = rank["eight_bits_of_uneven_rows"]
        assert case["gap"] < 0.1 * case["moved"]
        assert case["same_shape"]
        assert set(map(tuple, case["blocks"].values())) == {(2,)}  # one block each, however few its rows


def test_composed_members_are_among_them():
    assert sum(issubclass(member, Composed) for member in optimizers().values()) > 5


if __name__ == "__main__":
    main(sys.argv[1])
