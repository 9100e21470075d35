"""The laws of contexts as data (`LAWS`), run over every member.

A law takes `make`; `make()` is the member with the arguments of its card. What is trained is nudged off its initial values
and what is frozen is drawn, so that one that starts at zero hides nothing. The model is an `OpenTransformer` of the member's
sizes whose weights do ask for a gradient: it is the context that keeps them frozen.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from loci.core import formula
from loci.core.checking import Case, Law, Make, cases, refused
from loci.state.checks import DOUBLE, DTYPES, gap, loss_of
from loci.state.context import contexts
from loci.state.context.base import Context
from loci.state.context.open_transformer import OpenTransformer

B, T, V = 3, 8, 11
LENGTHS = (T, 5, 1)  # a prompt that is all there is, one that is gone on from, one token


def context_cases() -> Iterator[Case]:
    """Every context under every law."""
    contexts()
    return cases("context", LAWS)


def built(make: Make, dtype: torch.dtype = DOUBLE, *, seed: int = 0) -> Context:
    """The member in a dtype, with the same numbers for the same seed."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        context: Context = make()
        for param in context.parameters():
            param.add_(0.5 * torch.randn(param.shape))
        for name, buffer in context.named_buffers():
            if buffer.is_floating_point() and name not in context.trained:
                buffer.copy_(torch.randn(buffer.shape))
    return context.to(dtype)


def model_for(context: Context, *, seed: int = 3, wider: int = 1) -> OpenTransformer:
    """A transformer of the context's sizes, in its dtype; `wider` times the heads are of no use to it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = context.H * wider
        model = OpenTransformer(V, D=heads * context.d, heads=heads, depth=context.L)
    return model.to(next(context.parameters()).dtype)


def drawn(*, seed: int = 1, batch: int = B, length: int = T) -> Tensor:
    """Tokens (B, T)."""
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(seed))


def the_model_is_left_as_it_was(make: Make) -> None:
    """Weights, what asks for a gradient, gradients, hooks and mode are as before, after a call and after its gradient."""
    context = built(make)
    model = model_for(context)
    model.norm.weight.requires_grad_(False)
    saved, asks = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    plain = model(drawn())
    for lengths in (None, torch.tensor(LENGTHS)):
        torch.autograd.backward(loss_of(context(model, drawn(), lengths=lengths)))
        grads = [name for name, param in model.named_parameters() if param.grad is not None]
        assert not grads, f"a gradient is left in {grads}"
        assert all(torch.equal(model.state_dict()[name], old) for name, old in saved.items()), (
            "the weights have changed"
        )
        assert [p.requires_grad for p in model.parameters()] == asks, "requires_grad has changed"
        for module in model.modules():
            hooks = [kind for kind in vars(module) if kind.endswith("_hooks") and getattr(module, kind)]
            assert not hooks, f"hooks are left in {type(module).__name__}: {hooks}"
            assert module.training, "the mode has changed"
        assert torch.equal(model(drawn()), plain), "the model answers otherwise"


def bytes_are_the_formula(make: Make) -> None:
    """Parameters and buffers take what the card says, in every dtype, and a call adds nothing to them."""
    for dtype in DTYPES:
        context = built(make, dtype)
        card = type(context).card  # type: ignore[attr-defined]
        for batch in (1, B):
            context(model_for(context), drawn(batch=batch))
            said = formula.evaluate(card.bytes, context.shapes())
            held = sum(part.numel() * part.element_size() for part in (*context.parameters(), *context.buffers()))
            assert held == said, f"in {dtype} it holds {held} bytes, {card.bytes} = {said}"


def only_what_is_trained_learns(make: Make) -> None:
    """Every number that is trained has a gradient, the right one; what is frozen has none, and a step leaves it alone."""
    context = built(make)
    model, tokens = model_for(context), drawn()
    asks = {name for name, param in context.named_parameters() if param.requires_grad}
    assert asks == context.trained, f"{sorted(asks)} ask for a gradient, {sorted(context.trained)} is what is trained"
    frozen = {name: part.clone() for name, part in context.state_dict().items() if name not in context.trained}
    torch.autograd.backward(loss_of(context(model, tokens)))
    for name, param in context.named_parameters():
        assert param.grad is not None, f"no gradient reaches {name}"
        assert bool((param.grad != 0).all()), f"no gradient reaches {int((param.grad == 0).sum())} numbers of {name}"
        _is_the_slope(context, param, lambda: loss_of(context(model, tokens)))
    torch.optim.SGD(context.parameters(), lr=0.1).step()
    now = context.state_dict()
    assert all(torch.equal(now[name], old) for name, old in frozen.items()), "what is frozen has moved"


def it_changes_what_is_said(make: Make) -> None:
    """Behind every prompt the logits differ from the plain model's, and from those of another context."""
    context, other = built(make), built(make, seed=9)
    model, tokens, lengths = model_for(context), drawn(), torch.tensor(LENGTHS)
    said, plain = _last(context(model, tokens, lengths=lengths)), _last(model(tokens))
    for what, beside in (
        ("the plain model's", plain),
        ("another context's", _last(other(model, tokens, lengths=lengths))),
    ):
        gaps = (said - beside).abs().amax(-1)
        assert bool((gaps > 1e-6).all()), f"a row's logits are {what}"


