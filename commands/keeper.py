"""The keeper ends what nobody else will end. A second one does no harm: its facts are ignored by the fold.

* An open attempt past its deadline becomes unconfirmed.
* A hold whose admission never reached the log is voided, after 2 x DELTA: before that its admission may yet arrive.
* An ordered write-off becomes the fact that the fold knows.

A round costs what there is to end, not what is unconfirmed: that may be much, and wait for weeks.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from commands.admission import DELTA
from commands.fact_writer import FactWriter
from commands.gate import Gate, OpenHold
from commands.ports import Balances, Clock, Overdue
from domain import write_off
from domain.envelope import decode
from domain.facts import (
    RequestAdmitted,
    RequestUnconfirmed,
    RequestVoided,
    RequestWrittenOff,
    identity_of,
    only_backend,
)
from domain.registry import decode_event

_REMEMBER = timedelta(seconds=60)

_AT_ONCE = 500
"""Facts that are appended together."""


_Held = TypeVar("_Held", Overdue, OpenHold)
_Ending = RequestUnconfirmed | RequestVoided | RequestWrittenOff


class Orders(Protocol):
    """What the keeper asks of the view of the control topic."""

    def state(self, kind: str, org: str, name: str) -> Any: ...

    def write_offs(self) -> Sequence[tuple[str, str]]:
        """(org, attempt) of every write-off that was ordered, in order."""


@dataclass(slots=True)
class Keeper:
    """`tick` is one round; run it about once a second."""

    gate: Gate
    writer: FactWriter
    balances: Callable[[], Balances]
    orders: Orders
    clock: Clock
    _done: dict[str, datetime] = field(default_factory=dict)
    _ordered: int = 0
    """How many orders were looked at when they came."""
    _all_looked_at: datetime | None = None

    async def tick(self) -> None:
        now = self.clock()
        self._done = {key: at for key, at in self._done.items() if now - at < _REMEMBER}
        balances = self.balances()
        overdue = await asyncio.to_thread(balances.overdue, now)
        await self._append("overdue", overdue, _unconfirmed, now)
        await self._write_off(balances, now)
        expired = await self.gate.expired(now - timedelta(seconds=2 * DELTA))
        await self._append("void", expired, _voided, now)

    async def _write_off(self, balances: Balances, now: datetime) -> None:
        """New orders, and each minute all of them again: the view may have been behind."""
        orders = self.orders.write_offs()
        count = len(orders)
        every = self._all_looked_at is None or now - self._all_looked_at >= _REMEMBER
        attempts = [attempt for _, attempt in (orders if every else orders[self._ordered :])]
        for start in range(0, len(attempts), _AT_ONCE):
            some = attempts[start : start + _AT_ONCE]
            await self._append("write-off", await asyncio.to_thread(balances.awaiting, some), self._written_off, now)
        self._ordered = count
        if every:
            self._all_looked_at = now

    def _written_off(self, waiting: Overdue) -> RequestWrittenOff:
        admission: RequestAdmitted = decode_event(decode(waiting.body))
        order: write_off.WriteOff = self.orders.state(write_off.KIND, admission.org, admission.attempt)
        return RequestWrittenOff(**identity_of(admission), reason=order.reason)

    async def _append(
        self, what: str, found: Sequence[_Held], fact_of: Callable[[_Held], _Ending], now: datetime
    ) -> None:
        """One fact for each of `found`, but while that of an earlier round may not have reached the views yet."""
        fresh = [each for each in found if f"{what} {each.attempt}" not in self._done]
        for start in range(0, len(fresh), _AT_ONCE):
            some = fresh[start : start + _AT_ONCE]
            self._done.update((f"{what} {each.attempt}", now) for each in some)
            await asyncio.gather(*(self._append_one(each.partition, fact_of(each)) for each in some))

    async def _append_one(self, partition: int, fact: _Ending) -> None:
        subject = fact.attempt if isinstance(fact, RequestVoided) else fact.request
        body = self.writer.body(fact, fact.org, subject, "system")
        await self.writer.append_until_acknowledged(partition, body)


def _unconfirmed(overdue: Overdue) -> RequestUnconfirmed:
    admission: RequestAdmitted = decode_event(decode(overdue.body))
    return RequestUnconfirmed(**identity_of(admission), reason="deadline", backend=only_backend(admission))


def _voided(hold: OpenHold) -> RequestVoided:
    return RequestVoided(attempt=hold.attempt, org=hold.org)
