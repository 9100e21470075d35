"""The registry refuses two members of one name; deviations are strict; formulas are evaluated, not executed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loci.core import card, formula, sizes
from loci.core.checking import Case, broken_by, cases


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(card, "_cards", {})


def fields(**changes):
    return {"name": "a", "kind": "index", "title": "A", "says": "does a"} | changes


def test_a_name_taken_twice_names_both_places(registry):
    class A:
        pass

    class B:
        pass

    card.method(**fields())(A)
    with pytest.raises(ValueError, match=r"both .*:A and .*:B"):
        card.method(**fields())(B)
    assert [row.entry.split(":")[1] for row in card.cards()] == ["A"]


def test_an_unknown_kind_is_refused(registry):
    with pytest.raises(ValueError, match="choose one of"):
        card.method(**fields(kind="spoon"))


def test_a_formula_that_does_not_parse_is_refused_at_once(registry):
    with pytest.raises(ValueError, match="not an expression"):
        card.method(**fields(bytes="4*("))


def law_small(make):
    assert make().size < 3, "too large"


def test_checks_cross_members_and_laws_and_say_who_broke_what(registry):
    @card.method(**fields(name="good"))
    class Good:
        size = 1

    @card.method(**fields(name="bad"))
    class Bad:
        size = 9

    found = {case.id: case for case in cases("index", [law_small])}
    assert set(found) == {"good-law_small", "bad-law_small"}
    found["good-law_small"].run()
    with pytest.raises(AssertionError, match="'bad' breaks law_small: too large"):
        found["bad-law_small"].run()
    assert broken_by(law_small, Bad)
    assert not broken_by(law_small, Good)


def test_a_deviation_must_fail(registry):
    class Member:
        size = 1

    row = card.Card(**fields(), deviates={"law_small": "because"})
    with pytest.raises(AssertionError, match="remove that"):
        Case(row, Member, law_small).run()
    Member.size = 9
    Case(row, Member, law_small).run()


small = st.integers(1, 50)


@given(small, small, small)
def test_formulas_agree_with_python(m, n, r):
    text = "4*(2*max(m,n)*r + min(m,n)*r) - -m // 3 + 2**2 + ceil(n/2) % 7"
    import math

    expected = eval(text, {"max": max, "min": min, "ceil": math.ceil}, {"m": m, "n": n, "r": r})
    assert formula.evaluate(text, {"m": m, "n": n, "r": r}) == expected
    assert formula.names(text) == {"m", "n", "r"}


@pytest.mark.parametrize("text", ["__import__('os')", "m.n", "[m]", "m if n else m", "'a'", "open(m)"])
def test_formulas_run_nothing(text):
    with pytest.raises(ValueError, match="formula"):
        formula.evaluate(text, {"m": 1, "n": 1})


def test_a_missing_shape_is_named():
    with pytest.raises(ValueError, match="asks for N"):
        formula.evaluate("4*N", {"m": 1})


@given(st.integers(0, 10**15))
def test_sizes_read_what_they_print_to_three_figures(size):
    assert sizes.parse(size) == size
    assert abs(sizes.parse(sizes.show(size)) - size) <= max(0.005 * size, 0)


@pytest.mark.parametrize("bad", ["64XB", "-1MB", "", "MB"])
def test_what_is_no_size_is_refused(bad):
    with pytest.raises(ValueError, match="is not a size"):
        sizes.parse(bad)


def test_nbytes_counts_a_shared_array_once():
    import numpy as np

    a = np.zeros(10)
    assert sizes.nbytes({"x": a, "y": [a, b"abc"]}) == 80 + 3 + 2
