"""Refusals are facts too, but nobody waits for them: they are appended in the background, in batches.

Each key has an allowance of refusals that are kept one by one, so that each can be explained. Beyond it, and while too many
wait for the log, equal refusals of one key fold into one fact with a count, and the first and the last id. So a flood of
refusals costs bounded memory, and the log grows by a bounded number of facts a second and key, however fast the log is.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from commands.admission import Denied
from commands.fact_writer import FactWriter
from commands.ports import Clock
from commands.tracing import Trace
from domain.facts import RequestDenied
from domain.ids import partition_of
from domain.scope import Caller

BURST = 1000
"""Refusals of a key that are kept one by one at once."""

PER_SECOND = 50
"""So many more a second."""

FOLD_SECONDS = 1.0
"""What is folded is appended that often."""

MAX_WAITING = 2000
"""Refusals of all keys that wait for the log one by one; beyond this, equal ones fold."""

MAX_MODELS = 20
"""Different refusals of a key that wait folded; beyond this, those for different models fold too: names may be anything."""

MAX_FOLDED = 10_000
"""The same, of all keys together."""

_Key = tuple[str, str]
_Kind = tuple[_Key, str | None, str, str | None]


class Denials:
    """One per gateway. `passed`: seconds that never jump."""

    def __init__(self, writer: FactWriter, clock: Clock, passed: Callable[[], float] = time.monotonic) -> None:
        self._writer, self._clock, self._passed = writer, clock, passed
        self._waiting: deque[tuple[RequestDenied, Trace | None]] = deque()
        self._folded: dict[_Kind, RequestDenied] = {}
        self._kinds: dict[_Key, int] = {}
        self._allowed: dict[_Key, tuple[float, float]] = {}
        """How many of a key may still be kept one by one, as of when; of those that have not all."""
        self._appending = self._folding = False

    def add(
        self,
        request: str,
        caller: Caller,
        endpoint: str,
        model: str | None,
        status: int,
        denied: Denied,
        trace: Trace | None = None,
    ) -> None:
        """Books that `request` was answered `status` for `denied`, in `trace`. What is folded has none."""
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
            reason=denied.reason,
            budget=refused.budget if refused else None,
            budgets=refused.seen if refused else (),
            price=denied.price.version if denied.price else None,
            worst=denied.worst,
        )
        if len(self._waiting) < MAX_WAITING and self._may_stand_alone((caller.org, caller.key)):
            self._waiting.append((fact, trace))
            if not self._appending:
                self._appending = True
                self._writer.later(self._append_waiting())
        else:
            self._fold(fact)
            if not self._folding:
                self._folding = True
                self._writer.later(self._append_folded())

    def _may_stand_alone(self, key: _Key) -> bool:
        now = self._passed()
        left, since = self._allowed.get(key, (BURST, now))
        left = min(BURST, left + (now - since) * PER_SECOND)
        if left < 1:
            return False
        self._allowed[key] = (left - 1, now)
        return True

    def _fold(self, fact: RequestDenied) -> None:
        key = fact.org, fact.key
        kind: _Kind = (key, fact.model, fact.code, fact.budget)
        if kind not in self._folded and (self._kinds.get(key, 0) >= MAX_MODELS or len(self._folded) >= MAX_FOLDED):
            kind, fact = (key, None, fact.code, fact.budget), replace(fact, model=None)
        first = self._folded.get(kind)
        if first is None:
            self._folded[kind] = fact
            self._kinds[key] = self._kinds.get(key, 0) + 1
        else:
            self._folded[kind] = replace(first, count=first.count + 1, last=fact.request)

    async def _append_waiting(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
                await self._append(batch)
        finally:
            self._appending = False

    async def _append_folded(self) -> None:
        try:
            while self._folded:
                await asyncio.sleep(FOLD_SECONDS)
                batch = [(fact, None) for fact in self._folded.values()]
                self._folded.clear()
                self._kinds.clear()
                self._forget_quiet_keys()
                await self._append(batch)
        finally:
            self._folding = False

    def _forget_quiet_keys(self) -> None:
        """Those whose allowance is whole again."""
        now = self._passed()
        whole = [key for key, (left, since) in self._allowed.items() if left + (now - since) * PER_SECOND >= BURST]
        for key in whole:
            del self._allowed[key]

    async def _append(self, facts: Iterable[tuple[RequestDenied, Trace | None]]) -> None:
        await asyncio.gather(*(self._append_one(fact, trace) for fact, trace in facts))

    async def _append_one(self, fact: RequestDenied, trace: Trace | None) -> None:
        body = self._writer.body(fact, fact.org, fact.request, fact.key, trace)
        await self._writer.append_until_acknowledged(partition_of(fact.org), body)
