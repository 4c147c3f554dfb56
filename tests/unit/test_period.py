"""Windows of periods: they tile time in every zone, and DST, clamped days and anchors fall where the wall clock says."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors import Invalid
from domain.period import CALENDAR, Period, Window, format_every, parse_every, parse_period, period_json, window

ZONES = (
    "UTC",
    "America/New_York",
    "America/St_Johns",
    "America/Havana",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Antarctica/Troll",
)

moments = st.datetimes(
    datetime.fromisoformat("1975-01-01"), datetime.fromisoformat("2090-01-01"), timezones=st.just(UTC)
)
anchors = st.none() | st.datetimes(datetime.fromisoformat("1972-01-01"), datetime.fromisoformat("2050-01-01"))
periods = st.builds(
    parse_period,
    st.sampled_from(CALENDAR) | st.integers(1, 10**7).map(lambda n: {"every": f"{n}s"}),
    st.sampled_from(ZONES),
    st.integers(0, 6),
    anchors,
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def bounds(value: object, zone: str, moment: str, **extra: object) -> tuple[str, str, str]:
    """Bucket, start and end (both as the zone's wall clock with offset) of the window at `moment`."""
    found = window(parse_period(value, zone, **extra), at(moment))  # type: ignore[arg-type]  # a table of mixed options
    assert found.start is not None
    assert found.end is not None
    local = ZoneInfo(zone)
    return found.bucket, found.start.astimezone(local).isoformat(), found.end.astimezone(local).isoformat()


def hours(found: Window) -> float:
    assert found.start is not None
    assert found.end is not None
    return (found.end - found.start) / timedelta(hours=1)


# ---------------------------------------------------------------- windows tile time


@given(periods, moments)
def test_a_window_holds_its_moment_and_is_the_same_until_it_is_not_valid(period: Period, moment: datetime) -> None:
    """start <= moment < end; the first and the last moment of a window answer the very same window."""
    found = window(period, moment)
    assert found.start is not None
    assert found.end is not None
    assert found.start <= moment < found.end
    assert found.until == found.valid_until == found.end
    assert window(period, found.start) == found
    assert window(period, found.end - timedelta(microseconds=1)) == found


@given(periods, moments)
@settings(max_examples=50)
def test_windows_are_contiguous_and_their_buckets_never_repeat(period: Period, moment: datetime) -> None:
    """Each window ends where the next starts, over many of them, and no two share a bucket id."""
    found, seen = window(period, moment), set()
    for _ in range(40):
        assert found.bucket not in seen
        seen.add(found.bucket)
        assert found.end is not None
        following = window(period, found.end)
        assert following.start == found.end
        found = following


@given(st.sampled_from(ZONES), st.integers(1, 40), moments, anchors)
@settings(max_examples=60)
def test_a_rolling_bucket_leaves_the_last_window_that_counts_it_at_until(
    zone: str, days: int, moment: datetime, anchor: datetime | None
) -> None:
    """The bucket of a hold is in every window before `until` and in none from `until` on."""
    period = parse_period({"rolling_days": days}, zone, None, anchor)
    found = window(period, moment)
    assert found.buckets[-1] == found.bucket
    assert len(set(found.buckets)) == days
    assert found.until is not None
    assert found.bucket in window(period, found.until - timedelta(microseconds=1)).buckets
    assert found.bucket not in window(period, found.until).buckets
    assert found.valid_until is not None
    assert window(period, found.valid_until - timedelta(microseconds=1)) == found
    assert window(period, found.valid_until) != found


@given(st.sampled_from(ZONES), moments)
def test_a_window_does_not_depend_on_the_zone_a_moment_is_written_in(zone: str, moment: datetime) -> None:
    """The same instant in another offset answers the same window."""
    period = parse_period("month", zone)
    assert window(period, moment.astimezone(ZoneInfo("Pacific/Chatham"))) == window(period, moment)


def test_lifetime_is_one_bucket_without_bounds() -> None:
    """A lifetime window never starts, ends or changes."""
    found = window(parse_period("lifetime", "Asia/Kathmandu"), at("2026-11-23T00:00:00Z"))
    assert (found.bucket, found.buckets) == ("lifetime", ("lifetime",))
    assert (found.start, found.end, found.until, found.valid_until) == (None, None, None, None)


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("zone", "moment", "bucket", "start", "end", "length"),
    [
        ("Asia/Kathmandu", "2026-11-22T18:14:59Z", "2026-11-22", "2026-11-21T18:15", "2026-11-22T18:15", 24),
        ("Asia/Kathmandu", "2026-11-22T18:15:00Z", "2026-11-23", "2026-11-22T18:15", "2026-11-23T18:15", 24),
        ("America/New_York", "2026-03-08T12:00:00Z", "2026-03-08", "2026-03-08T05:00", "2026-03-09T04:00", 23),
        ("America/New_York", "2026-11-01T05:30:00Z", "2026-11-01", "2026-11-01T04:00", "2026-11-02T05:00", 25),
        ("America/New_York", "2026-11-01T06:30:00Z", "2026-11-01", "2026-11-01T04:00", "2026-11-02T05:00", 25),
        ("America/St_Johns", "2026-03-08T12:00:00Z", "2026-03-08", "2026-03-08T03:30", "2026-03-09T02:30", 23),
        # until 2011 Newfoundland's clocks changed at 00:01: back to 23:01 of the day before, which stays in the new day
        ("America/St_Johns", "2010-11-07T02:30:30Z", "2010-11-07", "2010-11-07T02:30", "2010-11-08T03:30", 25),
        ("America/St_Johns", "2010-11-07T03:00:00Z", "2010-11-07", "2010-11-07T02:30", "2010-11-08T03:30", 25),
        ("Pacific/Chatham", "2026-04-04T14:00:00Z", "2026-04-05", "2026-04-04T10:15", "2026-04-05T11:15", 25),
        ("Pacific/Chatham", "2026-09-26T15:00:00Z", "2026-09-27", "2026-09-26T11:15", "2026-09-27T10:15", 23),
        ("Australia/Lord_Howe", "2026-04-04T15:10:00Z", "2026-04-05", "2026-04-04T13:00", "2026-04-05T13:30", 24.5),
        # midnight does not exist: the day begins when the clock jumps over it
        ("Africa/Cairo", "2026-04-24T00:00:00Z", "2026-04-24", "2026-04-23T22:00", "2026-04-24T21:00", 23),
        ("America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-04", "2018-11-04T03:00", "2018-11-05T02:00", 23),
        # midnight comes twice: the first one begins the day
        ("America/Havana", "2026-11-01T04:30:00Z", "2026-11-01", "2026-11-01T04:00", "2026-11-02T05:00", 25),
        ("America/Havana", "2026-11-01T05:30:00Z", "2026-11-01", "2026-11-01T04:00", "2026-11-02T05:00", 25),
        # Samoa had no 30 December 2011
        ("Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29", "2011-12-29T10:00", "2011-12-30T10:00", 24),
        ("Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-31", "2011-12-30T10:00", "2011-12-31T10:00", 24),
    ],
)
def test_a_day_is_the_zones_own_day(zone: str, moment: str, bucket: str, start: str, end: str, length: float) -> None:
    """Days begin at local midnight, to the second, over gaps, overlaps and offsets of 15, 30 and 45 minutes."""
    found = window(parse_period("day", zone), at(moment))
    assert (found.bucket, hours(found)) == (bucket, length)
    assert (found.start, found.end) == (at(start + ":00Z"), at(end + ":00Z"))


