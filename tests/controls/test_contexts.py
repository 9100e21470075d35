"""Broken twins: each law of contexts must catch, by name, the context that breaks it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.core.card import Card
from loci.core.checking import broken_by
from loci.state.context import checks
from loci.state.context.base import Context

torch.set_num_threads(1)


class Plain(Context):
    """Sound: a prefix of keys that are trained, of values that are not, and a number trained that the last token's heads are
    stretched by."""

    card = Card(name="plain", kind="context", title="", says="", bytes="b*(2*L*H*d + L)")
    trained = frozenset({"keys", "stretch"})

    def __init__(self, L, H, d):
        super().__init__()
        self.L, self.H, self.d = L, H, d
        self.keys, self.stretch = nn.Parameter(torch.randn(L, 1, H, 1, d)), nn.Parameter(torch.ones(L))
        self.register_buffer("values", torch.randn(L, 1, H, 1, d))

    @staticmethod
    def sizes_of(model):
        return model.L, model.H, model.d

    def prefix(self):
        return list(zip(self.keys, self.values, strict=True)) if self.keys.numel() else None

    def edit(self, lengths):
        def edited(layer, heads):
            last = torch.arange(heads.shape[1]) == (lengths - 1).unsqueeze(1)
            return torch.where(last[..., None, None], heads * self.stretch[layer], heads).to(heads.dtype)

        return edited

    def neutral(self):
        twin = type(self)(self.L, self.H, self.d).to(self.keys)
        with torch.no_grad():
            twin.stretch.fill_(1)
        twin.keys = nn.Parameter(twin.keys[..., :0, :])
        return twin

    def shapes(self):
        return {"L": self.L, "H": self.H, "d": self.d, "b": self.keys.element_size()}


class Tuning(Plain):
    """Lets the gradient through to the model."""

    def forward(self, model, tokens, *, lengths=None):
        lengths = self.required(model, tokens, lengths)
        return model(tokens, prefix=self.prefix(), edit=self.edit(lengths))


class Freezing(Plain):
    """Freezes the model, and does not thaw it."""

    def forward(self, model, tokens, *, lengths=None):
        model.requires_grad_(False)
        return super().forward(model, tokens, lengths=lengths)


class Watching(Plain):
    """Leaves a hook behind."""

    def forward(self, model, tokens, *, lengths=None):
        model.head.register_forward_hook(lambda *_: None)
        return super().forward(model, tokens, lengths=lengths)


class Merging(Plain):
    """Writes a little into the weights."""

    def forward(self, model, tokens, *, lengths=None):
        with torch.no_grad():
            model.head.weight.add_(1e-9)
        return super().forward(model, tokens, lengths=lengths)


class Generous(Plain):
    """Keeps a spare that its card does not count."""

    def __init__(self, L, H, d):
        super().__init__(L, H, d)
        self.register_buffer("spare", torch.zeros(1))


class Hoarding(Plain):
    """Keeps what it saw last."""

    def forward(self, model, tokens, *, lengths=None):
        self.register_buffer("last", tokens)
        return super().forward(model, tokens, lengths=lengths)


class Thawed(Plain):
    """Trains what is frozen."""

    def __init__(self, L, H, d):
        super().__init__(L, H, d)
        values = self.values
        del self.values
        self.values = nn.Parameter(values)


class Idle(Plain):
    """One head's keys are taken as they are."""

    def prefix(self):
        found = super().prefix()
        return found and [(torch.cat([k[:, :1].detach(), k[:, 1:]], 1), v) for k, v in found]


class Leaning(Plain):
    """A gradient of twice its size."""

    def prefix(self):
        found = super().prefix()
        return found and [(2 * k - k.detach(), v) for k, v in found]


class Silent(Plain):
    """Keeps gradients and says what the model says."""

    def forward(self, model, tokens, *, lengths=None):
        said = super().forward(model, tokens, lengths=lengths)
        return said - said.detach() + model(tokens).detach()


class Alike(Plain):
    """Its numbers do not count."""

    def forward(self, model, tokens, *, lengths=None):
        return super().forward(model, tokens, lengths=lengths) * 0 + 2 * model(tokens).detach()


class Murmuring(Plain):
    """Says something even when it is neutral."""

    def forward(self, model, tokens, *, lengths=None):
        return super().forward(model, tokens, lengths=lengths) * (1 + 1e-2)


class Social(Plain):
    """Subtracts the mean of the batch."""

    def edit(self, lengths):
        mine = super().edit(lengths)
        return lambda layer, heads: mine(layer, heads - 1e-6 * heads.mean(0))


class Seeing(Plain):
    """Looks at tokens that are yet to come."""

    def edit(self, lengths):
        mine = super().edit(lengths)
        return lambda layer, heads: mine(layer, heads + 1e-6 * heads.flip(1).cumsum(1).flip(1))


class Misplaced(Plain):
    """Takes hold of the last token that is there, not of the prompt's."""

    def edit(self, lengths):
        mine = super().edit
        return lambda layer, heads: mine(torch.full_like(lengths, heads.shape[1]))(layer, heads)


class Upcasting(Plain):
    """Answers in float32, whatever the model says."""

    def forward(self, model, tokens, *, lengths=None):
        return super().forward(model, tokens, lengths=lengths).float()


