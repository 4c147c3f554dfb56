"""Which backend takes a request, by what this gateway saw of each: the first tier with one that should be asked, and there by
weight, by load, or always the same one for the same key.

A backend whose circuit is open, that a check found ill or that said it is busy is passed over while another one can be asked.
Where there is no other it is asked all the same, for then asking costs nobody anything, unless the last that failed there was
waited for. One that is full is asked by nobody.
"""

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Collection
from hashlib import blake2b

from commands.backend_states import BackendStates, Claim
from domain.scope import PublishedModel, Target, Tier

Name = tuple[str, str]
"""What is tried once for a request: a backend, and the model's name there."""

_UNKNOWN_LATENCY = 0.001


class BackendChoice:
    """One per gateway. `chance`: a number from 0 to below 1."""

    def __init__(self, states: BackendStates, chance: Callable[[], float] = random.random) -> None:
        self._states, self._chance = states, chance

    def claim(
        self,
        model: PublishedModel,
        tried: Collection[Name] = (),
        barred: Collection[str] = (),
        sticky: bytes | None = None,
    ) -> Claim | None:
        """The best backend of `model` that was not `tried` and speaks none of the protocols `barred`; None if there is none.
        Requests with the same `sticky` go to the same one while they can."""
        now = self._states.now()
        usual = not tried and not barred and sticky is None and model.balance == "weighted"
        for tier in model.tiers:
            target = self._usual(tier, now) if usual else None
            if target is None:
                target = self._best(model, self._fit(tier, tried, barred, now), sticky, now)
            if target is not None:
                return self._states.claim(target, now)
        target = self._best(model, self._last_resort(model, tried, barred, now), sticky, now)
        return None if target is None else self._states.claim(target, now)

    def overloaded(self, model: PublishedModel) -> bool:
        """Whether one of its backends has as many requests as it may, so that waiting can help."""
        now = self._states.now()
        return any(self._states.of(t).full(t, now) for tier in model.tiers for t in tier.targets)

    # -- inside

    def _usual(self, tier: Tier, now: float) -> Target | None:
        """What the weights choose, if that one can be asked."""
        targets = tier.targets
        alone = len(targets) == 1
        target = targets[0 if alone else bisect_right(tier.bounds, self._chance() * tier.bounds[-1])]
        state = self._states.of(target)
        if not state.ready(now) or state.full(target, now):
            return None
        return target if alone or state.circuit.closed or self._chance() < state.circuit.share(now) else None

    def _fit(self, tier: Tier, tried: Collection[Name], barred: Collection[str], now: float) -> list[Target]:
        found = []
        for target in tier.targets:
            state = self._states.of(target)
            if _open_to(target, tried, barred) and state.ready(now) and not state.full(target, now):
                found.append(target)
        return found

    def _last_resort(
        self, model: PublishedModel, tried: Collection[Name], barred: Collection[str], now: float
    ) -> list[Target]:
        """Of the first tier that has any: those that are no better than the others, but where nobody waits in vain."""
        for tier in model.tiers:
            fit = []
            for target in tier.targets:
                state = self._states.of(target)
                in_vain = state.circuit.slow and not state.circuit.allows(now)
                if _open_to(target, tried, barred) and not in_vain and not state.full(target, now):
                    fit.append(target)
            if fit:
                return fit
        return []

    def _best(self, model: PublishedModel, fit: list[Target], sticky: bytes | None, now: float) -> Target | None:
        if len(fit) < 2:
            return fit[0] if fit else None
        if sticky is not None:
            return max(fit, key=lambda target: _rendezvous(sticky, target))
        if model.balance == "least_loaded":
            return self._least_loaded(fit, now)
        return self._weighted(fit, now)

    def _weighted(self, fit: list[Target], now: float) -> Target:
        shares = [target.weight * self._states.of(target).circuit.share(now) for target in fit]
        point = self._chance() * sum(shares)
        for target, share in zip(fit, shares, strict=True):
            point -= share
            if point < 0:
                return target
        return fit[-1]

    def _least_loaded(self, fit: list[Target], now: float) -> Target:
        """By how long a request would about wait there; one of which nobody knows that counts as the fastest."""
        states = [self._states.of(target) for target in fit]
        latencies = [state.latency(now) for state in states]
        fastest = min((latency for latency in latencies if latency), default=_UNKNOWN_LATENCY)
        waits = [
            (state.in_flight + 1) * (latency or fastest) / (target.weight * state.circuit.share(now))
            for target, state, latency in zip(fit, states, latencies, strict=True)
        ]
        return fit[waits.index(min(waits))]


def name_of(target: Target) -> Name:
    """See `Name`."""
    return target.backend, target.upstream_model


def _open_to(target: Target, tried: Collection[Name], barred: Collection[str]) -> bool:
    return name_of(target) not in tried and target.protocol not in barred


def _rendezvous(sticky: bytes, target: Target) -> float:
    """Highest random weight (Thaler and Ravishankar): each key orders the backends in its own way, so that one that comes or goes
    moves only the keys that are its own, in the proportion of its weight."""
    digest = blake2b(b"%b/%b" % (sticky, target.backend.encode()), digest_size=8).digest()
    chance = (int.from_bytes(digest) + 0.5) / 2**64
    return -target.weight / math.log(chance)
