"""The laws of local trainers as data (`LAWS`), run over every member.

A law takes `make`; every call of `make()` builds the member afresh with the arguments of its card, and all such copies
start alike. Inputs come from the member's own `draw`.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from loci.core import formula
from loci.core.checking import Law, Make
from loci.weights.local.base import LocalTrainer
from loci.weights.local.saved import Saved
from loci.weights.optim.backward import fuse_into_backward
from loci.weights.optim.sgd_sai import SGDSaI

Batch: TypeAlias = tuple[Tensor, Tensor]


def batch(trainer: LocalTrainer, rows: int = 6, seed: int = 1) -> Batch:
    """Inputs and classes, the same every time."""
    return trainer.draw(rows, torch.Generator().manual_seed(seed))


def peak_saved_bytes(trainer: LocalTrainer, x: Tensor, y: Tensor) -> int:
    """The most that is saved for backward at one time of a pass, weights and inputs apart."""
    with Saved(trainer, x, y) as saved:
        _pass(trainer, x, y)
    return saved.peak


def each_loss_reaches_its_block_alone(make: Make) -> None:
    """The graph of loss i holds exactly the parameters of blocks()[i]; every other one is out of its reach."""
    trainer = make()
    losses, blocks = list(trainer.block_losses(*batch(trainer))), trainer.blocks()
    assert len(losses) == len(blocks), f"{len(losses)} losses for {len(blocks)} blocks"
    names = {id(param): name for name, param in trainer.named_parameters()}
    trained = [param for param in trainer.parameters() if param.requires_grad]
    for turn, (loss, block) in enumerate(zip(losses, blocks, strict=True)):
        assert loss.dim() == 0, f"loss {turn} is {tuple(loss.shape)}, a scalar is due"
        grads = torch.autograd.grad(loss, trained, allow_unused=True, retain_graph=True)
        reached = {names[id(param)] for param, grad in zip(trained, grads, strict=True) if grad is not None}
        own = {names.get(id(param), "a parameter of no module") for param in block}
        assert reached == own, f"loss {turn} reaches {sorted(reached - own)} beside and misses {sorted(own - reached)}"


def blocks_in_turn_train_as_all_at_once(make: Make) -> None:
    """Block by block, losses and gradients are those of the sum of all losses in one graph."""
    fast, slow = make(), make()
    losses = [float(loss) for loss in fast.backward_blocks(*batch(fast))]
    held = list(slow.block_losses(*batch(slow)))
    torch.autograd.backward(torch.stack(held).sum())
    for turn, (one, other) in enumerate(zip(losses, held, strict=True)):
        assert abs(one - float(other.detach())) <= 1e-6 * max(1, abs(one)), (
            f"loss {turn} is {one}, alone {float(other)}"
        )
    for (name, param), twin in zip(fast.named_parameters(), slow.parameters(), strict=True):
        assert (param.grad is None) == (twin.grad is None), f"{name} has a gradient in one form only"
        if param.grad is not None and twin.grad is not None:
            gap, size = float((param.grad - twin.grad).abs().max()), float(twin.grad.abs().max())
            assert gap <= 1e-6 * max(1, size), f"the gradient of {name} differs by {gap:.1e}"


def nothing_is_saved_between_blocks(make: Make) -> None:
    """When a loss is yielded its graph is gone, and losses carry none."""
    trainer = make()
    x, y = batch(trainer)
    with Saved(trainer, x, y) as saved:
        for turn, loss in enumerate(trainer.backward_blocks(x, y)):
            assert saved.now == 0, f"after block {turn} autograd still holds {saved.now} bytes"
            assert not loss.requires_grad, f"loss {turn} still has a graph"
    assert saved.peak > 0, "nothing was ever saved for backward"


def peak_saved_bytes_are_the_formula(make: Make) -> None:
    """The card's formula gives the peak to the byte, for small and larger batches, and it stays so."""
    trainer = make()
    for rows in (4, 12, 4):
        said = formula.evaluate(trainer.card.bytes, trainer.shapes(rows))
        held = peak_saved_bytes(trainer, *batch(trainer, rows))
        assert held == said, f"{rows} rows hold {held} bytes, the card says {trainer.card.bytes} = {said}"


def the_peak_is_one_block_not_their_sum(make: Make) -> None:
    """All graphs at once hold more than one pass of blocks ever does, unless there is one block."""
    trainer = make()
    x, y = batch(trainer)
    peak = peak_saved_bytes(trainer, x, y)
    with Saved(trainer, x, y) as saved:
        losses = list(trainer.block_losses(x, y))
    assert len(losses) == 1 or peak < saved.now, f"blocks in turn hold {peak} bytes, all at once {saved.now}"


