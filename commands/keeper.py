"""The keeper ends what nobody else will end. A second one does no harm: its facts are ignored by the fold.

* An open attempt past its deadline becomes unconfirmed.
* A hold whose admission never reached the log is voided, after 2 x DELTA: before that its admission may yet arrive.
* An ordered write-off becomes the fact that the fold knows.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from commands.admission import DELTA
from commands.fact_writer import FactWriter
from commands.ports import Balances, Clock, Gate, Overdue
from domain import write_off
from domain.envelope import decode
from domain.facts import RequestAdmitted, RequestUnconfirmed, RequestVoided, RequestWrittenOff, identity_of
from domain.registry import decode_event

_REMEMBER = timedelta(seconds=60)


class Orders(Protocol):
    """What the keeper asks of the view of the control topic."""

    def state(self, kind: str, org: str, name: str) -> Any: ...


@dataclass(slots=True)
class Keeper:
    """`tick` is one round; run it about once a second."""

    gate: Gate
    writer: FactWriter
    balances: Callable[[], Balances]
    orders: Orders
    clock: Clock
    _done: dict[str, datetime] = field(default_factory=dict)

    async def tick(self) -> None:
        now = self.clock()
        self._done = {key: at for key, at in self._done.items() if now - at < _REMEMBER}
        balances = self.balances()
        for overdue in await asyncio.to_thread(balances.overdue, now):
            await self._end(overdue, now)
        for waiting in await asyncio.to_thread(balances.unconfirmed):
            await self._write_off(waiting, now)
        for hold in await self.gate.expired(now - timedelta(seconds=2 * DELTA)):
            if self._first_time(f"void {hold.attempt}", now):
                fact = RequestVoided(attempt=hold.attempt, org=hold.org)
                body = self.writer.body(fact, hold.org, hold.attempt, "system")
                await self.writer.append_until_acknowledged(hold.partition, body)

    async def _end(self, overdue: Overdue, now: datetime) -> None:
        admission: RequestAdmitted = decode_event(decode(overdue.body))
        if self._first_time(f"overdue {admission.attempt}", now):
            fact = RequestUnconfirmed(**identity_of(admission), reason="deadline", backend=admission.backend)
            body = self.writer.body(fact, admission.org, admission.request, "system")
            await self.writer.append_until_acknowledged(overdue.partition, body)

    async def _write_off(self, waiting: Overdue, now: datetime) -> None:
        admission: RequestAdmitted = decode_event(decode(waiting.body))
        order = self.orders.state(write_off.KIND, admission.org, admission.attempt)
        if order is not None and self._first_time(f"write-off {admission.attempt}", now):
            fact = RequestWrittenOff(**identity_of(admission), reason=order.reason)
            body = self.writer.body(fact, admission.org, admission.request, "system")
            await self.writer.append_until_acknowledged(waiting.partition, body)

    def _first_time(self, what: str, now: datetime) -> bool:
        """False while the fact of an earlier round may not have reached the views yet."""
        if what in self._done:
            return False
        self._done[what] = now
        return True
