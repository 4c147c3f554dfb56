"""Refusals are facts too, but nobody waits for them: they are appended in the background, in batches.

While the log is slow, equal refusals of one key fold into one fact with a count, and the first and the last id.
"""

import asyncio
from collections import deque

from msgspec.structs import replace

from commands.admission import Denied
from commands.fact_writer import FactWriter
from commands.ports import Clock
from domain.facts import RequestDenied
from domain.ids import partition_of
from domain.scope import Caller

MAX_WAITING = 2000
"""Refusals that wait for the log one by one; beyond this, equal ones fold."""

MAX_FOLDED = 10_000
"""Different refusals that wait folded; beyond this, those of one key for different models fold too."""

_Key = tuple[str, str | None, str, str | None]


class Denials:
    """One per gateway."""

    def __init__(self, writer: FactWriter, clock: Clock) -> None:
        self._writer, self._clock = writer, clock
        self._waiting: deque[RequestDenied] = deque()
        self._folded: dict[_Key, RequestDenied] = {}
        self._running = False

    def add(self, request: str, caller: Caller, endpoint: str, model: str | None, status: int, denied: Denied) -> None:
        """Books that `request` was answered `status` for `denied`."""
        refused = denied.refused
        fact = RequestDenied(
            request=request,
            org=caller.org,
            project=caller.project,
            user=caller.user,
            key=caller.key,
            model=model,
            endpoint=endpoint,
            accounted_at=self._clock(),
            status=status,
            code=denied.code,
            reason=denied.message,
            budget=refused.budget if refused else None,
            budgets=refused.seen if refused else (),
            price=denied.price.version if denied.price else None,
            worst=denied.worst,
        )
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(fact)
        else:
            model = fact.model if len(self._folded) < MAX_FOLDED else None  # names may be anything, and endlessly many
            key = (fact.key, model, fact.code, fact.budget)
            first = self._folded.get(key)
            self._folded[key] = fact if first is None else replace(first, count=first.count + 1, last=request)
        if not self._running:
            self._running = True
            self._writer.later(self._append())

    async def _append(self) -> None:
        try:
            while self._waiting or self._folded:
                self._waiting.extend(self._folded.values())
                self._folded.clear()
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_WAITING))]
                await asyncio.gather(*(self._append_one(fact) for fact in batch))
        finally:
            self._running = False

    async def _append_one(self, fact: RequestDenied) -> None:
        body = self._writer.body(fact, fact.org, fact.request, fact.key)
        await self._writer.append_until_acknowledged(partition_of(fact.org), body)