def a_block_runs_when_it_is_asked_for(make: Make) -> None:
    """Between two losses the next block can still be changed, and its loss then is another."""
    trainer, twin = make(), make()
    blocks = trainer.blocks()
    if len(blocks) == 1:
        return
    plain = [float(loss.detach()) for loss in twin.block_losses(*batch(twin))]
    losses = iter(trainer.block_losses(*batch(trainer)))
    next(losses)
    with torch.no_grad():
        for param in blocks[1]:
            param.add_(torch.linspace(-1, 1, param.numel()).view_as(param))
    assert float(next(losses).detach()) != plain[1], "block 1 ran before its loss was asked for"


def steps_inside_backward(make: Make) -> None:
    """With an optimizer fused into backward a block is stepped before the next one runs, and no gradient is left."""
    trainer, twin = make(), make()
    plain = SGDSaI(twin.parameters(), lr=1e-3)
    slow = iter(twin.block_losses(*batch(twin)))
    with fuse_into_backward(SGDSaI(trainer.parameters(), lr=1e-3)):
        before = _copies(trainer)
        for turn, _ in enumerate(trainer.backward_blocks(*batch(trainer))):
            assert all(param.grad is None for param in trainer.parameters()), f"block {turn} leaves a gradient"
            torch.autograd.backward(next(slow))
            plain.step()
            plain.zero_grad()
            _near(trainer, twin, f"stepped inside backward, block {turn} goes another way")
            own = {id(param) for param in trainer.blocks()[turn]}
            moved = [
                (name, id(param) in own)
                for (name, param), old in zip(trainer.named_parameters(), before, strict=True)
                if param.requires_grad and not torch.equal(param, old)
            ]
            strangers = [name for name, mine in moved if not mine]
            assert moved, f"block {turn} was not stepped"
            assert not strangers, f"{strangers} moved with block {turn}"
            before = _copies(trainer)


def training_learns(make: Make) -> None:
    """150 steps of AdamW on 16 rows: the scores then give at least three in four their class, and more than before."""
    trainer = make()
    x, y = batch(trainer, 16)
    start = _right(trainer, x, y)
    optimizer = torch.optim.AdamW(trainer.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        _pass(trainer, x, y)
        optimizer.step()
    end = _right(trainer, x, y)
    assert end >= max(0.75, start + 0.1), f"{start:.0%} right before training on 16 rows, {end:.0%} after"


def forward_is_scores_and_changes_nothing(make: Make) -> None:
    """One row of scores for each row of x, in evaluation always the same ones, and no state moves."""
    trainer = make().eval()
    x, y = batch(trainer)
    before = copy.deepcopy(trainer.state_dict())
    scores, again = trainer(x), trainer(x)
    assert scores.dim() == 2, f"scores are {tuple(scores.shape)}, (B, C) is due"
    assert len(scores) == len(x), f"{len(scores)} rows of scores for {len(x)} of x"
    assert scores.shape[1] > int(y.max()), f"{scores.shape[1]} scores do not cover class {int(y.max())}"
    assert torch.equal(scores, again), "two calls of forward differ"
    assert _equal(trainer.state_dict(), before), "forward changed the state"


def forward_needs_no_helper(make: Make) -> None:
    """Helpers can be anything, scores stay as they are; what a loss trains and `forward` never reads is a helper."""
    trainer = make().eval()
    x, _ = batch(trainer)
    helping = {id(param) for module in trainer.helpers() for param in module.parameters()}
    named = [(name, param) for name, param in trainer.named_parameters() if param.requires_grad]
    grads = torch.autograd.grad(trainer(x).sum(), [param for _, param in named], allow_unused=True)
    for (name, param), grad in zip(named, grads, strict=True):
        read, helper = grad is not None, id(param) in helping
        assert read != helper, f"forward {'reads the helper' if read else 'never reads'} {name}; see helpers()"
    scores = trainer(x)
    with torch.no_grad():
        for module in trainer.helpers():
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.copy_(torch.full_like(tensor, 3))
    assert torch.equal(trainer(x), scores), "forward reads a helper"


def rows_do_not_mix(make: Make) -> None:
    """In evaluation a row's scores are its own, and so they are in training where nothing normalises over the batch."""
    trainer = make()
    x, _ = batch(trainer)
    over_rows = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in trainer.modules())
    for training in (False, True):
        if training and over_rows:
            continue
        trainer.train(training)
        scores = trainer(x).detach()
        for row in range(len(x)):
            gap = float((trainer(x[row : row + 1]).detach() - scores[row]).abs().max())
            assert gap <= 1e-5, (
                f"row {row} alone scores otherwise by {gap:.1e} in {'training' if training else 'evaluation'}"
            )


def state_dict_continues_bitwise(make: Make) -> None:
    """Saved, loaded into a fresh trainer and continued, a run is as without a break, averages and draws included."""
    trainer, fresh = make(), make()
    _descend(trainer, 3)
    file = io.BytesIO()
    torch.save(trainer.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file))
    assert _equal(fresh.state_dict(), trainer.state_dict()), "loading changed the state"
    losses, others = _descend(trainer, 3), _descend(fresh, 3)
    assert losses == others, f"a loaded trainer has losses {others}, without a break {losses}"
    assert _equal(fresh.state_dict(), trainer.state_dict()), "a loaded trainer goes another way"