def neutral_is_the_plain_model(make: Make) -> None:
    """The neutral context of its kind changes nothing, in every dtype, whatever the lengths."""
    for dtype in DTYPES:
        context = built(make, dtype)
        model, neutral = model_for(context), context.neutral()
        for lengths in (None, torch.tensor(LENGTHS)):
            off = gap(neutral(model, drawn(), lengths=lengths), model(drawn()))
            assert off == 0, f"in {dtype} the neutral one is off by {off:.1e}"


def rows_do_not_mix(make: Make) -> None:
    """A row of a batch is what it is alone, whatever the other rows are."""
    context = built(make)
    model, tokens, lengths = model_for(context), drawn(), torch.tensor(LENGTHS)
    whole = context(model, tokens, lengths=lengths)
    for row in range(B):
        one = slice(row, row + 1)
        _close(context(model, tokens[one], lengths=lengths[one]), whole[one], f"row {row} alone")


def is_causal(make: Make) -> None:
    """Tokens to come change nothing that was said: prompts of any length may be padded, or gone on from."""
    context = built(make)
    model, tokens, other = model_for(context), drawn(), drawn(seed=5)
    lengths = torch.tensor([4, 3, 1])
    whole = context(model, tokens, lengths=lengths)
    for cut in (4, T - 1):
        changed = torch.cat([tokens[:, :cut], (other[:, cut:] + 1) % V], 1)
        _close(context(model, changed, lengths=lengths)[:, :cut], whole[:, :cut], f"with other tokens from {cut} on")
        _close(context(model, tokens[:, :cut], lengths=lengths), whole[:, :cut], f"cut at {cut}")


def dtype_is_kept(make: Make) -> None:
    """Logits are finite and of the model's dtype, in float32, bfloat16 and float64, also from a context in float32."""
    for dtype in DTYPES:
        context = built(make, dtype)
        model = model_for(context)
        for kept in (context, built(make, torch.float32)):
            logits = kept(model, drawn(), lengths=torch.tensor(LENGTHS))
            assert logits.dtype == dtype, f"a model in {dtype} says {logits.dtype}"
            assert bool(logits.isfinite().all()), f"logits in {dtype} are not finite"


def save_and_load_are_exact(make: Make) -> None:
    """Saved and loaded into one of other numbers, it answers bit for bit as before, and so does a copy, which stands alone."""
    for dtype in DTYPES:
        context, other = built(make, dtype), built(make, dtype, seed=9)
        model = model_for(context)
        before = context(model, drawn())
        with tempfile.TemporaryDirectory() as folder:
            context.save(Path(folder) / "context.safetensors")
            other.load(Path(folder) / "context.safetensors")
        assert torch.equal(other(model, drawn()), before), f"in {dtype} what was loaded answers otherwise"
        twin = copy.deepcopy(context)
        with torch.no_grad():
            for part in (*twin.parameters(), *twin.buffers()):
                part.add_(1)
        assert torch.equal(context(model, drawn()), before), "a context changes with its copy"
        assert not torch.equal(twin(model, drawn()), before), "a copy is the context itself"


