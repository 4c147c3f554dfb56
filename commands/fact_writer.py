"""Writes facts: wraps them in envelopes, appends them, and knows when the log does not take them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from commands.ports import Clock, FactLog
from commands.tracing import Trace
from domain.envelope import Envelope, encode
from domain.errors import LogUnavailable
from domain.facts import Fact

DOWN_SECONDS = 0.25
"""After a failed append nothing new is admitted for this long: what fills a dead log only delays what is owed to it."""

_RETRY_SECONDS = 0.05


class FactWriter:
    """One per process, on one event loop. `new_id` makes event ids."""

    def __init__(self, log: FactLog, clock: Clock, new_id: Callable[[str], str]) -> None:
        self._log, self._clock, self._new_id = log, clock, new_id
        self._loop = asyncio.get_running_loop()
        self._down_until = 0.0
        self._background: set[asyncio.Task[None]] = set()

    def body(self, fact: Fact, org: str, subject: str, actor: str, trace: Trace | None = None) -> bytes:
        """The stored bytes of a fact about `subject` (a request, or the gate), which happened in `trace`."""
        return encode(
            Envelope(
                id=self._new_id("evt"),
                type=type(fact).__name__,
                org=org,
                stream=f"{org}/request/{subject}",
                occurred_at=self._clock(),
                correlation_id=subject,
                actor=actor,
                traceparent=None if trace is None else trace.context,
                data=fact,
            )
        )

    def append(self, partition: int, body: bytes) -> Awaitable[int]:
        """One try. Raises `LogUnavailable` when awaited."""
        return self._log.append(partition, body)

    async def append_until_acknowledged(self, partition: int, body: bytes) -> int:
        """The offset, however long it takes: the same bytes again and again, the fold counts them once."""
        while True:
            try:
                return await self._log.append(partition, body)
            except LogUnavailable:
                self.saw_failure()
                await asyncio.sleep(_RETRY_SECONDS)

    def require_up(self) -> None:
        """Raises `LogUnavailable` right after a failure."""
        if time.monotonic() < self._down_until:
            raise LogUnavailable("the log cannot be written")

    def saw_failure(self) -> None:
        self._down_until = time.monotonic() + DOWN_SECONDS

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Runs `work` in the background; `drain` waits for it."""
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def drain(self) -> None:
        """Returns once nothing is being appended in the background."""
        while self._background:
            await asyncio.wait(list(self._background))
