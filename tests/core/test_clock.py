"""Times are read as UTC seconds, whatever form they come in."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loci.core.clock import FixedClock, iso, moment


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2100, 1, 1)))
def test_naive_datetimes_and_iso_text_are_utc(when):
    expected = when.replace(tzinfo=UTC).timestamp()
    assert moment(when) == expected
    assert moment(when.isoformat()) == expected
    assert moment(iso(expected)) == expected


def test_offsets_are_honoured():
    east = datetime(2023, 5, 3, 2, tzinfo=timezone(timedelta(hours=2)))
    assert moment(east) == moment("2023-05-03") == moment("2023-05-03T02:00:00+02:00")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1:56 pm on 8 May, 2023", datetime(2023, 5, 8, 13, 56, tzinfo=UTC)),
        ("2023/05/20 (Sat) 02:21", datetime(2023, 5, 20, 2, 21, tzinfo=UTC)),
        ("2023-05", datetime(2023, 5, 1, tzinfo=UTC)),
        ("2023", datetime(2023, 1, 1, tzinfo=UTC)),
    ],
)
def test_spoken_dates(text, expected):
    assert moment(text) == expected.timestamp()


@pytest.mark.parametrize("bad", ["yesterday", "", "2023-13-01", float("nan"), float("inf"), 1e15, 1683072000000])
def test_what_is_no_time_is_refused(bad):
    with pytest.raises(ValueError, match="at="):
        moment(bad)


@pytest.mark.parametrize("bad", [True, None, [], b"2023"])
def test_what_is_no_kind_of_time_is_refused(bad):
    with pytest.raises(TypeError):
        moment(bad)


def test_a_fixed_clock_moves_only_when_told():
    clock = FixedClock(5.0)
    assert clock() == clock() == 5.0
    clock.tick(2)
    assert clock() == 7.0