class Own(Plain):
    """Answers in its own dtype, not in the model's."""

    def forward(self, model, tokens, *, lengths=None):
        return super().forward(model, tokens, lengths=lengths).to(self.keys.dtype)


class Private(Plain):
    """Has a scale that its file does not know."""

    def __init__(self, L, H, d):
        super().__init__(L, H, d)
        self.loudness = 1 + float(torch.rand(()))

    def forward(self, model, tokens, *, lengths=None):
        return super().forward(model, tokens, lengths=lengths) * self.loudness


class Lossy(Plain):
    """Saves a little less than it holds."""

    def save(self, path):
        held = {name: part.clone() for name, part in self.state_dict().items()}
        with torch.no_grad():
            self.keys.mul_(1.01)
        super().save(path)
        self.load_state_dict(held)


class Siamese(Plain):
    """Its copy is itself."""

    def __deepcopy__(self, memo):
        return self


class Credulous(Plain):
    """Takes any file, and of it what it can."""

    def load(self, path):
        from safetensors.torch import load_file

        self.load_state_dict({name: part.to(self.keys.dtype)[..., : self.d] for name, part in load_file(path).items()})
        return self


class Tiring(Plain):
    """Counts its calls and speaks lower with each."""

    turns = 0

    def forward(self, model, tokens, *, lengths=None):
        self.turns += 1
        return super().forward(model, tokens, lengths=lengths) / self.turns


class Dicey(Plain):
    """Draws from the global generator."""

    def prefix(self):
        torch.rand(())
        return super().prefix()


class Scribbling(Plain):
    """Writes over the tokens it was given."""

    def forward(self, model, tokens, *, lengths=None):
        said = super().forward(model, tokens, lengths=lengths)
        tokens[:, 0] = (tokens[:, 0] + 1) % 2
        return said


class Learning(Plain):
    """Changes itself as it speaks."""

    def forward(self, model, tokens, *, lengths=None):
        said = super().forward(model, tokens, lengths=lengths)
        self.values.add_(1e-3)
        return said


class Trusting(Plain):
    """Takes any model, any tokens and any lengths, and fails on them later or never."""

    def required(self, model, tokens, lengths):
        return torch.full((len(tokens),), tokens.shape[-1]) if lengths is None else lengths


class Strict(Plain):
    """Adds into a tensor of its own dtype, which autocast's products do not have."""

    def edit(self, lengths):
        mine = super().edit(lengths)

        def edited(layer, heads):
            return mine(layer, self.keys.new_zeros(heads.shape).index_add(0, torch.arange(len(heads)), heads))

        return edited


class Rounding(Plain):
    """Takes what autocast made half precise for a sign that little matters."""

    def forward(self, model, tokens, *, lengths=None):
        said = super().forward(model, tokens, lengths=lengths)
        return said if said.dtype != torch.bfloat16 else said + said.detach().round() - said.detach()


TWINS: list[tuple[object, type[Context]]] = [
    (checks.the_model_is_left_as_it_was, Tuning),
    (checks.the_model_is_left_as_it_was, Freezing),
    (checks.the_model_is_left_as_it_was, Watching),
    (checks.the_model_is_left_as_it_was, Merging),
    (checks.bytes_are_the_formula, Generous),
    (checks.bytes_are_the_formula, Hoarding),
    (checks.only_what_is_trained_learns, Thawed),
    (checks.only_what_is_trained_learns, Idle),
    (checks.only_what_is_trained_learns, Leaning),
    (checks.it_changes_what_is_said, Silent),
    (checks.it_changes_what_is_said, Alike),
    (checks.neutral_is_the_plain_model, Murmuring),
    (checks.rows_do_not_mix, Social),
    (checks.is_causal, Seeing),
    (checks.is_causal, Misplaced),
    (checks.dtype_is_kept, Upcasting),
    (checks.dtype_is_kept, Own),
    (checks.save_and_load_are_exact, Private),
    (checks.save_and_load_are_exact, Lossy),
    (checks.save_and_load_are_exact, Siamese),
    (checks.another_file_is_refused, Credulous),
    (checks.nothing_is_kept_between_calls, Tiring),
    (checks.nothing_is_kept_between_calls, Dicey),
    (checks.nothing_is_kept_between_calls, Scribbling),
    (checks.nothing_is_kept_between_calls, Learning),
    (checks.bad_input_is_refused, Trusting),
    (checks.runs_under_autocast, Strict),
    (checks.runs_under_autocast, Rounding),
]


@pytest.mark.parametrize(("law", "twin"), TWINS, ids=lambda part: part.__name__)
def test_the_law_catches_its_broken_twin(law, twin) -> None:
    assert broken_by(law, lambda: twin(2, 2, 4)), f"{law.__name__} lets {twin.__name__} pass"


def test_every_law_has_a_twin() -> None:
    assert {law for law, _ in TWINS} == set(checks.LAWS)


@pytest.mark.parametrize("law", checks.LAWS, ids=lambda law: law.__name__)
def test_the_twins_parent_keeps_every_law(law) -> None:
    law(lambda: Plain(2, 2, 4))


def test_a_context_that_trains_the_model_is_caught_by_that_law_alone() -> None:
    for law in (checks.bytes_are_the_formula, checks.rows_do_not_mix, checks.is_causal, checks.dtype_is_kept):
        assert not broken_by(law, lambda: Tuning(2, 2, 4))
