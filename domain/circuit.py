"""A backend's circuit: whether requests should go there, by how its last ones ended. Pure: the caller brings the time.

    closed     requests go; `failures` in a row, or `share` of at least `least` in `window`, open it
    open       none should go for a pause, which doubles each time the circuit opens again before it was closed
    half_open  the pause is over: one at a time goes, as a probe; the first whose answer begins ends it, one that fails opens it
    warming    more of them go from second to second, until `warm_up` is over: then it is closed; one that fails opens it if
               none came to its end yet

Times are seconds on a clock that never goes back.
"""

from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "warming", "half_open", "open"]

STATES: tuple[State, ...] = ("closed", "warming", "half_open", "open")
"""In the order of their numbers in metrics: 0 is well."""

LEAST_SHARE = 0.1
"""Of the requests it would get otherwise, right after a probe was served."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """See the module. Durations in seconds."""

    failures: int = 5
    share: float = 0.5
    least: int = 20
    window: float = 10.0
    pause: float = 1.0
    longest_pause: float = 30.0
    warm_up: float = 10.0


DEFAULT = Thresholds()


class Circuit:
    """One per backend and gateway. `slow`: what opened it was a failure that takes its time, so that whoever goes there all
    the same will wait."""

    __slots__ = (
        "_failed",
        "_in_a_row",
        "_pause",
        "_probing",
        "_served",
        "_since",
        "_state",
        "_thresholds",
        "_unproven",
        "_until",
        "_window_began",
        "slow",
    )

    def __init__(self, thresholds: Thresholds = DEFAULT) -> None:
        self._thresholds = thresholds
        self._state: State = "closed"
        self._pause = thresholds.pause
        self._since = self._until = 0.0
        self._in_a_row = self._served = self._failed = 0
        self._window_began = float("-inf")
        self._probing = self._unproven = False
        self.slow = False

    @property
    def closed(self) -> bool:
        """The usual case: nothing more need be asked."""
        return self._state == "closed"

    def state(self, now: float) -> State:
        if self._state == "open" and now >= self._until:
            return "half_open"
        if self._state == "warming" and now - self._since >= self._thresholds.warm_up:
            return "closed"
        return self._state

    def allows(self, now: float) -> bool:
        """Whether one more request should go there."""
        match self.state(now):
            case "open":
                return False
            case "half_open":
                return not self._probing
            case _:
                return True

    def share(self, now: float) -> float:
        """Of the requests that it would get otherwise, above 0 to 1."""
        if self.state(now) != "warming":
            return 1.0
        return max(LEAST_SHARE, (now - self._since) / self._thresholds.warm_up)

    def tally(self, now: float) -> tuple[int, int]:
        """How many requests were served in the window, and how many failed."""
        self._age(now)
        return self._served, self._failed

    def retry_in(self, now: float) -> float:
        """Seconds until it may be probed; 0 if it may be now."""
        return max(0.0, self._until - now) if self._state == "open" else 0.0

    def began(self, now: float) -> None:
        """A request goes there."""
        if self._state == "open" and now >= self._until:
            self._state = "half_open"
        if self._state == "half_open":
            self._probing = True
        elif self._state == "warming" and now - self._since >= self._thresholds.warm_up:
            self._close()

    def answers(self, now: float) -> None:
        """The answer to a request has begun; its end may be minutes away."""
        if self._state == "half_open":
            self._warm_up(now)
            self._unproven = True

    def served(self, now: float) -> None:
        """A request was served, whatever the answer says."""
        self._in_a_row = 0
        self._unproven = False
        if self._state == "closed":
            self._age(now)
            self._served += 1
        elif self._state == "half_open":
            self._warm_up(now)

    def failed(self, now: float, *, slow: bool = False) -> None:
        """A request failed for reasons of the backend's own."""
        if self._state == "open":  # it was sent before
            return
        self._age(now)
        self._failed += 1
        self._in_a_row += 1
        thresholds, all_of_them = self._thresholds, self._failed + self._served
        if (
            self._state == "half_open"
            or self._unproven
            or self._in_a_row >= thresholds.failures
            or (all_of_them >= thresholds.least and self._failed >= thresholds.share * all_of_them)
        ):
            self.open(now, slow=slow)

    def neither(self) -> None:
        """A request ended in a way that says nothing about the backend: another one may probe it."""
        self._probing = False

    def open(self, now: float, *, slow: bool = False) -> None:
        """Nothing should go there for a pause."""
        self._state, self._until = "open", now + self._pause
        self._pause = min(self._thresholds.longest_pause, self._pause * 2)
        self._in_a_row = self._served = self._failed = 0
        self._probing = self._unproven = False
        self.slow = slow

    def probed(self, now: float) -> None:
        """Somebody asked it beside all requests, and it answered well: an open circuit need not wait for its pause."""
        if self._state in ("open", "half_open"):
            self._warm_up(now)

    def _warm_up(self, now: float) -> None:
        self._probing = False
        self._state, self._since = "warming", now
        self._served = self._failed = 0

    def _close(self) -> None:
        self._state, self._pause, self._unproven = "closed", self._thresholds.pause, False

    def _age(self, now: float) -> None:
        if now - self._window_began > self._thresholds.window:
            self._window_began = now
            self._served = self._failed = 0