@pytest.mark.parametrize(
    ("kind", "moment", "bucket", "start", "end"),
    [
        ("week", "2026-11-23T00:00:00+01:00", "2026-11-23", "2026-11-23T00:00:00+01:00", "2026-11-30T00:00:00+01:00"),
        ("week", "2026-03-29T12:00:00Z", "2026-03-23", "2026-03-23T00:00:00+01:00", "2026-03-30T00:00:00+02:00"),
        ("month", "2026-10-31T23:30:00Z", "2026-11", "2026-11-01T00:00:00+01:00", "2026-12-01T00:00:00+01:00"),
        ("month", "2028-02-29T12:00:00Z", "2028-02", "2028-02-01T00:00:00+01:00", "2028-03-01T00:00:00+01:00"),
        ("quarter", "2026-03-31T21:59:59Z", "2026-Q1", "2026-01-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00"),
        ("quarter", "2026-12-31T22:59:59Z", "2026-Q4", "2026-10-01T00:00:00+02:00", "2027-01-01T00:00:00+01:00"),
        ("year", "2026-12-31T23:00:00Z", "2027", "2027-01-01T00:00:00+01:00", "2028-01-01T00:00:00+01:00"),
    ],
)
def test_calendar_periods_without_an_anchor_are_the_calendars_own(
    kind: str, moment: str, bucket: str, start: str, end: str
) -> None:
    """Weeks, months, quarters and years of Berlin's wall clock, each named by its start."""
    assert bounds(kind, "Europe/Berlin", moment) == (bucket, start, end)


