"""The sliding window of a rate limit: what was admitted in the last sixty seconds, never less, in bounded memory.

What is admitted within one `GRAIN` is one entry, of the time of its last part. So no window of sixty seconds, wherever it is
laid, holds more than the limit; room comes back a grain later at most; and a window has at most `WINDOW / GRAIN` entries.
"""

from collections import deque
from dataclasses import dataclass, field

WINDOW = 60.0
"""Seconds of a rate limit's sliding window."""

GRAIN = 0.1
"""Seconds."""


@dataclass(slots=True)
class Entry:
    """`amount` admitted, the last part of it at `at`."""

    at: float
    amount: int


@dataclass(slots=True)
class RateWindow:
    """Amounts admitted in the last `WINDOW` seconds. `now` is in seconds, and never goes back."""

    entries: deque[Entry] = field(default_factory=deque)
    total: int = 0

    def used(self, now: float) -> int:
        entries = self.entries
        while entries and entries[0].at <= now - WINDOW:
            self.total -= entries.popleft().amount
        return self.total

    def add(self, now: float, amount: int) -> Entry:
        """Counts `amount` from now on; the entry that it is part of."""
        self.total += amount
        last = self.entries[-1] if self.entries else None
        if last is None or last.at // GRAIN != now // GRAIN:
            last = Entry(now, 0)
            self.entries.append(last)
        last.at = now
        last.amount += amount
        return last

    def correct(self, now: float, entry: Entry, more: int) -> None:
        """`entry` was of `more` (or less) than was counted; changes nothing once it has left the window."""
        if entry.at > now - WINDOW:
            entry.amount += more
            self.total += more

    def whole_in(self, now: float) -> float:
        return max(0.0, self.entries[-1].at + WINDOW - now) if self.entries else 0.0

    def room_in(self, now: float, over: int) -> float:
        """Seconds until `over` of the amount has left the window."""
        for entry in self.entries:
            over -= entry.amount
            if over <= 0:
                return max(0.001, entry.at + WINDOW - now)
        return WINDOW
