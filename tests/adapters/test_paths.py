"""Names as scopes: whatever the name, it comes back, and no two names share a scope."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loci.adapters.paths import names, path, segment
from loci.records.scope import covers, scope

NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
HARD = ["/", ".", "..", "%", "%2F", "=", "=k", " ", "a b", "e\u0301", "\u00e9", "\u0338", "=\u0338", "\u1100\u1161", "\x00", "\n", "A", "a", "~", "\ufb01", "\u212b"]  # fmt: skip


@given(st.lists(NAMES | st.sampled_from(HARD), max_size=6), st.sampled_from(["/", "acme", "acme/ana"]))
def test_names_come_back_from_a_valid_scope_below_the_base(given_, base):
    made = path(base, given_)
    assert scope(made) == made == unicodedata.normalize("NFC", made)
    assert covers(base, made)
    assert names(base, made) == tuple(given_)


def test_hard_names_have_scopes_of_their_own():
    assert len({segment(name) for name in HARD}) == len(HARD)
    assert all("/" not in segment(name) and not segment(name).startswith("=") for name in HARD)


def test_what_is_no_name_is_refused():
    for name in ("", "\ud800", 7):
        with pytest.raises(ValueError, match="cannot name a scope"):
            segment(name)
    with pytest.raises(ValueError, match="lies outside"):
        names("acme/ana", "acme/anabel")
