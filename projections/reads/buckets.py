"""Buckets of time in a zone: minutes, hours, days, months, or all of it as one.

Days and months are those of budgets (`domain.period`), 23 to 25 hours long as the zone has it. Minutes and hours begin
when the zone's clock shows a whole one; where the clock is moved by part of an hour, the running one ends early.
All times are Unix seconds, UTC.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from domain.period import Period, window

Width = Literal["minute", "hour", "day", "month", "all"]

_SECONDS = {"minute": 60, "hour": 3600}
_STEP = 86400
_FIRST, _LAST = -(2**31), 253_370_764_800  # the year 1901, the year 9999


class Phase(Struct, frozen=True):
    """From `since` on, buckets of `width` seconds begin at multiples of it, moved back by `offset`."""

    since: int
    offset: int
    width: int

    def start(self, second: int) -> int:
        """The start of the bucket that holds `second`."""
        return max(self.since, second - (second + self.offset) % self.width)


class Grid(Struct, frozen=True):
    """The buckets that hold the seconds [first, last]: by `phases` if there are any, else by `starts` (which end with the
    end of the last bucket); neither: one bucket holds everything."""

    phases: Sequence[Phase] = ()
    starts: Sequence[int] = ()

    def end(self, start: int) -> int | None:
        """The end of the bucket that begins at `start`; None: never."""
        if self.phases:
            return self._phase_end(start)
        return next((later for at, later in pairwise(self.starts) if at == start), None)

    def ends(self) -> dict[int, int]:
        """Start to end, where buckets are listed."""
        return dict(pairwise(self.starts))

    def _phase_end(self, start: int) -> int:
        at = max(i for i, phase in enumerate(self.phases) if i == 0 or phase.since <= start)
        phase = self.phases[at]
        end = start - (start + phase.offset) % phase.width + phase.width
        return min(end, self.phases[at + 1].since) if at + 1 < len(self.phases) else end


def grid(width: Width, zone: str, first: int, last: int) -> Grid:
    """The grid of `zone` over the seconds [first, last]."""
    match width:
        case "all":
            return Grid()
        case "minute" | "hour":
            return Grid(phases=_phases(ZoneInfo(zone), _SECONDS[width], first, last))
        case _:
            return Grid(starts=list(_starts(width, zone, first, last)))


def walk(width: Width, zone: str, first: int, end: int | None) -> Iterator[tuple[int, int]]:
    """Consecutive buckets (start, end) from the second `first` on, the first one cut off there, the last at `end`."""
    limit = _LAST if end is None else end
    while first < limit:
        found = grid(width, zone, first, first)
        start = found.starts[0] if found.starts else found.phases[0].start(first) if found.phases else first
        stop = found.end(start)
        if stop is None:
            stop = limit
        elif found.phases:
            later = grid(width, zone, first, stop).phases
            stop = min([stop, *(phase.since for phase in later[1:])])
        yield first, min(stop, limit)
        first = stop


def _starts(width: Literal["day", "month"], zone: str, first: int, last: int) -> Iterator[int]:
    period = Period(kind=width, timezone=zone)
    span = window(period, _moment(first))
    while span.start is not None and span.end is not None:
        yield _second(span.start)
        if _second(span.end) > last:
            yield _second(span.end)
            return
        span = window(period, span.end)


def _phases(zone: ZoneInfo, width: int, first: int, last: int) -> list[Phase]:
    phases = [Phase(_FIRST, _offset(zone, first) % width, width)]
    for low in range(first, last, _STEP):
        high = min(low + _STEP, last)
        if _offset(zone, high) % width != phases[-1].offset:
            since = _change(zone, width, low, high)
            phases.append(Phase(since, _offset(zone, since) % width, width))
    return phases


def _change(zone: ZoneInfo, width: int, low: int, high: int) -> int:
    """The first second with the phase of `high`; `low` has another."""
    after = _offset(zone, high) % width
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) % width == after:
            high = middle
        else:
            low = middle
    return high


def _offset(zone: ZoneInfo, second: int) -> int:
    offset = _moment(second).astimezone(zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def _moment(second: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)


def _second(moment: datetime) -> int:
    return int(moment.timestamp())