def another_file_is_refused(make: Make) -> None:
    """A file of other shapes, another dtype or another method is a ValueError, and nothing is changed."""
    context, single = built(make), built(make, torch.float32)
    before = copy.deepcopy(context.state_dict())
    wider, stranger = built(make), built(make)
    for part in (*wider.parameters(), *wider.buffers()):
        part.data = torch.cat([part.data, part.data], -1)
    stranger.__class__ = type("Stranger", (type(context),), {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "context.safetensors"
        for other, words in ((wider, ("float64",)), (single, ("float32", "float64")), (stranger, ("Stranger",))):
            other.save(path)
            refused(lambda: context.load(path), *words)
            now = context.state_dict()
            assert all(torch.equal(now[name], old) for name, old in before.items()), "a refused file has changed it"


def nothing_is_kept_between_calls(make: Make) -> None:
    """The same call says the same; tokens, lengths, the context and torch's generator are left as they were."""
    context = built(make)
    model, tokens, lengths = model_for(context), drawn(), torch.tensor(LENGTHS)
    saved, given, random = copy.deepcopy(context.state_dict()), (tokens.clone(), lengths.clone()), torch.get_rng_state()
    first = context(model, tokens, lengths=lengths)
    context(model, drawn(seed=7, length=3))
    assert torch.equal(context(model, tokens, lengths=lengths), first), "the same call answers otherwise"
    assert torch.equal(torch.get_rng_state(), random), "it draws from torch's global generator"
    assert torch.equal(tokens, given[0]) and torch.equal(lengths, given[1]), "what was given was written to"  # noqa: PT018
    now = context.state_dict()
    assert all(torch.equal(now[name], old) for name, old in saved.items()), "a call has changed the context"


def bad_input_is_refused(make: Make) -> None:
    """A model of other sizes, what are no tokens, or lengths that do not fit, are one ValueError each."""
    context = built(make)
    model, tokens = model_for(context), drawn()
    refused(lambda: context(model_for(context, wider=2), tokens), str(context.H), str(2 * context.H))
    refused(lambda: context(model, tokens.double()), "float64")
    refused(lambda: context(model, tokens[0]), str((T,)))
    refused(lambda: context(model, tokens[:, :0]), str((B, 0)))
    refused(lambda: context(model, tokens + V), str(V - 1))
    refused(lambda: context(model, tokens - V), str(V - 1))
    refused(lambda: context(model, tokens, lengths=torch.tensor([T + 1, 1, 1])), "lengths", str(T + 1))
    refused(lambda: context(model, tokens, lengths=torch.tensor([0, 1, 1])), "lengths", "0")
    refused(lambda: context(model, tokens, lengths=torch.tensor([1, 1])), "lengths", str(B))
    refused(lambda: context(model, tokens, lengths=torch.ones(B)), "lengths", "float32")


def runs_under_autocast(make: Make) -> None:
    """Under autocast to bfloat16 logits are those of float32 within 0.2, and gradients finite."""
    context = built(make, torch.float32)
    model, lengths = model_for(context), torch.tensor(LENGTHS)
    want = context(model, drawn(), lengths=lengths)
    with torch.autocast("cpu", torch.bfloat16):
        try:
            got = context(model, drawn(), lengths=lengths)
        except Exception as error:
            raise AssertionError(f"under autocast it raises {type(error).__name__}: {error}") from error
    _close(got.float(), want, "autocast", 0.2)
    torch.autograd.backward(loss_of(got.float()))
    bad = [name for name, p in context.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not bad, f"under autocast the gradients of {bad} are not finite"


def _is_the_slope(context: Context, param: Tensor, loss: Callable[[], Tensor], *, step: float = 1e-6) -> None:
    """The gradient along a drawn direction is the central difference, within 1e-5 of its size."""
    assert param.grad is not None
    way = torch.randn(param.shape, generator=torch.Generator().manual_seed(4), dtype=param.dtype)
    with torch.no_grad():
        ends = []
        for sign in (1, -1):
            param.add_(sign * step * way)
            ends.append(float(loss()))
            param.sub_(sign * step * way)
    slope, said = (ends[0] - ends[1]) / (2 * step), float((param.grad * way).sum())
    assert abs(slope - said) <= 1e-5 * (1 + abs(slope)), f"the gradient says {said:.6g}, the slope is {slope:.6g}"


def _last(logits: Tensor) -> Tensor:
    """What is said at the end of each prompt of `LENGTHS`, (B, V)."""
    return logits[torch.arange(B), torch.tensor(LENGTHS) - 1]


def _close(got: Tensor, want: Tensor, what: str, within: float = 1e-10) -> None:
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, due is {tuple(want.shape)}"
    assert gap(got, want) <= within, f"{what} it is off by {gap(got, want):.1e}"


LAWS: tuple[Law, ...] = (
    the_model_is_left_as_it_was, bytes_are_the_formula, only_what_is_trained_learns, it_changes_what_is_said,
    neutral_is_the_plain_model, rows_do_not_mix, is_causal, dtype_is_kept, save_and_load_are_exact, another_file_is_refused,
    nothing_is_kept_between_calls, bad_input_is_refused, runs_under_autocast,
)  # fmt: skip
