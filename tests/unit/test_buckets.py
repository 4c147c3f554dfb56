"""Buckets of time: they tile it, and follow the wall clock of every zone."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.reads.buckets import Width, grid, walk

ZONES = ("UTC", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe", "America/Havana", "Pacific/Apia")

seconds = st.integers(1_200_000_000, 2_000_000_000)


def local(second: int, zone: str) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)).astimezone(ZoneInfo(zone))


@given(zone=st.sampled_from(ZONES), width=st.sampled_from(("minute", "hour", "day", "month")), first=seconds)
def test_buckets_tile_time(zone: str, width: Width, first: int) -> None:
    """Each begins where the one before ends, and none is empty."""
    found = list(islice(walk(width, zone, first, None), 50))
    assert found[0][0] == first
    assert all(start < end for start, end in found)
    assert all(before[1] == after[0] for before, after in pairwise(found))


@given(zone=st.sampled_from(ZONES), first=seconds)
def test_hours_begin_with_the_hour_of_the_clock(zone: str, first: int) -> None:
    """But for the one that a clock change of part of an hour cuts in two."""
    for start, end in islice(walk("hour", zone, first, None), 1, 30):
        whole = local(start, zone).minute == 0
        moved = local(start, zone).utcoffset() != local(start - 1, zone).utcoffset()
        assert whole or moved
        assert end - start <= 3600


@given(zone=st.sampled_from(ZONES), width=st.sampled_from(("hour", "day", "month")), first=seconds)
def test_a_walk_and_a_grid_agree(zone: str, width: Width, first: int) -> None:
    """What a page lists is what the rows are put in."""
    steps = list(islice(walk(width, zone, first, None), 1, 20))
    found = grid(width, zone, steps[0][0], steps[-1][0])
    for start, end in steps:
        assert found.end(start) == end


def test_half_an_hour_is_cut_where_the_clock_moves_by_half_an_hour() -> None:
    """Lord Howe, 5 April 2026, 15:00 UTC: 02:00 becomes 01:30."""
    change = int(datetime(2026, 4, 4, 15, tzinfo=UTC).timestamp())
    found = list(islice(walk("hour", "Australia/Lord_Howe", change - 7200, None), 5))
    assert [end - start for start, end in found] == [3600, 3600, 1800, 3600, 3600]


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 8), 23), ((2026, 11, 1), 25), ((2026, 11, 2), 24)])
def test_days_of_new_york_are_as_long_as_they_were(day: tuple[int, int, int], hours: int) -> None:
    """23, 25 and 24 hours."""
    first = int(datetime(*day, tzinfo=ZoneInfo("America/New_York")).timestamp())
    [(start, end)] = islice(walk("day", "America/New_York", first, None), 1)
    assert (end - start) / 3600 == hours


def test_the_ends_asked_for_cut_the_first_and_the_last() -> None:
    """And nothing comes after the end."""
    assert list(walk("day", "UTC", 100, 86400 * 2 + 5)) == [(100, 86400), (86400, 172800), (172800, 172805)]
    assert list(walk("all", "UTC", 100, 200)) == [(100, 200)]