def test_a_week_starts_on_the_weekday_asked_for() -> None:
    """week_start 6 is Sunday."""
    assert bounds("week", "UTC", "2026-11-23T12:00:00Z", week_start=6)[0] == "2026-11-22"
    assert bounds("week", "UTC", "2026-11-21T23:59:59Z", week_start=6)[0] == "2026-11-15"


@pytest.mark.parametrize(
    ("kind", "anchor", "moment", "bucket", "start", "end"),
    [
        ("day", "2026-01-01T06:30:00", "2026-11-23T06:29:00Z", "2026-11-22", "2026-11-22T06:30", "2026-11-23T06:30"),
        ("week", "2026-11-18T00:00:00", "2026-11-24T12:00:00Z", "2026-11-18", "2026-11-18T00:00", "2026-11-25T00:00"),
        ("month", "2024-07-15T00:00:00", "2026-11-14T23:59:59Z", "2026-10-15", "2026-10-15T00:00", "2026-11-15T00:00"),
        ("month", "2024-07-15T00:00:00", "2026-11-15T00:00:00Z", "2026-11-15", "2026-11-15T00:00", "2026-12-15T00:00"),
        ("month", "2024-01-31T00:00:00", "2026-02-27T12:00:00Z", "2026-01-31", "2026-01-31T00:00", "2026-02-28T00:00"),
        ("month", "2024-01-31T00:00:00", "2026-02-28T00:00:00Z", "2026-02-28", "2026-02-28T00:00", "2026-03-31T00:00"),
        ("month", "2024-01-31T00:00:00", "2028-02-28T23:00:00Z", "2028-01-31", "2028-01-31T00:00", "2028-02-29T00:00"),
        ("month", "2024-01-30T00:00:00", "2026-04-30T00:00:00Z", "2026-04-30", "2026-04-30T00:00", "2026-05-30T00:00"),
        ("month", "2024-01-29T00:00:00", "2026-03-01T00:00:00Z", "2026-02-28", "2026-02-28T00:00", "2026-03-29T00:00"),
        ("month", "2024-01-28T00:00:00", "2026-03-01T00:00:00Z", "2026-02-28", "2026-02-28T00:00", "2026-03-28T00:00"),
        (
            "quarter",
            "2024-11-30T00:00:00",
            "2026-03-01T00:00:00Z",
            "2026-02-28",
            "2026-02-28T00:00",
            "2026-05-30T00:00",
        ),
        ("year", "2024-02-29T00:00:00", "2026-11-23T00:00:00Z", "2026-02-28", "2026-02-28T00:00", "2027-02-28T00:00"),
        ("year", "2024-02-29T00:00:00", "2028-11-23T00:00:00Z", "2028-02-29", "2028-02-29T00:00", "2029-02-28T00:00"),
        ("year", "2024-04-06T00:00:00", "2026-04-05T23:59:59Z", "2025-04-06", "2025-04-06T00:00", "2026-04-06T00:00"),
    ],
)
def test_an_anchor_moves_the_starts(kind: str, anchor: str, moment: str, bucket: str, start: str, end: str) -> None:
    """Time of day, weekday, day of the month and month come from the anchor; missing days are the month's last."""
    expected = (bucket, start + ":00+00:00", end + ":00+00:00")
    assert bounds(kind, "UTC", moment, anchor=anchor) == expected


