"""Which backend takes a request, by what this gateway saw of each: the first tier with one that should be asked, and there by
weight. A backend whose circuit is open, or that said it is busy, is passed over while another one can be asked; where there
is no other it is asked all the same, for then asking costs nobody anything, unless the last that failed there was waited for.

Each gateway has its own view: what others saw is not shared.
"""

import random
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping

from domain.circuit import Circuit
from domain.scope import PublishedModel, Target, Tier

LONGEST_BUSY = 60.0
"""Seconds that a backend's own word for how long it is busy counts for, at most."""

_BUSY = 1.0
"""Seconds that a backend which does not say for how long counts as busy."""

Name = tuple[str, str]
"""What is tried once for a request: a backend, and the model's name there."""


class BackendState:
    """What this gateway knows of one backend at one address."""

    __slots__ = ("busy_until", "circuit", "in_flight", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.circuit = Circuit()
        self.in_flight = 0
        self.busy_until = float("-inf")


class Claim:
    """A backend that was chosen for a request. Exactly one of the methods ends it; what comes later is ignored."""

    __slots__ = ("_now", "_open", "_state", "target")

    def __init__(self, target: Target, state: BackendState, now: Callable[[], float]) -> None:
        self.target = target
        self._state, self._now = state, now
        self._open = True
        state.in_flight += 1

    def served(self) -> None:
        """It answered as it should, whatever the answer says."""
        if self._end():
            self._state.circuit.served(self._now())

    def failed(self, *, slow: bool = False) -> None:
        """It failed for reasons of its own. `slow`: that was waited for."""
        if self._end():
            self._state.circuit.failed(self._now(), slow=slow)

    def busy(self, seconds: float | None) -> None:
        """It answered that it has no room; for so long, if it says so."""
        if self._end():
            self._state.busy_until = self._now() + min(_BUSY if seconds is None else seconds, LONGEST_BUSY)
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


class BackendChoice:
    """One per gateway. `now`: seconds on a clock that never goes back; `chance`: a number from 0 to below 1."""

    def __init__(self, now: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random) -> None:
        self._now, self._chance = now, chance
        self._states: dict[str, BackendState] = {}

    def claim(self, model: PublishedModel, tried: Collection[Name] = (), barred: Collection[str] = ()) -> Claim | None:
        """The best backend of `model` that was not `tried` and speaks none of the protocols `barred`; None if there is none."""
        now = self._now()
        for tier in model.tiers:
            target = self._of_tier(tier, tried, barred, now)
            if target is not None:
                return self._claimed(target, now)
        target = self._last_resort(model, tried, barred, now)
        return None if target is None else self._claimed(target, now)

    def states(self) -> Mapping[str, BackendState]:
        """Of every backend that was asked for, by its name."""
        return self._states

    def retry_in(self, model: PublishedModel) -> float:
        """Seconds until one of its backends may be asked again, at least 1."""
        now = self._now()
        waits = [self._state(target).circuit.retry_in(now) for tier in model.tiers for target in tier.targets]
        return max(1.0, min(waits, default=0.0))

    # -- inside

    def _of_tier(self, tier: Tier, tried: Collection[Name], barred: Collection[str], now: float) -> Target | None:
        """The usual case first: what the weights choose can be asked."""
        targets = tier.targets
        if not tried and not barred:
            alone = len(targets) == 1
            first = targets[0 if alone else bisect_right(tier.bounds, self._chance() * tier.bounds[-1])]
            if self._asked_gladly(first, now):
                return first
            if alone:
                return None
        fit = [t for t in targets if _open_to(t, tried, barred) and self._ready(self._state(t), now)]
        return self._weighted(fit, now)

    def _last_resort(
        self, model: PublishedModel, tried: Collection[Name], barred: Collection[str], now: float
    ) -> Target | None:
        for tier in model.tiers:
            fit = []
            for target in tier.targets:
                circuit = self._state(target).circuit
                if _open_to(target, tried, barred) and not (circuit.slow and not circuit.allows(now)):
                    fit.append(target)
            if fit:
                return self._weighted(fit, now)
        return None

    def _weighted(self, fit: list[Target], now: float) -> Target | None:
        if len(fit) < 2:
            return fit[0] if fit else None
        shares = [target.weight * self._state(target).circuit.share(now) for target in fit]
        point = self._chance() * sum(shares)
        for target, share in zip(fit, shares, strict=True):
            point -= share
            if point < 0:
                return target
        return fit[-1]

    def _asked_gladly(self, target: Target, now: float) -> bool:
        state = self._state(target)
        if state.circuit.closed:
            return state.busy_until <= now
        return self._ready(state, now) and self._chance() < state.circuit.share(now)

    def _ready(self, state: BackendState, now: float) -> bool:
        return state.busy_until <= now and state.circuit.allows(now)

    def _claimed(self, target: Target, now: float) -> Claim:
        state = self._state(target)
        if not state.circuit.closed:
            state.circuit.began(now)
        return Claim(target, state, self._now)

    def _state(self, target: Target) -> BackendState:
        state = self._states.get(target.backend)
        if state is None or state.url != target.url:  # at another address it is another backend
            state = self._states[target.backend] = BackendState(target.url)
        return state


def name_of(target: Target) -> Name:
    """See `Name`."""
    return target.backend, target.upstream_model


def _open_to(target: Target, tried: Collection[Name], barred: Collection[str]) -> bool:
    return name_of(target) not in tried and target.protocol not in barred
