"""The language model that is cut in two: what each loss reaches, and that names mean what they say."""

import pytest

torch = pytest.importorskip("torch")

from loci.lab.tasks.language import Transformer
from loci.lab.tasks.local_language import TwoBlocks, by_token

torch.set_num_threads(1)
SECOND = ("model.blocks.1.", "model.norm.", "model.head.")


def made(name):
    torch.manual_seed(0)
    cut = TwoBlocks(Transformer(11, T=6, D=16, H=2), name)
    x = torch.randint(11, (3, 6))
    return cut, x, x.roll(-1, 1)


def reached(cut, loss):
    named = [(name, param) for name, param in cut.named_parameters() if param.requires_grad]
    found = torch.autograd.grad(loss, [param for _, param in named], allow_unused=True)
    return {name for (name, _), grad in zip(named, found, strict=True) if grad is not None}


@pytest.mark.parametrize("name", ["greedy", "man", "local-reconstruction"])
def test_no_loss_crosses_the_cut(name):
    cut, x, y = made(name)
    first, second = (reached(cut, loss) for loss in cut.losses(x, y))
    trained = {name for name, param in cut.named_parameters() if param.requires_grad}
    assert second == {name for name in trained if name.startswith(SECOND)}
    assert first == trained - second


@pytest.mark.parametrize("name", ["greedy", "man", "local-reconstruction"])
def test_the_second_loss_is_the_model_s_own(name):
    cut, x, y = made(name)
    *_, last = cut.losses(x, y)
    assert torch.allclose(last, by_token(cut.model(x), y))


def test_the_average_follows_the_second_block_and_is_no_copy_of_the_first():
    cut, x, y = made("man")
    average = cut.branches[0].layer.mlp[0].weight
    with torch.no_grad():
        cut.model.blocks[1].mlp[0].weight.add_(1.0)
    list(cut.losses(x, y))
    moved = cut.branches[0].layer.mlp[0].weight - average
    assert torch.allclose(moved, torch.full_like(moved, 0.005), atol=1e-6)
