"""The time of a process that keeps books: the system's clock, but not its jumps.

Periods are decided by the wall clock, so a clock that leaps forward and back would forget what was spent. The steady clock
follows corrections of up to `STEP` (what time services make, and more), and keeps its own time through larger ones; the
process is to take no requests then (`stepped`), until somebody has looked and started it again.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

STEP = 60.0
"""Seconds. As far as the gate lets an admission be off its own clock."""


def _running() -> float:
    """Seconds that go on while the machine sleeps, and never jump."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Calling it answers UTC now. `system` and `running` are for tests."""

    def __init__(self, system: Callable[[], float] = time.time, running: Callable[[], float] = _running) -> None:
        self._system, self._running = system, running
        self._base = system() - running()

    def __call__(self) -> datetime:
        running = self._running()
        away = self._system() - running - self._base
        if abs(away) <= STEP:
            self._base += away
        return datetime.fromtimestamp(self._base + running, UTC)

    def passed(self) -> float:
        """Seconds since some moment, untouched by every correction."""
        return self._running()

    @property
    def stepped(self) -> float:
        """Seconds that the system's clock is away from this one, 0 while the two agree."""
        away = self._system() - self._running() - self._base
        return away if abs(away) > STEP else 0.0