def test_an_anchor_with_an_offset_is_read_on_the_zones_wall_clock() -> None:
    """23:00 UTC of the 14th is the 15th in Berlin (winter): months start on the 15th."""
    found = bounds("month", "Europe/Berlin", "2026-07-20T00:00:00Z", anchor="2026-01-14T23:00:00Z")
    assert found == ("2026-07-15", "2026-07-15T00:00:00+02:00", "2026-08-15T00:00:00+02:00")


def test_an_anchored_start_in_a_gap_is_the_transition() -> None:
    """02:30 does not exist in New York on 8 March 2026: that day's window begins as the clock jumps from 2 to 3."""
    found = bounds("day", "America/New_York", "2026-03-08T08:00:00Z", anchor="2026-01-01T02:30:00")
    assert found == ("2026-03-08", "2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00")


def test_fixed_lengths_count_elapsed_time_whatever_the_clock_does() -> None:
    """Five-hour windows stay five hours over a DST change, and start from the anchor where there is one."""
    period = parse_period({"every": "5h"}, "America/New_York")
    found = window(period, at("2026-03-08T08:00:00Z"))
    assert (found.bucket, hours(found)) == ("2026-03-08T05:00:00Z", 5)
    anchored = window(parse_period({"every": "5h"}, anchor="2026-03-08T07:45:00Z"), at("2026-03-08T07:44:59Z"))
    assert anchored.bucket == "2026-03-08T02:45:00Z"


def test_a_rolling_window_sums_the_last_local_days() -> None:
    """Three days of Kathmandu: today and the two before, from midnight to midnight there."""
    found = window(parse_period({"rolling_days": 3}, "Asia/Kathmandu"), at("2026-11-23T18:15:00Z"))
    assert found.buckets == ("2026-11-22", "2026-11-23", "2026-11-24")
    assert (found.start, found.end) == (at("2026-11-21T18:15:00Z"), at("2026-11-24T18:15:00Z"))
    assert found.until == at("2026-11-26T18:15:00Z")


# ---------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("fortnight",), "period"),
        ((None,), "period"),
        ((7,), "period"),
        (({},), "period"),
        (({"every": "5h", "more": 1},), "period"),
        (({"every": "0s"},), "period.every"),
        (({"every": "-5h"},), "period.every"),
        (({"every": ""},), "period.every"),
        (({"every": 5},), "period.every"),
        (({"every": "99999d"},), "period.every"),
        (({"rolling_days": 0},), "period.rolling_days"),
        (({"rolling_days": -1},), "period.rolling_days"),
        (({"rolling_days": 367},), "period.rolling_days"),
        (({"rolling_days": True},), "period"),
        (({"rolling_days": "30"},), "period"),
        (("day", "Mars/Olympus"), "timezone"),
        (("day", "../etc/passwd"), "timezone"),
        (("day", "America"), "timezone"),
        (("day", "localtime"), "timezone"),
        (("day", ""), "timezone"),
        (("week", "UTC", 7), "week_start"),
        (("week", "UTC", -1), "week_start"),
        (("month", "UTC", 0, "the 15th"), "anchor"),
        (("month", "UTC", 0, "0001-01-01T00:00:00Z"), "anchor"),
    ],
)
def test_bad_input_names_the_field(arguments: tuple[str, str, int, str], field: str) -> None:
    """Each bad value is refused by the name of its own field."""
    with pytest.raises(Invalid) as raised:
        parse_period(*arguments)
    assert [error.field for error in raised.value.errors] == [field]


@pytest.mark.parametrize("value", [*CALENDAR, "lifetime", {"every": "5h"}, {"every": "1d12h"}, {"rolling_days": 30}])
def test_the_json_of_a_period_reads_back(value: object) -> None:
    """period_json answers what parse_period was given."""
    assert period_json(parse_period(value)) == value


@given(st.integers(1, 10 * 366 * 86400))
def test_lengths_read_back(seconds: int) -> None:
    """format_every and parse_every are inverse."""
    assert parse_every(format_every(seconds)) == seconds
