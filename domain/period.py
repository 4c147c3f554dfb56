"""Periods of budgets: which bucket takes a hold at a moment, and which buckets the budget's window sums.

Everything is a pure function of time, IANA zone and anchor; nothing is ever reset. The windows of a period tile time:
each moment is in exactly one window of a calendar, fixed-length or lifetime period, and bucket ids never repeat.

A calendar window begins when the zone's wall clock *first* shows its nominal start. Where the start falls into a gap
(clocks go forward over midnight), it begins at the transition; where the clock goes back over a start already passed,
the repeated time stays in the new window. So a local day lasts 23 to 25 hours (or 24.5, or 48) as its zone has it.

An `anchor` moves the starts. As read on the zone's wall clock, its time of day applies to every calendar kind, its
weekday to ``week`` (instead of `week_start`), its day of the month to ``month``, day and month to ``quarter`` (every
third month from it) and ``year``. A day that a month lacks is that month's last: the 31st is 30 April. ``every`` counts
elapsed seconds from the anchor (the Unix epoch without one), whatever the wall clock does.

Moments near the ends of `datetime`'s range raise `OverflowError`.
"""

import calendar
import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from domain.errors import invalid

Kind = Literal["day", "week", "month", "quarter", "year", "lifetime", "every", "rolling"]

CALENDAR = ("day", "week", "month", "quarter", "year")
"""Kinds whose windows follow the wall clock; ``rolling`` sums days of it."""

MAX_EVERY = 10 * 366 * 86400
"""The longest fixed-length period, in seconds."""

MAX_ROLLING = 366
"""The longest rolling period, in days."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_EVERY = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?")
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


class Period(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A budget's period. Stored format. `seconds` is the length of ``every``, `days` of ``rolling``; `week_start` 0 is
    Monday; `anchor` is UTC. Build one with `parse_period`, which checks it."""

    kind: Kind
    seconds: int = 0
    days: int = 0
    timezone: str = "UTC"
    week_start: int = 0
    anchor: datetime | None = None


class Window(Struct, frozen=True, kw_only=True):
    """What a period counts at a moment. All times UTC; None means never (only ``lifetime`` has it).

    `bucket` takes new holds; `buckets` are summed, oldest first, `bucket` last. The window is [`start`, `end`). `until`
    is when the last window that counts `bucket` ends. From the moment asked about until `valid_until`, `window` answers
    the same.
    """

    bucket: str
    buckets: tuple[str, ...]
    start: datetime | None
    end: datetime | None
    until: datetime | None
    valid_until: datetime | None


_LIFETIME = Window(bucket="lifetime", buckets=("lifetime",), start=None, end=None, until=None, valid_until=None)


def window(period: Period, moment: datetime) -> Window:
    """The window of `period` at `moment` (timezone-aware)."""
    moment = moment.astimezone(UTC)
    match period.kind:
        case "lifetime":
            return _LIFETIME
        case "every":
            return _fixed(period, moment)
        case "rolling":
            return _rolling(period, moment)
        case _:
            return _calendar(period, moment)


def parse_period(
    value: object, timezone: str | None = None, week_start: int | None = None, anchor: str | datetime | None = None
) -> Period:
    """The `Period` of a budget's JSON fields ``period``, ``timezone``, ``week_start`` and ``anchor``.

    An anchor without an offset is wall-clock time in `timezone`. Raises `Invalid` naming the field.
    """
    zone = parse_timezone("UTC" if timezone is None else timezone)
    start = 0 if week_start is None else week_start
    if not isinstance(start, int) or isinstance(start, bool) or not 0 <= start <= 6:
        raise invalid("week_start", f"must be 0 (Monday) to 6 (Sunday); got {start!r:.40}")
    at = None if anchor is None else _parse_anchor(anchor, zone)
    kind, seconds, days = _parse_kind(value)
    return Period(kind=kind, seconds=seconds, days=days, timezone=zone.key, week_start=start, anchor=at)


def period_json(period: Period) -> str | dict[str, str | int]:
    """The JSON value of the field ``period``; timezone, week_start and anchor are fields beside it."""
    match period.kind:
        case "every":
            return {"every": format_every(period.seconds)}
        case "rolling":
            return {"rolling_days": period.days}
        case kind:
            return kind


def parse_every(text: object, field: str = "period.every") -> int:
    """Seconds of a length such as ``"5h"``, ``"1d12h"`` or ``"90s"``. Raises `Invalid` naming `field`."""
    match = _EVERY.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        raise invalid(field, f'must be a length such as "5h", "1d12h" or "90s"; got {text!r:.40}')
    seconds = sum(int(n or 0) * size for n, (_, size) in zip(match.groups(), _UNITS, strict=True))
    if not 1 <= seconds <= MAX_EVERY:
        raise invalid(field, f"must be between 1s and {MAX_EVERY // 86400}d; got {text!r:.40}")
    return seconds


def format_every(seconds: int) -> str:
    """The shortest text that `parse_every` reads as `seconds`."""
    parts = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def parse_timezone(name: str, field: str = "timezone") -> ZoneInfo:
    """The IANA zone of that name. Raises `Invalid` naming `field`; names that depend on the machine are refused."""
    if isinstance(name, str) and not name.startswith(("posix/", "right/")) and name not in ("localtime", "posixrules"):
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass  # zoneinfo raises any of these for a name that is no zone: answered below
    raise invalid(field, f"must be an IANA time zone such as Europe/Berlin; got {name!r:.80}")


