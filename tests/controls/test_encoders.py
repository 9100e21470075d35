"""Broken twins: each law of encoders must catch, by name, the encoder that breaks it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.core.card import Card
from loci.core.checking import broken_by
from loci.state.encoder import checks
from loci.state.encoder.base import Encoder

torch.set_num_threads(1)


class Plain(Encoder):
    """Sound: each moment beside the mean of its row."""

    card = Card(name="plain", kind="encoder", title="", says="", bytes="b*(2*D*D + D)")

    def __init__(self, D):
        super().__init__()
        self.D = D
        self.out = nn.Linear(2 * D, D)

    def shapes(self, batch):
        return {"D": self.D, "b": self.out.weight.element_size()}

    def mean(self, x, heard):
        return x.sum(1, keepdim=True) / heard.sum(1).clamp(min=1).view(-1, 1, 1).to(x.dtype)

    def encode(self, x, heard):
        return self.out(torch.cat([x, self.mean(x, heard).expand_as(x)], -1)).tanh()


class Diluting(Plain):
    """Divides by how long the batch is, and not by how long the row."""

    def mean(self, x, heard):
        return x.mean(1, keepdim=True)


class Eavesdropping(Plain):
    """Reads what is beyond the length, before it is taken away."""

    def forward(self, x, *, lengths=None):
        return super().forward(x, lengths=lengths) + x[:, -1:].detach() * 1e-6


class Murmuring(Plain):
    """Says something beyond the length."""

    def forward(self, x, *, lengths=None):
        return super().forward(x, lengths=lengths) + 1e-3


class Social(Plain):
    """Subtracts the mean of the batch."""

    def encode(self, x, heard):
        y = super().encode(x, heard)
        return y - 1e-6 * y.mean(0)


class Causal(Plain):
    """Takes the mean of what came before."""

    def mean(self, x, heard):
        return x.cumsum(1)


class Waiting(Plain):
    """Takes the mean of what is to come."""

    def mean(self, x, heard):
        return x.flip(1).cumsum(1).flip(1)


class Generous(Plain):
    """Keeps a spare that its card does not count."""

    def __init__(self, D):
        super().__init__(D)
        self.register_buffer("spare", torch.zeros(1))


class Hoarding(Plain):
    """Keeps what it heard last, once it heard anything."""

    def encode(self, x, heard):
        self.register_buffer("last", x.detach())
        return super().encode(x, heard)


class Idle(Plain):
    """Has a parameter that does nothing."""

    def __init__(self, D):
        super().__init__(D)
        self.idle = nn.Parameter(torch.ones(3))


class Deaf(Plain):
    """Learns nothing through what it hears at its second moment."""

    def encode(self, x, heard):
        return super().encode(torch.cat([x[:, :1], x[:, 1:2].detach(), x[:, 2:]], 1), heard)


class Leaking(Plain):
    """Lets a gradient into the padding, of which it says nothing."""

    def forward(self, x, *, lengths=None):
        return super().forward(x, lengths=lengths) + (x - x.detach()).nan_to_num()


class Private(Plain):
    """Draws a scale that its state dict does not know."""

    def __init__(self, D):
        super().__init__(D)
        self.loudness = 1 + float(torch.rand(()))

    def encode(self, x, heard):
        return super().encode(x, heard) * self.loudness


class Siamese(Plain):
    """Its copy is itself."""

    def __deepcopy__(self, memo):
        return self


class Upcasting(Plain):
    """Answers in float32, whatever it was asked in."""

    def forward(self, x, *, lengths=None):
        return super().forward(x, lengths=lengths).float()


class Coarse(Plain):
    """Is another network in float32: it rounds to a hundredth."""

    def encode(self, x, heard):
        y = super().encode(x, heard)
        return y if y.dtype != torch.float32 else y + (y.detach() * 100).round() / 100 - y.detach()


class Tiring(Plain):
    """Counts its calls and speaks lower with each."""

    turns = 0

    def encode(self, x, heard):
        self.turns += 1
        return super().encode(x, heard) / self.turns


class Dicey(Plain):
    """Draws from the global generator."""

    def encode(self, x, heard):
        torch.rand(())
        return super().encode(x, heard)


class Scribbling(Plain):
    """Writes its zeros over the padding that it was given."""

    def forward(self, x, *, lengths=None):
        with torch.no_grad():
            x[~self.heard(x, lengths)] = 0
        return super().forward(x, lengths=lengths)


class Learning(Plain):
    """Changes its weights as it speaks."""

    def forward(self, x, *, lengths=None):
        with torch.no_grad():
            self.out.bias.add_(1e-3)
        return super().forward(x, lengths=lengths)


class Dividing(Plain):
    """Divides by a length that may be zero: not finite where it is silent, and in every gradient."""

    def mean(self, x, heard):
        return x.sum(1, keepdim=True) / heard.sum(1).view(-1, 1, 1).to(x.dtype)


class Needing(Plain):
    """Needs a moment, at the least."""

    def forward(self, x, *, lengths=None):
        assert x.shape[1], "nothing to hear"
        return super().forward(x, lengths=lengths)


class Trusting(Plain):
    """Takes anything, and fails on it later or never."""

    def heard(self, x, lengths):
        lengths = torch.full((len(x),), x.shape[1]) if lengths is None else lengths
        return torch.arange(x.shape[1]) < lengths.unsqueeze(1)


class Blind(Plain):
    """Looks at shapes and not at values."""

    def forward(self, x, *, lengths=None):
        return super().forward(x.nan_to_num(), lengths=lengths)


class Compiled(Plain):
    """Is another network once it is compiled."""

    def encode(self, x, heard):
        return super().encode(x, heard) * (1.01 if torch.compiler.is_compiling() else 1)


class Strict(Plain):
    """Adds into a buffer of the input's dtype, which autocast's products do not have."""

    def encode(self, x, heard):
        y = super().encode(x, heard)
        return torch.zeros_like(x).index_add(0, torch.arange(len(y)), y)


class Rounding(Plain):
    """Takes what autocast made half precise for a sign that little matters."""

    def encode(self, x, heard):
        y = super().encode(x, heard)
        return y if y.dtype != torch.bfloat16 else y + y.detach().round() - y.detach()


TWINS: list[tuple[object, type[Encoder]]] = [
    (checks.padding_changes_nothing, Diluting),
    (checks.padding_changes_nothing, Eavesdropping),
    (checks.nothing_is_said_of_padding, Murmuring),
    (checks.rows_do_not_mix, Social),
    (checks.looks_both_ways, Causal),
    (checks.looks_both_ways, Waiting),
    (checks.bytes_are_the_formula, Generous),
    (checks.bytes_are_the_formula, Hoarding),
    (checks.gradient_reaches_every_parameter, Idle),
    (checks.gradient_reaches_every_parameter, Deaf),
    (checks.gradient_reaches_every_parameter, Leaking),
    (checks.state_dict_round_trip, Private),
    (checks.state_dict_round_trip, Siamese),
    (checks.dtype_is_kept, Upcasting),
    (checks.single_precision_is_near_double, Coarse),
    (checks.nothing_is_kept_between_calls, Tiring),
    (checks.nothing_is_kept_between_calls, Dicey),
    (checks.nothing_is_kept_between_calls, Scribbling),
    (checks.nothing_is_kept_between_calls, Learning),
    (checks.hearing_nothing_is_allowed, Dividing),
    (checks.hearing_nothing_is_allowed, Needing),
    (checks.bad_input_is_refused, Trusting),
    (checks.bad_input_is_refused, Blind),
    (checks.runs_under_compile, Compiled),
    (checks.runs_under_autocast, Strict),
    (checks.runs_under_autocast, Rounding),
]


@pytest.mark.parametrize(("law", "twin"), TWINS, ids=lambda part: part.__name__)
def test_the_law_catches_its_broken_twin(law, twin) -> None:
    assert broken_by(law, lambda: twin(4)), f"{law.__name__} lets {twin.__name__} pass"


def test_every_law_has_a_twin() -> None:
    assert {law for law, _ in TWINS} == set(checks.LAWS)


@pytest.mark.parametrize("law", checks.LAWS, ids=lambda law: law.__name__)
def test_the_twins_parent_keeps_every_law(law) -> None:
    law(lambda: Plain(4))


def test_one_way_is_caught_by_looking_both_ways_alone() -> None:
    for law in (checks.padding_changes_nothing, checks.rows_do_not_mix, checks.gradient_reaches_every_parameter):
        assert not broken_by(law, lambda: Causal(4))
