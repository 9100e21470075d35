"""Broken twins: each law of decoders must catch, by name, the decoder that breaks it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.core.card import Card
from loci.core.checking import broken_by
from loci.state.decoder import checks
from loci.state.decoder.base import Decoder

torch.set_num_threads(1)
CARD = Card(name="plain", kind="decoder", title="", says="", bytes="b*B*D", example={})


class Plain(Decoder):
    """Sound: a leaky sum of embeddings, and what follows from it."""

    card = CARD

    def __init__(self, V=7, D=4):
        super().__init__()
        self.V = V
        self.embedding, self.head = nn.Embedding(V, D), nn.Linear(D, V)

    def initial_state(self, batch):
        return (self.head.weight.new_zeros(batch, self.head.in_features),)

    def shapes(self, state):
        return {"b": state[0].element_size(), "B": len(state[0]), "D": self.head.in_features}

    def read(self, tokens, state):
        (h,), said = state, []
        for x in self.embedding(tokens).unbind(1):
            h = h / 2 + x
            said.append(self.head(h))
        return torch.stack(said, 1), (h,)


class Hurried(Plain):
    """Reads from an empty state, whichever was given, but for its first."""

    def read(self, tokens, state):
        return super().read(tokens, (state[0] * 0.9,))


class Prescient(Plain):
    """Subtracts the mean over the text."""

    def read(self, tokens, state):
        logits, last = super().read(tokens, state)
        return logits - 1e-6 * logits.mean(1, keepdim=True), last


class Deaf(Plain):
    """Says the same whatever it hears."""

    def read(self, tokens, state):
        return super().read(tokens * 0, state)


class Social(Plain):
    """Subtracts the mean of the batch."""

    def read(self, tokens, state):
        logits, last = super().read(tokens, state)
        return logits - logits.mean(0), last


class Wide(Plain):
    """Carries twice what its card says."""

    def initial_state(self, batch):
        return (*super().initial_state(batch), *super().initial_state(batch))

    def read(self, tokens, state):
        logits, (h,) = super().read(tokens, state[:1])
        return logits, (h, h.clone())


class Writing(Plain):
    """Writes into the state it was given."""

    def read(self, tokens, state):
        logits, last = super().read(tokens, state)
        with torch.no_grad():
            state[0].copy_(last[0])
        return logits, last


class Counting(Plain):
    """Keeps count outside its state."""

    def __init__(self, V=7, D=4):
        super().__init__(V, D)
        self.register_buffer("calls", torch.zeros(()))

    def read(self, tokens, state):
        self.calls.add_(1)
        return super().read(tokens, state)


class Dicing(Plain):
    """Draws from torch's generator."""

    def read(self, tokens, state):
        torch.rand(1)
        return super().read(tokens, state)


class Idle(Plain):
    """Has a weight that does nothing."""

    def __init__(self, V=7, D=4):
        super().__init__(V, D)
        self.spare = nn.Parameter(torch.ones(2))


class Forgetful(Plain):
    """Draws a number that is not saved."""

    def __init__(self, V=7, D=4):
        super().__init__(V, D)
        self.scale = float(torch.rand(()))

    def read(self, tokens, state):
        logits, last = super().read(tokens, state)
        return logits * self.scale, last


class Single(Plain):
    """Says all in float32."""

    def read(self, tokens, state):
        logits, last = super().read(tokens, state)
        return logits.float(), last


class Blank(Plain):
    """Gives an empty state back after no tokens."""

    def forward(self, tokens, state=None):
        logits, last = super().forward(tokens, state)
        return logits, (last if tokens.shape[1] else self.initial_state(len(tokens)))


class Raving(Plain):
    """Generates what is least likely."""

    def generate(self, tokens, count, **options):
        said, state = super().generate(tokens, count, **options)
        return (said + 1) % self.V, state


class Stubborn(Plain):
    """Draws the same whatever the generator."""

    def generate(self, tokens, count, *, random=None, **options):
        fixed = random and torch.Generator().manual_seed(0)
        return super().generate(tokens, count, random=fixed, **options)


class Trusting(Plain):
    """Takes whatever it is given."""

    def require(self, tokens, state):
        pass


class Twofaced(Plain):
    """Says something else when it is compiled."""

    def read(self, tokens, state):
        logits, last = super().read(tokens, state)
        return (logits + 1 if torch.compiler.is_compiling() else logits), last


class Coarse(Plain):
    """Says something else under autocast."""

    def read(self, tokens, state):
        logits, last = super().read(tokens, state)
        return (logits + 1 if torch.is_autocast_enabled("cpu") else logits), last


TWINS = {
    "pieces_are_the_whole": (Hurried,),
    "is_causal": (Prescient, Deaf),
    "rows_do_not_mix": (Social,),
    "state_bytes_are_the_formula": (Wide,),
    "what_is_given_is_left_alone": (Writing, Counting, Dicing),
    "gradient_reaches_every_parameter": (Idle,),
    "state_dict_round_trip": (Forgetful,),
    "dtype_is_kept": (Single,),
    "no_tokens_give_the_state_back": (Blank,),
    "generating_is_reading_on": (Raving, Stubborn),
    "bad_input_is_refused": (Trusting,),
    "runs_under_compile": (Twofaced,),
    "runs_under_autocast": (Coarse,),
}


def test_every_law_has_a_twin():
    assert set(TWINS) == {law.__name__ for law in checks.LAWS}


@pytest.mark.parametrize("law", checks.LAWS, ids=lambda law: law.__name__)
def test_the_sound_one_keeps_the_law(law):
    law(Plain)


@pytest.mark.parametrize(
    ("law", "twin"),
    [(law, twin) for law in checks.LAWS for twin in TWINS[law.__name__]],
    ids=lambda part: getattr(part, "__name__", str(part)),
)
def test_a_twin_is_caught(law, twin):
    assert broken_by(law, twin), f"{law.__name__} does not catch {twin.__name__}"
