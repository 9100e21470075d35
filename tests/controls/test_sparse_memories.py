"""Broken twins: each law of sparse memories must catch, by name, the memory that breaks it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from loci.core.card import Card
from loci.core.checking import broken_by
from loci.state.sparse_memory import checks
from loci.state.sparse_memory.base import SparseMemory

torch.set_num_threads(1)
ROWS = 24


class Plain(SparseMemory):
    """Sound: the two rows whose keys are nearest, by how near they are."""

    card = Card(name="plain", kind="sparse-memory", title="", says="", bytes="b*2*T*D")

    def __init__(self, D):
        super().__init__()
        self.D, self.touches = D, 2
        self.keys = nn.Linear(D, ROWS, bias=False)
        self.values = nn.Parameter(torch.randn(ROWS, D))

    def shapes(self):
        return {"T": ROWS, "D": self.D, "b": self.values.element_size()}

    def tables(self):
        return (self.values,)

    def rows(self, h):
        return self.keys(h).topk(2).indices

    def read(self, h):
        scores, rows = self.keys(h).topk(2)
        return (scores.unsqueeze(-1) * self.values[rows]).sum(1)

    def densely(self, h):
        scores = self.keys(h)
        least = scores.sort(-1, descending=True).values[:, 1:2]
        return torch.where(scores >= least, scores, 0.0) @ self.values


class Detached(Plain):
    """Does not learn where to look."""

    def read(self, h):
        scores, rows = self.keys(h).topk(2)
        return (scores.detach().unsqueeze(-1) * self.values[rows]).sum(1)


class Inexact(Plain):
    """Takes its second row one place too far."""

    def read(self, h):
        scores, rows = self.keys(h).topk(3)
        return (scores[:, ::2].unsqueeze(-1) * self.values[rows[:, ::2]]).sum(1)


class Greedy(Plain):
    """Reads every row."""

    def __init__(self, D):
        super().__init__(D)
        self.touches = ROWS

    def rows(self, h):
        return self.keys(h).topk(ROWS).indices

    def read(self, h):
        return self.keys(h) @ self.values

    densely = read


class Boasting(Plain):
    """Says that it reads half of what it reads."""

    def touched_bytes(self):
        return super().touched_bytes() // 2


class Leaking(Plain):
    """Pulls at every row a little."""

    def read(self, h):
        return super().read(h) + 1e-9 * self.values.sum()


class Overstating(Plain):
    """Names a row that it does not read."""

    def rows(self, h):
        rows = super().rows(h)
        return torch.stack([rows[:, 0], (rows[:, 1] + 1) % ROWS], 1)


class Straight(Plain):
    """Reads every row and hides it from the gradient."""

    def read(self, h):
        return super().read(h) + 1e-3 * self.values.mean(0).detach()


class Social(Plain):
    """Subtracts the mean of the tokens."""

    def read(self, h):
        return super().read(h - 1e-6 * h.mean(0))


class Ordered(Plain):
    """Adds up what came before."""

    def read(self, h):
        y = super().read(h)
        return y + 1e-6 * y.cumsum(0)


class Generous(Plain):
    """Keeps a spare that its card does not count."""

    def __init__(self, D):
        super().__init__(D)
        self.register_buffer("spare", torch.zeros(1))


class Hoarding(Plain):
    """Counts its rows, once it read any."""

    def read(self, h):
        self.register_buffer("counts", torch.zeros(ROWS))
        return super().read(h)


class Idle(Plain):
    """Has a parameter that does nothing."""

    def __init__(self, D):
        super().__init__(D)
        self.idle = nn.Parameter(torch.ones(3))


class Deaf(Plain):
    """Lets no gradient through to what came before."""

    def read(self, h):
        return super().read(torch.cat([h[:1].detach(), h[1:]]))


class Shuffled(Plain):
    """Draws an order of its rows that its state dict does not know."""

    def __init__(self, D):
        super().__init__(D)
        self.order = torch.randperm(ROWS)

    def rows(self, h):
        return self.order[super().rows(h)]

    def read(self, h):
        scores, rows = self.keys(h).topk(2)
        return (scores.unsqueeze(-1) * self.values[self.order[rows]]).sum(1)


class Siamese(Plain):
    """Its copy is itself."""

    def __deepcopy__(self, memo):
        return self


class Upcasting(Plain):
    """Answers in float32, whatever it was asked in."""

    def read(self, h):
        return super().read(h).float()


class Overflowing(Plain):
    """Takes a way that only double precision can go."""

    def read(self, h):
        return super().read(h) * (1e200 if h.dtype == torch.float64 else torch.inf)


class Tiring(Plain):
    """Counts its calls and speaks lower with each."""

    turns = 0

    def read(self, h):
        self.turns += 1
        return super().read(h) / self.turns


class Dicey(Plain):
    """Draws from the global generator."""

    def read(self, h):
        torch.rand(())
        return super().read(h)


class Learning(Plain):
    """Changes its rows as it reads them."""

    def read(self, h):
        y = super().read(h)
        with torch.no_grad():
            self.values.mul_(1.001)
        return y


class Needing(Plain):
    """Needs a token, at the least."""

    def forward(self, h):
        assert len(h), "nothing to read for"
        return super().forward(h)


class Trusting(Plain):
    """Takes anything, and fails on it later or never."""

    def forward(self, h):
        return self.read(h)


class Blind(Plain):
    """Looks at shapes and not at values."""

    def forward(self, h):
        return super().forward(h.nan_to_num())


class Compiled(Plain):
    """Is another memory once it is compiled."""

    def read(self, h):
        return super().read(h) * (1.01 if torch.compiler.is_compiling() else 1)


class Strict(Plain):
    """Adds into a buffer of the input's dtype, which autocast's products do not have."""

    def read(self, h):
        y = self.keys(h) @ self.values
        return torch.zeros_like(h).index_add(0, torch.arange(len(y)), y)


class Rounding(Plain):
    """Rounds what autocast made half precise."""

    def read(self, h):
        scores, rows = self.keys(h).topk(2)
        if scores.dtype == torch.bfloat16:
            scores = scores + scores.detach().round() - scores.detach()
        return (scores.unsqueeze(-1) * self.values[rows]).sum(1)


TWINS = [
    (checks.reading_is_dense, Inexact),
    (checks.reading_is_dense, Detached),
    (checks.few_rows_are_touched, Greedy),
    (checks.few_rows_are_touched, Boasting),
    (checks.untouched_rows_get_no_gradient, Leaking),
    (checks.untouched_rows_get_no_gradient, Overstating),
    (checks.only_touched_rows_are_read, Straight),
    (checks.only_touched_rows_are_read, Overstating),
    (checks.tokens_do_not_mix, Social),
    (checks.tokens_do_not_mix, Ordered),
    (checks.bytes_are_the_formula, Generous),
    (checks.bytes_are_the_formula, Hoarding),
    (checks.gradient_reaches_every_parameter, Idle),
    (checks.gradient_reaches_every_parameter, Deaf),
    (checks.state_dict_round_trip, Shuffled),
    (checks.state_dict_round_trip, Siamese),
    (checks.dtype_is_kept, Upcasting),
    (checks.dtype_is_kept, Overflowing),
    (checks.nothing_is_kept_between_calls, Tiring),
    (checks.nothing_is_kept_between_calls, Dicey),
    (checks.nothing_is_kept_between_calls, Learning),
    (checks.no_tokens_are_allowed, Needing),
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


def test_reading_too_much_is_caught_where_gradients_do_not_show_it() -> None:
    assert not broken_by(checks.untouched_rows_get_no_gradient, lambda: Straight(4))
