"""The sliding window of a rate limit: what was admitted in the last sixty seconds, exact for any window."""

from collections import deque
from dataclasses import dataclass, field

WINDOW = 60.0
"""Seconds of a rate limit's sliding window."""


@dataclass(slots=True)
class RateWindow:
    """Amounts admitted in the last `WINDOW` seconds. `now` is in seconds, and never goes back."""

    entries: deque[tuple[float, int]] = field(default_factory=deque)
    total: int = 0

    def used(self, now: float) -> int:
        entries = self.entries
        while entries and entries[0][0] <= now - WINDOW:
            self.total -= entries.popleft()[1]
        return self.total

    def whole_in(self, now: float) -> float:
        return max(0.0, self.entries[-1][0] + WINDOW - now) if self.entries else 0.0

    def room_in(self, now: float, over: int) -> float:
        """Seconds until `over` of the amount has left the window."""
        for at, amount in self.entries:
            over -= amount
            if over <= 0:
                return max(0.001, at + WINDOW - now)
        return WINDOW
