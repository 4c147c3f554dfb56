"""What became of an admitted request, made durable before the caller gets the last byte of its answer."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from commands.admission import Admitted
from commands.fact_writer import FactWriter
from commands.gate import Gate
from commands.tracing import Ended, Spans
from domain.errors import TollhouseError
from domain.facts import RequestCompleted, RequestFailed, RequestUnconfirmed, Try, Usage
from domain.pricing import cost_of

Exceeded = Callable[[str, str, int, int], Coroutine[Any, Any, None]]
"""Reports that a request of a model cost more than its hold: (model, request, cost, hold)."""


class Outcomes:
    """Each method returns the fact's offset once it is acknowledged, however long that takes; only then is room freed. `spans`
    are told, too, if there are any."""

    def __init__(self, gate: Gate, writer: FactWriter, exceeded: Exceeded, spans: Spans | None = None) -> None:
        self._gate, self._writer, self._exceeded, self._spans = gate, writer, exceeded, spans

    async def completed(
        self,
        admitted: Admitted,
        usage: Usage,
        *,
        backend: str,
        tries: tuple[Try, ...],
        status: int = 200,
        estimated: bool = False,
        abandoned: bool = False,
        first_token_ms: float | None = None,
    ) -> tuple[int, int]:
        """It was served: (cost in nano-dollars, offset). An estimate is never charged above its hold."""
        price, hold = admitted.price, admitted.hold
        cost = 0 if price is None else cost_of(price, usage)
        if estimated:
            cost = min(cost, hold)
        overrun = price is not None and cost > hold
        fact = RequestCompleted(
            **admitted.identity,
            usage=usage,
            cost=cost,
            backend=backend,
            tries=tries,
            status=status,
            estimated=estimated,
            overrun=overrun,
            abandoned=abandoned,
            latency_ms=self._since(admitted),
            first_token_ms=first_token_ms,
        )
        offset = await self._append(admitted, fact)
        self._gate.capture(admitted.caller.partition, admitted.attempt, cost, usage.total)
        if overrun:
            self._writer.later(self._exceeded(admitted.model, admitted.request, cost, hold))
        return cost, offset

    def in_background(self, booking: Coroutine[Any, Any, Any]) -> None:
        """Carries out a call of one of these methods for a request that nobody waits for any more."""
        self._writer.later(booking)

    async def failed(
        self, admitted: Admitted, reason: str, *, backend: str, tries: tuple[Try, ...], status: int = 0
    ) -> int:
        """It surely cost nothing."""
        fact = RequestFailed(
            **admitted.identity,
            reason=reason,
            status=status,
            backend=backend,
            tries=tries,
            latency_ms=self._since(admitted),
        )
        offset = await self._append(admitted, fact)
        self._gate.capture(admitted.caller.partition, admitted.attempt, 0, 0)
        return offset

    async def unconfirmed(
        self, admitted: Admitted, failure: TollhouseError, *, backend: str, tries: tuple[Try, ...]
    ) -> int:
        """Nobody knows what it cost: its whole hold counts until something better is known. Its place among those under way is
        free."""
        fact = RequestUnconfirmed(
            **admitted.identity,
            reason=failure.code,
            backend=backend,
            tries=tries,
            latency_ms=self._since(admitted),
        )
        offset = await self._append(admitted, fact)
        self._gate.capture(admitted.caller.partition, admitted.attempt, admitted.hold)
        return offset

    async def _append(self, admitted: Admitted, fact: Ended) -> int:
        caller, trace = admitted.caller, admitted.call.trace
        body = self._writer.body(fact, caller.org, admitted.request, caller.key, trace)
        try:
            offset = await self._writer.append_until_acknowledged(caller.partition, body)
        except asyncio.CancelledError:  # nobody waits any more, and what is owed to the log stays owed
            self._writer.later(self._writer.append_until_acknowledged(caller.partition, body))
            raise
        if self._spans is not None and trace is not None:
            self._spans.tries(trace, fact)
        return offset

    def _since(self, admitted: Admitted) -> float:
        return round((time.monotonic() - admitted.began) * 1000, 3)
