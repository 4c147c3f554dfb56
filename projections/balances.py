"""The balances view: what every budget's buckets have consumed and hold, by `domain.fold.Books`, a batch at a time.

The caller loads what a batch touches (`touched`), folds (`fold`), and writes what changed (`Changes`). The result is a
pure function of each partition's log, however it is cut into batches: an attempt that ended more than
`domain.fold.REMEMBER` before the newest admission counts as forgotten, whether its row was deleted yet or not, and a fact
that old about no open attempt is ignored.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from domain import envelope as wire
from domain.facts import (
    BudgetHold,
    GateOpened,
    RequestAdmitted,
    RequestCompleted,
    RequestDenied,
    RequestFailed,
    RequestUnconfirmed,
    RequestVoided,
    RequestWrittenOff,
)
from domain.fold import LIVE, REMEMBER, Attempt, Books, BucketKey, State
from domain.registry import decode_event
from projections.ports import Event, Poisoned

NAME = "balances"
"""Stored format: it is part of table names."""

_ATTEMPT = ("request", "attempt", "org", "accounted_at", "hold")

_OfAttempt = RequestAdmitted | RequestCompleted | RequestFailed | RequestUnconfirmed | RequestWrittenOff

LOOKS = {
    RequestAdmitted: (*_ATTEMPT, "epoch", "deadline", "budgets", "once"),
    BudgetHold: ("budget", "bucket", "until"),
    RequestCompleted: (*_ATTEMPT, "cost", "model", "overrun"),
    RequestDenied: (),
}
"""What it looks at in facts."""


@dataclass(slots=True)
class Changes:
    """What a batch changed in one partition: `attempts` with their organizations, of which `admissions` are new and were
    open at first; `forgotten` ones are to be deleted before that; `epochs` as (offset, epoch) of every opening; `newest`
    accounted time of an admission; `placed`: unconfirmed ones whose fact says where they went; `overruns`: of each model the
    last completion that cost more than its hold, with its offset."""

    books: Books
    newest: datetime | None
    attempts: dict[str, str] = field(default_factory=dict)
    admissions: dict[str, tuple[RequestAdmitted, bytes]] = field(default_factory=dict)
    placed: dict[str, str] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    once: set[str] = field(default_factory=set)
    epochs: list[tuple[int, int]] = field(default_factory=list)
    overruns: dict[str, tuple[int, RequestCompleted]] = field(default_factory=dict)

    def changed(self) -> Iterable[tuple[str, str, Attempt]]:
        """(attempt id, organization, what it is now)."""
        attempts = self.books.attempts
        return ((id, org, attempts[id]) for id, org in self.attempts.items())


def attempts_of(events: Iterable[Event]) -> set[str]:
    """The attempts that `events` are about."""
    return {event.value.attempt for event in events if not isinstance(event.value, RequestDenied | GateOpened)}


def buckets_of(events: Iterable[Event]) -> set[BucketKey]:
    """The buckets that admissions among `events` hold money in; those of attempts open before come on top."""
    holds: Iterable[tuple[str, tuple[BudgetHold, ...]]] = (
        (event.value.org, event.value.budgets) for event in events if isinstance(event.value, RequestAdmitted)
    )
    return {(org, hold.budget, hold.bucket) for org, budgets in holds for hold in budgets}


def fold(books: Books, newest: datetime | None, events: Iterable[Event]) -> Changes:
    """Folds consecutive `events` of one partition into `books`, whose newest admission so far was accounted at `newest`.

    Raises `Poisoned`; `books` are spoiled then.
    """
    changes = Changes(books, newest)
    for event in events:
        try:
            _take_in(changes, event)
        except (TypeError, ValueError, KeyError, ArithmeticError) as error:
            raise Poisoned(event, error) from error
    return changes


def replay(books: Books, event: Event) -> Changes:
    """Folds in one event that waited: nothing counts as forgotten, however long it waited. Raises `Poisoned`."""
    return fold(books, None, [event])


def placed(body: bytes, backend: str) -> bytes:
    """A stored admission, as that of an attempt of which it is known by now that it went to `backend` and nowhere else."""
    envelope = wire.decode(body)
    admission: RequestAdmitted = decode_event(envelope)
    if not admission.others:
        return body
    fields = {name: getattr(envelope, name) for name in wire.Envelope.__struct_fields__ if name != "data"}
    return wire.encode(wire.Envelope(**fields, data=replace(admission, backend=backend, others=())))


def horizon(newest: datetime | None) -> datetime | None:
    """Attempts that ended, and once-keys, accounted before this are forgotten."""
    return None if newest is None else newest - REMEMBER


def _take_in(changes: Changes, event: Event) -> None:
    books, fact = changes.books, event.value
    match fact:
        case RequestAdmitted() | RequestCompleted() | RequestFailed() | RequestUnconfirmed() | RequestWrittenOff():
            _attempt(changes, event, fact)
        case RequestDenied():
            pass
        case GateOpened():
            if fact.epoch > books.epoch:
                changes.epochs.append((event.offset, fact.epoch))
            books.apply(fact)
        case RequestVoided():
            _forget(changes, fact.attempt)
            if books.apply(fact) is not None:
                books.attempts[fact.attempt].accounted_at = event.envelope.occurred_at  # the fact has none of its own
                changes.attempts[fact.attempt] = fact.org
        case _:
            raise TypeError(f"no fact: {type(fact).__name__}")


def _attempt(changes: Changes, event: Event, fact: _OfAttempt) -> None:
    if _forget(changes, fact.attempt) is None and _before(fact.accounted_at, horizon(changes.newest)):
        changes.books.ignored += 1
        return
    state = changes.books.apply(fact)
    if isinstance(fact, RequestAdmitted):
        changes.newest = fact.accounted_at if changes.newest is None else max(changes.newest, fact.accounted_at)
        if state is State.OPEN:
            changes.admissions[fact.attempt] = (fact, event.body)
            if fact.once is not None:
                changes.once.add(fact.once)
    elif isinstance(fact, RequestCompleted) and fact.overrun and state is State.DONE:
        changes.overruns[fact.model] = (event.offset, fact)
    elif isinstance(fact, RequestUnconfirmed) and fact.backend is not None and state is State.UNCONFIRMED:
        changes.placed[fact.attempt] = fact.backend
    if state is not None:
        changes.attempts[fact.attempt] = fact.org


def _forget(changes: Changes, attempt: str) -> Attempt | None:
    """What is known of `attempt`, after forgetting it if it ended long enough ago."""
    known = changes.books.attempts.get(attempt)
    if known is None or known.state in LIVE or not _before(known.accounted_at, horizon(changes.newest)):
        return known
    del changes.books.attempts[attempt]
    changes.attempts.pop(attempt, None)
    changes.forgotten.add(attempt)
    return None


def _before(moment: datetime | None, limit: datetime | None) -> bool:
    return moment is not None and limit is not None and moment < limit
