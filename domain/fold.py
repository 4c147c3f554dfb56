"""The fold of a facts partition: what each attempt counts, and where. One fold for balances, gate restore and rebuild.

    state        fact                                      next
    unseen       Admitted of the current epoch             open
    unseen       Admitted of an older epoch; Failed; Voided  void
    open         Completed / Unconfirmed / Failed          done / unconfirmed / void
    unconfirmed  Completed / Failed / WrittenOff           done / void / written_off
    any          anything else                             unchanged, counted as ignored

Offsets alone do not stop double counting: an append whose acknowledgement was lost comes again at a new offset. Hence a
state machine per attempt, whose ended ids are remembered for `REMEMBER`.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from domain.facts import (
    Fact,
    GateOpened,
    RequestAdmitted,
    RequestCompleted,
    RequestFailed,
    RequestUnconfirmed,
    RequestVoided,
    RequestWrittenOff,
)

REMEMBER = timedelta(hours=24)
"""Ids of ended attempts are kept this long, by `accounted_at`; an older fact without an open attempt is ignored."""


class State(StrEnum):
    """What became of an attempt. Stored format."""

    OPEN = "open"
    UNCONFIRMED = "unconfirmed"
    DONE = "completed"
    VOID = "void"
    WRITTEN_OFF = "written_off"


LIVE = (State.OPEN, State.UNCONFIRMED)
"""Attempts in these hold money; those in any other ended."""

BucketKey = tuple[str, str, str]
"""(org, budget, bucket)."""


@dataclass(slots=True)
class Attempt:
    """What the fold knows of one attempt. `buckets` is empty once it ended: nothing of it is held any more."""

    state: State
    accounted_at: datetime | None = None
    hold: int = 0
    buckets: tuple[BucketKey, ...] = ()


@dataclass(slots=True)
class Bucket:
    """One budget's bucket. Balance = consumed + held; `estimated` is the part of `consumed` that is unconfirmed holds.

    `until`: when the last window that counts it ends (None: never).
    """

    consumed: int = 0
    held: int = 0
    estimated: int = 0
    until: datetime | None = None


@dataclass(slots=True)
class Books:
    """The state of one facts partition after a prefix of its log. `apply` is the whole fold.

    A caller that keeps attempts elsewhere loads those of a batch into `attempts` first, and the touched buckets into
    `buckets`; `apply` touches nothing else.
    """

    epoch: int = 0
    attempts: dict[str, Attempt] = field(default_factory=dict)
    buckets: dict[BucketKey, Bucket] = field(default_factory=dict)
    once: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    ignored: int = 0

    def apply(self, fact: Fact) -> State | None:
        """Folds one fact in; answers the attempt's new state, or None when nothing changed."""
        match fact:
            case RequestAdmitted():
                return self._admitted(fact)
            case RequestCompleted():
                return self._ended(fact.attempt, State.DONE, fact.cost)
            case RequestUnconfirmed():
                return self._unconfirmed(fact.attempt)
            case RequestFailed():
                if fact.attempt in self.attempts:
                    return self._ended(fact.attempt, State.VOID, 0)
                return self._void(fact.attempt, fact.accounted_at)
            case RequestVoided():
                if fact.attempt not in self.attempts:
                    return self._void(fact.attempt, None)
            case RequestWrittenOff():
                known = self.attempts.get(fact.attempt)
                if known is not None and known.state is State.UNCONFIRMED:
                    return self._ended(fact.attempt, State.WRITTEN_OFF, 0)
            case GateOpened():
                self.epoch = max(self.epoch, fact.epoch)
                return None
            case _:
                return None
        self.ignored += 1
        return None

    def _admitted(self, fact: RequestAdmitted) -> State | None:
        if fact.attempt in self.attempts:
            self.ignored += 1
            return None
        if fact.epoch != self.epoch:
            return self._void(fact.attempt, fact.accounted_at)
        keys = []
        for hold in fact.budgets:
            keys.append(key := (fact.org, hold.budget, hold.bucket))
            bucket = self.buckets.get(key)
            if bucket is None:
                bucket = self.buckets[key] = Bucket()
            bucket.held += fact.hold
            bucket.until = hold.until
        self.attempts[fact.attempt] = Attempt(State.OPEN, fact.accounted_at, fact.hold, tuple(keys))
        if fact.once is not None:
            self.once[fact.once] = (fact.request, fact.accounted_at)
        return State.OPEN

    def _unconfirmed(self, attempt: str) -> State | None:
        known = self.attempts.get(attempt)
        if known is None or known.state is not State.OPEN:
            self.ignored += 1
            return None
        known.state = State.UNCONFIRMED
        for key in known.buckets:
            bucket = self.buckets[key]
            bucket.held -= known.hold
            bucket.consumed += known.hold
            bucket.estimated += known.hold
        return State.UNCONFIRMED

    def _ended(self, attempt: str, state: State, cost: int) -> State | None:
        known = self.attempts.get(attempt)
        if known is None or known.state not in LIVE:
            self.ignored += 1
            return None
        for key in known.buckets:
            bucket = self.buckets[key]
            if known.state is State.OPEN:
                bucket.held -= known.hold
            else:
                bucket.consumed -= known.hold
                bucket.estimated -= known.hold
            bucket.consumed += cost
        known.state, known.hold, known.buckets = state, 0, ()
        return state

    def _void(self, attempt: str, accounted_at: datetime | None) -> State:
        self.attempts[attempt] = Attempt(State.VOID, accounted_at)
        return State.VOID