def _parse_kind(value: object) -> tuple[Kind, int, int]:
    match value:
        case "day" | "week" | "month" | "quarter" | "year" | "lifetime" as kind:
            return kind, 0, 0
        case {"every": length, **rest} if not rest:
            return "every", parse_every(length), 0
        case {"rolling_days": int(days), **rest} if not rest and not isinstance(days, bool):
            if not 1 <= days <= MAX_ROLLING:
                raise invalid("period.rolling_days", f"must be 1 to {MAX_ROLLING}; got {days}")
            return "rolling", 0, days
    names = ", ".join(CALENDAR)
    expected = f'one of {names}, lifetime, {{"every": "5h"}}, {{"rolling_days": 30}}'
    raise invalid("period", f"must be {expected}; got {value!r:.80}")


def _parse_anchor(anchor: str | datetime, zone: ZoneInfo) -> datetime:
    if isinstance(anchor, str):
        try:
            anchor = datetime.fromisoformat(anchor)
        except ValueError:
            raise invalid("anchor", f"must be a time such as 2026-11-15T00:00:00Z; got {anchor!r:.40}") from None
    if not isinstance(anchor, datetime) or not 1900 <= anchor.year <= 2200:
        raise invalid("anchor", f"must be a time in the years 1900 to 2200; got {str(anchor)!r:.40}")
    return anchor.astimezone(UTC) if anchor.tzinfo else _reached(anchor, zone)


def _fixed(period: Period, moment: datetime) -> Window:
    length = timedelta(seconds=period.seconds)
    origin = period.anchor or EPOCH
    start = origin + (moment - origin) // length * length
    end = start + length
    bucket = start.strftime("%Y-%m-%dT%H:%M:%S") + (f".{start.microsecond:06d}Z" if start.microsecond else "Z")
    return Window(bucket=bucket, buckets=(bucket,), start=start, end=end, until=end, valid_until=end)


def _rolling(period: Period, moment: datetime) -> Window:
    starts = _Starts.of(period)
    today = starts.find(moment)
    first = today - period.days + 1
    end = starts.moment(today + 1)
    return Window(
        bucket=starts.bucket(today),
        buckets=tuple(starts.bucket(day) for day in range(first, today + 1)),
        start=starts.moment(first),
        end=end,
        until=starts.moment(today + period.days),
        valid_until=end,
    )


def _calendar(period: Period, moment: datetime) -> Window:
    starts = _Starts.of(period)
    number = starts.find(moment)
    bucket, end = starts.bucket(number), starts.moment(number + 1)
    return Window(bucket=bucket, buckets=(bucket,), start=starts.moment(number), end=end, until=end, valid_until=end)


class _Starts(Struct, frozen=True):
    """The numbered starts of a period on the wall clock: number n is n units after the one that holds year 1."""

    kind: Kind
    zone: ZoneInfo
    clock: time
    weekday: int
    day: int
    month: int
    anchored: bool

    @classmethod
    @lru_cache(maxsize=4096)
    def of(cls, period: Period) -> "_Starts":
        zone = ZoneInfo(period.timezone)
        at = None if period.anchor is None else period.anchor.astimezone(zone)
        if at is None:
            return cls(period.kind, zone, time(), period.week_start, 1, 1, False)
        return cls(period.kind, zone, at.time(), at.weekday(), at.day, at.month, True)

    def find(self, moment: datetime) -> int:
        """The number of the window that holds `moment`. The wall clock's guess can be off around transitions."""
        number = self._number(moment.astimezone(self.zone).date())
        while moment < self.moment(number):
            number -= 1
        while moment >= self.moment(number + 1):
            number += 1
        return number

    def moment(self, number: int) -> datetime:
        return _reached(datetime.combine(self._date(number), self.clock), self.zone)

    def bucket(self, number: int) -> str:
        start = self._date(number)
        if self.anchored or self.kind in ("day", "week", "rolling"):
            return start.isoformat()
        match self.kind:
            case "month":
                return f"{start.year:04d}-{start.month:02d}"
            case "quarter":
                return f"{start.year:04d}-Q{start.month // 3 + 1}"
            case _:
                return f"{start.year:04d}"

    def _number(self, day: date) -> int:
        match self.kind:
            case "week":
                return (day.toordinal() - 1 - self.weekday) // 7
            case "month" | "quarter" | "year":
                return (day.year * 12 + day.month - self.month) // self._months
            case _:
                return day.toordinal()

    def _date(self, number: int) -> date:
        match self.kind:
            case "week":
                return date.fromordinal(number * 7 + 1 + self.weekday)
            case "month" | "quarter" | "year":
                year, month = divmod(number * self._months + self.month - 1, 12)
                return date(year, month + 1, min(self.day, calendar.monthrange(year, month + 1)[1]))
            case _:
                return date.fromordinal(number)

    @property
    def _months(self) -> int:
        return {"month": 1, "quarter": 3}.get(self.kind, 12)


def _reached(wall: datetime, zone: tzinfo) -> datetime:
    """When the zone's clock first shows `wall` (naive) or, over a gap, passes it; UTC."""
    late = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if late.astimezone(zone).replace(tzinfo=None) == wall:
        return late
    # In a gap: `late` is by the offset before the transition, `early` by the one after; the transition is between them.
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    after = late.astimezone(zone).utcoffset()
    low, high = 0, int((late - early).total_seconds())
    while low < high:
        middle = (low + high) // 2
        if (early + timedelta(seconds=middle)).astimezone(zone).utcoffset() == after:
            high = middle
        else:
            low = middle + 1
    return (early + timedelta(seconds=low)).replace(microsecond=0)
