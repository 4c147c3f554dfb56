"""Group commit: one thread carries out together what arrived while it carried out the last group.

Guarantees: appends are carried out in the order of their arrival, and one that the store cannot take fails alone.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from threading import Condition, Thread

from eventsourcing.persistence import DataError, IntegrityError, StoredEvent
from msgspec import Struct

from commands.ports import CommandRow
from domain.errors import Unavailable

GROUP = 256
"""Commands in one transaction, at most."""

PATIENCE = 10.0
"""Seconds a command waits for its answer."""


class Append(Struct, frozen=True):
    """One command, as `Journal.appended` takes it."""

    events: Sequence[StoredEvent]
    expected: Mapping[str, int]
    row: CommandRow | None


Outcome = int | Exception
"""What became of one command: its position, or why it was refused."""


_Future = Future[int] | asyncio.Future[int]
"""Of who waits in a thread, or on an event loop."""


class GroupCommit:
    """`carry_out` commits a group, and tells of each what became of it; what it raises befalls all of them, but a `DataError`
    or `IntegrityError` only those that have it alone. `close` when done."""

    def __init__(self, carry_out: Callable[[Sequence[Append]], Sequence[Outcome]], patience: float = PATIENCE) -> None:
        self._carry_out, self._patience = carry_out, patience
        self.waiting: deque[tuple[Append, _Future]] = deque()
        """What has arrived and was not begun."""
        self._changed = Condition()
        self._closing = False
        self._thread = Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def append(self, append: Append) -> int:
        """The position; raises why it was refused, and `Unavailable` when there is no answer in time: repeated with its key,
        the command tells what became of it."""
        future: Future[int] = Future()
        self._submit(append, future)
        try:
            return future.result(self._patience)
        except NotInTime:
            future.cancel()
            raise _not_in_time() from None

    async def appended(self, append: Append) -> int:
        """As `append`, on an event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._submit(append, future)
        end = loop.call_later(self._patience, _tell, [(future, _not_in_time())])
        try:
            return await future
        finally:
            end.cancel()

    def close(self) -> None:
        """Carries out what waits, then ends."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _submit(self, append: Append, future: _Future) -> None:
        with self._changed:
            if self._closing:
                raise Unavailable("the journal is closed", code="journal_unavailable")
            self.waiting.append((append, future))
            self._changed.notify()

    def _run(self) -> None:
        while group := self._next():
            outcomes = self._outcomes([append for append, _ in group])
            on_loops: dict[asyncio.AbstractEventLoop, list[tuple[_Future, Outcome]]] = {}
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if isinstance(future, Future):
                    _tell([(future, outcome)])
                else:
                    on_loops.setdefault(future.get_loop(), []).append((future, outcome))
            for loop, told in on_loops.items():
                with suppress(RuntimeError):  # the loop has ended, and who waited on it
                    loop.call_soon_threadsafe(_tell, told)

    def _outcomes(self, appends: Sequence[Append]) -> Sequence[Outcome]:
        try:
            return self._carry_out(appends)
        except Exception as error:  # noqa: BLE001  # whoever waits is told; the thread serves the others
            if isinstance(error, (DataError, IntegrityError)) and len(appends) > 1:
                return [outcome for append in appends for outcome in self._outcomes([append])]
            return [error] * len(appends)

    def _next(self) -> list[tuple[Append, _Future]]:
        """What waits, at most `GROUP`. Empty: it is the end."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self.waiting or self._closing)
                taken = [self.waiting.popleft() for _ in range(min(len(self.waiting), GROUP))]
            if not taken:
                return []
            wanted = [(append, future) for append, future in taken if _begun(future)]
            if wanted:
                return wanted


def _begun(future: _Future) -> bool:
    """Whether somebody still waits for it."""
    return future.set_running_or_notify_cancel() if isinstance(future, Future) else not future.done()


def _tell(told: Sequence[tuple[_Future, Outcome]]) -> None:
    for future, outcome in told:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _not_in_time() -> Unavailable:
    return Unavailable(
        "the journal did not answer in time: repeat the command with the same Idempotency-Key",
        code="journal_unavailable",
    )