def same_seed_same_run(make: Make) -> None:
    """Two runs agree bit for bit, whatever torch's global generator did, and leave that generator alone."""
    runs = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        trainer = make()
        runs.append((_descend(trainer, 3), trainer.state_dict()))
        assert torch.equal(torch.get_rng_state(), before), "it drew from torch's global generator"
    assert _equal(runs[0], runs[1]), "two runs of the same calls differ"


def inputs_are_left_alone(make: Make) -> None:
    """Neither x nor y is written to, and no gradient goes back to x."""
    trainer = make()
    x, y = batch(trainer)
    before = x.clone(), y.clone()
    x = x.clone().requires_grad_(x.is_floating_point())
    _pass(trainer, x, y)
    assert torch.equal(x, before[0]), "x was written to"
    assert torch.equal(y, before[1]), "y was written to"
    assert x.grad is None, "a gradient went back to x"


def runs_in_bfloat16(make: Make) -> None:
    """In bfloat16 parameters stay bfloat16, losses stay finite."""
    trainer = make().to(torch.bfloat16)
    losses = _descend(trainer, 3)
    assert torch.tensor(losses).isfinite().all(), f"losses are {losses}"
    assert {param.dtype for param in trainer.parameters()} == {torch.bfloat16}, "parameters changed their dtype"
    assert all(param.isfinite().all() for param in trainer.parameters()), "parameters are not finite"


def bad_input_is_refused(make: Make) -> None:
    """Classes out of range, rows that do not fit and empty batches are one ValueError each, and nothing has changed."""
    trainer = make()
    x, y = batch(trainer)
    classes = trainer(x).shape[1]
    wide = torch.cat([x, x], dim=1 if x.dim() == 4 else -1)
    bad: dict[str, Batch] = {
        "class too high": (x, torch.full_like(y, classes)),
        "class below 0": (x, y - classes),
        "classes that are not integers": (x, y.double()),
        "too few classes": (x, y[:-1]),
        "rows too wide": (wide, y),
        "one dimension too many": (x[..., None], y),
        "empty batch": (x[:0], y[:0]),
    }
    before = copy.deepcopy(trainer.state_dict())
    for what, (rows, labels) in bad.items():
        _refused(partial(_pass, trainer, rows, labels), what)
        assert all(param.grad is None for param in trainer.parameters()), f"gradients were left by: {what}"
        assert _equal(trainer.state_dict(), before), f"the state was changed by: {what}"
    for what in ("rows too wide", "one dimension too many", "empty batch"):
        _refused(partial(trainer, bad[what][0]), f"{what} in forward")


def _pass(trainer: LocalTrainer, x: Tensor, y: Tensor) -> None:
    for _ in trainer.backward_blocks(x, y):
        pass


def _descend(trainer: LocalTrainer, steps: int) -> list[list[float]]:
    """Plain gradient steps, each on rows of its own; all losses. The optimizer has no state that could be lost."""
    optimizer = torch.optim.SGD(trainer.parameters(), lr=0.01)
    dtype = next(trainer.parameters()).dtype
    losses = []
    for step in range(steps):
        x, y = batch(trainer, seed=step)
        x = x.to(dtype) if x.is_floating_point() else x
        optimizer.zero_grad()
        losses.append([float(loss) for loss in trainer.backward_blocks(x, y)])
        optimizer.step()
    return losses


def _right(trainer: LocalTrainer, x: Tensor, y: Tensor) -> float:
    trainer.eval()
    with torch.no_grad():
        share = float((trainer(x).argmax(1) == y).float().mean())
    trainer.train()
    return share


def _copies(trainer: LocalTrainer) -> list[Tensor]:
    return [param.detach().clone() for param in trainer.parameters()]


def _near(one: LocalTrainer, two: LocalTrainer, what: str) -> None:
    for (name, param), other in zip(one.named_parameters(), two.parameters(), strict=True):
        gap = float((param.detach() - other.detach()).abs().max())
        assert gap <= 1e-5, f"{what}: {name} by {gap:.1e}"


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    if isinstance(one, Sequence) and not isinstance(one, str):
        return len(one) == len(two) and all(map(_equal, one, two))
    return bool(one == two)


def _refused(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except ValueError:
        return
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__} was raised, not ValueError: {error}") from error
    raise AssertionError(f"{what}: nothing was raised where a ValueError is due")


LAWS: tuple[Law, ...] = (
    each_loss_reaches_its_block_alone, blocks_in_turn_train_as_all_at_once, nothing_is_saved_between_blocks,
    peak_saved_bytes_are_the_formula, the_peak_is_one_block_not_their_sum, a_block_runs_when_it_is_asked_for,
    steps_inside_backward, training_learns, forward_is_scores_and_changes_nothing, forward_needs_no_helper,
    rows_do_not_mix, state_dict_continues_bitwise, same_seed_same_run, inputs_are_left_alone, runs_in_bfloat16,
    bad_input_is_refused,
)  # fmt: skip
