"""The steady clock follows corrections and ignores leaps."""

from datetime import UTC, datetime

from infra.adapters.clock import STEP, SteadyClock


class Clocks:
    """A system clock and a running one, turned by hand."""

    def __init__(self) -> None:
        self.system, self.running = 1_700_000_000.0, 50.0

    def steady(self) -> SteadyClock:
        return SteadyClock(lambda: self.system, lambda: self.running)


def test_it_tells_the_systems_time_and_follows_corrections() -> None:
    """A minute at most, at a time; any sum of them."""
    clocks = Clocks()
    clock = clocks.steady()
    for _ in range(5):
        clocks.system += STEP + 10
        clocks.running += 10
        assert clock() == datetime.fromtimestamp(clocks.system, UTC)
        assert clock.stepped == 0


def test_a_leap_is_not_followed_and_is_told() -> None:
    """Neither forward nor back; when the system's clock is right again, all is well."""
    clocks = Clocks()
    clock = clocks.steady()
    before = clock()
    for leap in (7200.0, -7200.0):
        clocks.system += leap
        assert clock() == before
        assert clock.stepped == leap
        clocks.system -= leap
        assert clock.stepped == 0


def test_a_leap_back_is_told_for_as_long_as_it_lasts() -> None:
    """Also while the system's clock passes, for the second time, what it showed before."""
    clocks = Clocks()
    clock = clocks.steady()
    clocks.system -= 2 * STEP
    for passed in range(1, 300):
        clocks.system += 1
        clocks.running += 1
        assert clock() == datetime.fromtimestamp(clocks.system + 2 * STEP, UTC), passed
        assert clock.stepped == -2 * STEP
