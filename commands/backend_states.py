"""What this gateway knows of each backend from its own requests: its circuit, how busy it is, how long its answers take.

Each gateway has its own view, and its own share of nothing: caps of a backend are those of each gateway.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping

from domain.backend import USUAL
from domain.circuit import Circuit
from domain.scope import Target

LONGEST_BUSY = 60.0
"""Seconds that a backend's own word for how long it is busy counts for, at most."""

_BUSY = 1.0
"""Seconds that a backend which does not say for how long counts as busy."""

_MINUTE = 60.0
_NEWEST = 0.2
"""The share of the newest answer in the mean of how long answers take."""

_FORGOTTEN = 30.0
"""Seconds in which a mean that nothing was added to falls to a third: what was slow once is asked again some time."""


class BackendState:
    """One backend at one address. `aside_until`: others are asked first so long, for it said that it is busy, or did worse than
    they did; `healthy`: whether the last checks beside all requests were answered, if there are any."""

    __slots__ = ("_latency", "_latency_at", "_recent", "aside_until", "circuit", "healthy", "in_flight", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.circuit = Circuit()
        self.in_flight = 0
        self.aside_until = -math.inf
        self.healthy = True
        self._recent: deque[float] = deque()
        self._latency = 0.0
        self._latency_at = -math.inf

    def ready(self, now: float) -> bool:
        """Whether one more request should go there, as far as it has room."""
        return self.aside_until <= now and self.healthy and self.circuit.allows(now)

    def full(self, target: Target, now: float) -> bool:
        """Whether it has as many requests as its terms allow."""
        terms, recent = target.terms, self._recent
        if terms is USUAL:
            return False
        if terms.max_concurrent is not None and self.in_flight >= terms.max_concurrent:
            return True
        if terms.requests_per_minute is None:
            return False
        while recent and recent[0] <= now - _MINUTE:
            recent.popleft()
        return len(recent) >= terms.requests_per_minute

    def began(self, target: Target, now: float) -> None:
        """A request goes there."""
        self.in_flight += 1
        if not self.circuit.closed:
            self.circuit.began(now)
        if target.terms is not USUAL and target.terms.requests_per_minute is not None:
            self._recent.append(now)

    def set_aside(self, until: float) -> None:
        """Others are asked first until then."""
        self.aside_until = max(self.aside_until, until)

    def took(self, seconds: float, now: float) -> None:
        """An answer took so long to begin."""
        known = self.latency(now)
        self._latency = seconds if known == 0.0 else known + _NEWEST * (seconds - known)
        self._latency_at = now

    def latency(self, now: float) -> float:
        """About how many seconds an answer takes to begin; 0: nobody knows any more."""
        return self._latency * math.exp((self._latency_at - now) / _FORGOTTEN) if self._latency else 0.0


class Claim:
    """A backend that was chosen for a request. Exactly one of the methods but `answers` ends it; what comes later is
    ignored."""

    __slots__ = ("_now", "_open", "_state", "target")

    def __init__(self, target: Target, state: BackendState, now: Callable[[], float]) -> None:
        self.target = target
        self._state, self._now = state, now
        self._open = True

    def answers(self) -> None:
        """Its answer has begun, and may take its time."""
        circuit = self._state.circuit
        if self._open and not circuit.closed:
            circuit.answers(self._now())

    def served(self, seconds: float) -> None:
        """It answered as it should, whatever the answer says; so long it took to begin."""
        if self._end():
            now = self._now()
            self._state.circuit.served(now)
            self._state.took(seconds, now)

    def failed(self, *, slow: bool = False) -> None:
        """It failed for reasons of its own. `slow`: that was waited for."""
        if self._end():
            self._state.circuit.failed(self._now(), slow=slow)

    def busy(self, seconds: float | None) -> None:
        """It answered that it has no room; for so long, if it says so."""
        if self._end():
            self._state.set_aside(self._now() + min(_BUSY if seconds is None else seconds, LONGEST_BUSY))
            self._state.circuit.neither()

    def released(self) -> None:
        """Nothing was learnt: it was not asked, or the caller is to blame."""
        if self._end():
            self._state.circuit.neither()

    def _end(self) -> bool:
        if not self._open:
            return False
        self._open = False
        self._state.in_flight -= 1
        return True


class BackendStates:
    """Of every backend that was asked for. `now`: seconds on a clock that never goes back."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._states: dict[str, BackendState] = {}

    def of(self, target: Target) -> BackendState:
        state = self._states.get(target.backend)
        if state is None or state.url != target.url:  # at another address it is another backend
            state = self._states[target.backend] = BackendState(target.url)
        return state

    def claim(self, target: Target, now: float) -> Claim:
        """A request goes there."""
        state = self.of(target)
        state.began(target, now)
        return Claim(target, state, self.now)

    def known(self) -> Mapping[str, BackendState]:
        """By their names."""
        return self._states
