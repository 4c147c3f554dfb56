"""The whole decision about one request, from its facts: who, which budgets at which balances, which price, which backends,
what it cost or why it was refused."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from domain import envelope as wire
from domain.facts import (
    BudgetHold,
    RequestAdmitted,
    RequestCompleted,
    RequestDenied,
    RequestFailed,
    RequestUnconfirmed,
    RequestWrittenOff,
    Try,
)
from domain.registry import decode_event
from projections.reads.requests import RequestLine, StoredFact


class Told(Struct, frozen=True):
    """One fact about a request: its id and type, when, and where in the log."""

    id: str
    type: str
    occurred_at: datetime
    partition: int
    offset: int


class Admission(Struct, frozen=True, kw_only=True):
    """What the gate decided. `output_cap` is the cap that the hold pays for, `clamped` whether the caller wanted more;
    `asked_model` is what the caller asked for where another model was admitted, `fallback` why."""

    epoch: int
    deadline: datetime
    output_cap: int | None
    clamped: bool
    input_bound: int
    asked_model: str | None
    fallback: str | None


class Explained(Struct, frozen=True, kw_only=True):
    """One attempt, or refusal. `budgets` as the gate saw them before it; `refused_by` is the budget that refused; `worst` what
    it could cost (nano-dollars); `told` every fact about it."""

    line: RequestLine
    reason: str | None
    budgets: tuple[BudgetHold, ...]
    refused_by: str | None
    worst: int
    admission: Admission | None
    tries: tuple[Try, ...]
    source: str | None
    told: tuple[Told, ...]


def explain(line: RequestLine, facts: Sequence[StoredFact]) -> Explained:
    """What `facts` say about the attempt of `line`; facts about other attempts are passed over."""
    told: list[Told] = []
    about: list[Any] = []
    for stored in facts:
        envelope = wire.decode(stored.body)
        fact = decode_event(envelope)
        attempt = fact.request if isinstance(fact, RequestDenied) else getattr(fact, "attempt", None)
        if attempt != line.attempt or isinstance(fact, RequestDenied) != (line.kind == 1):
            continue
        told.append(Told(envelope.id, envelope.type, envelope.occurred_at, stored.partition, stored.offset))
        about.append(fact)
    admitted = _first(about, RequestAdmitted)
    denied = _first(about, RequestDenied)
    seen = admitted or denied
    return Explained(
        line=line,
        reason=_reason(line, about),
        budgets=() if seen is None else seen.budgets,
        refused_by=None if denied is None else denied.budget,
        worst=line.hold if denied is None else denied.worst,
        admission=None if admitted is None else _admission(admitted),
        tries=_tries(line, about),
        source=next((fact.source for fact in about if isinstance(fact, RequestCompleted)), None),
        told=tuple(told),
    )


def _first(facts: Sequence[Any], shape: type[Any]) -> Any:
    return next((fact for fact in facts if isinstance(fact, shape)), None)


def _admission(fact: RequestAdmitted) -> Admission:
    return Admission(
        epoch=fact.epoch,
        deadline=fact.deadline,
        output_cap=fact.grant,
        clamped=fact.clamped,
        input_bound=fact.input_bound,
        asked_model=fact.asked_model,
        fallback=fact.fallback,
    )


def _reason(line: RequestLine, facts: Sequence[Any]) -> str | None:
    """The words of the fact that made the line what it is, where there are any."""
    shape = {
        "denied": RequestDenied,
        "failed": RequestFailed,
        "unconfirmed": RequestUnconfirmed,
        "written_off": RequestWrittenOff,
    }.get(line.outcome)
    found = None if shape is None else _first(facts, shape)
    return None if found is None else str(found.reason)


def _tries(line: RequestLine, facts: Sequence[Any]) -> tuple[Try, ...]:
    """Of the fact that ended it, else of the last that names any."""
    shape = {"completed": RequestCompleted, "failed": RequestFailed, "unconfirmed": RequestUnconfirmed}
    ended = shape.get(line.outcome)
    found = None if ended is None else _first(facts, ended)
    if found is not None:
        return tuple(found.tries)
    named = [tries for fact in facts if (tries := getattr(fact, "tries", ()))]
    return tuple(named[-1]) if named else ()
