"""What the gate's scripts take and answer: MessagePack, times as microseconds since 1970, numbers up to 2^53."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from commands.gate import AdmitRequest, Granted, RateClaim, Refused, Settled
from domain.facts import BudgetHold
from domain.fold import Attempt, Books, State

MAX = 2**53
"""Beyond it a double is no longer exact: single amounts saturate."""

MAX_SUM = 2**63 - 1
"""Where sums (of soft budgets) saturate."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SETTLES = frozenset(
    f"Request{what}" for what in ("Admitted", "Completed", "Failed", "Voided", "WrittenOff", "Unconfirmed")
)
_FAILED = "failed"

pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def admission(request: AdmitRequest, clock: int | None) -> bytes:
    """The arguments of the script `admit`."""
    budgets = [
        (claim.budget, claim.window, _until(claim.until), claim.limit, claim.version, claim.hard)
        for claim in request.budgets
    ]
    rates = [(claim.key, claim.kind, claim.limit, claim.sharer) for claim in request.rates]
    return pack(
        (
            clock,
            request.run,
            request.epoch,
            request.org,
            request.attempt,
            request.once,
            micros(request.accounted_at),
            min(request.base, MAX),
            min(request.unit, MAX),
            min(request.want, MAX),
            min(request.least, MAX),
            min(request.tokens, MAX),
            budgets,
            rates,
        )
    )


def admitted(reply: bytes) -> Granted | Refused:
    """The answer of the script `admit`."""
    answer = _unpack(reply)
    if answer[0] == "granted":
        _, hold, grant, seen, rates = answer
        return Granted(hold, grant, _seen(seen), _rates(rates) if rates else ())
    code, seen, budget, first, outcome, retry, number, rates = answer
    claims = _rates(rates)
    return Refused(
        code,
        _seen(seen),
        budget or None,
        first or None,
        outcome or None,
        float(retry) if retry else None,
        claims[number - 1][0] if number else None,
        claims,
    )


def settling(facts: Sequence[Settled]) -> list[tuple[str, str, int, int | None]]:
    """Those of `facts` that a gate has to do with."""
    return [(fact.type, fact.attempt, min(fact.cost, MAX), fact.tokens) for fact in facts if fact.type in _SETTLES]


def pieces(books: Books, size: int) -> Iterator[tuple[list[Any], list[Any], list[Any]]]:
    """`books` as the script `load` takes them, `size` entries at a time: buckets, holds, once-keys."""
    open_ = [(id, known) for id, known in books.attempts.items() if known.state in (State.OPEN, State.UNCONFIRMED)]
    held: dict[tuple[str, str, str], int] = {}
    unconfirmed: dict[tuple[str, str, str], int] = {}
    for _, known in open_:
        for key in known.buckets:
            held[key] = held.get(key, 0) + known.hold
            if known.state is State.UNCONFIRMED:
                unconfirmed[key] = unconfirmed.get(key, 0) + known.hold
    buckets = []
    for key, bucket in books.buckets.items():
        sums = bucket.consumed - bucket.estimated, held.get(key, 0), unconfirmed.get(key, 0)
        buckets.append(("/".join(key), _until(bucket.until), *(str(min(each, MAX_SUM)) for each in sums)))
        if len(buckets) == size:
            yield buckets, [], []
            buckets = []
    if buckets:
        yield buckets, [], []
    used = {request: once for once, (request, _) in books.once.items()}
    for start in range(0, len(open_), size):
        yield [], [_hold(id, known, used.get(id)) for id, known in open_[start : start + size]], []
    onces: list[Any] = []
    for once, (request, at) in books.once.items():
        used_by = books.attempts.get(request)
        outcome = "unknown" if used_by is None else _FAILED if used_by.state is State.VOID else used_by.state.value
        onces.append((once, request, micros(at), outcome))
        if len(onces) == size:
            yield [], [], onces
            onces = []
    if onces:
        yield [], [], onces


def _hold(id: str, known: Attempt, once: str | None) -> tuple[Any, ...]:
    org = known.buckets[0][0] if known.buckets else ""
    buckets = ["/".join(key) for key in known.buckets]
    return id, min(known.hold, MAX), org, buckets, once, known.state is State.UNCONFIRMED


@lru_cache(maxsize=4096)
def _until(moment: datetime | None) -> int | None:
    return None if moment is None else micros(moment)


@lru_cache(maxsize=4096)
def _moment(micros: int) -> datetime | None:
    return _EPOCH + timedelta(microseconds=micros) if micros else None


def _seen(budgets: list[Any]) -> tuple[BudgetHold, ...]:
    return tuple(
        BudgetHold(
            budget=budget,
            bucket=bucket,
            until=_moment(until),
            limit=limit,
            limit_version=version,
            mode="hard" if hard else "soft",
            consumed=consumed,
            held=held,
        )
        for budget, bucket, until, limit, version, hard, consumed, held in budgets
    )


def _rates(rates: list[Any]) -> tuple[tuple[RateClaim, int, float], ...]:
    return tuple(
        (RateClaim(key, kind, limit, sharer or None), remains, float(whole))
        for key, kind, limit, remains, whole, sharer in rates
    )
