"""Time and concurrency under a test's hand: a clock that only the test moves, and an event loop that runs until nothing can.

Threads are taken out too: what code hands to an executor runs at once. So a run is a function of the steps a test takes.
"""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START = datetime(2026, 11, 23, 21, tzinfo=UTC)


class Crank:
    """A wall clock and a monotonic clock that move together, by `advance` only."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


class _Instant(selectors.SelectSelector):
    """Waits for nothing: when the loop would wait, it stops instead."""

    idle: Callable[[], None]

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            self.idle()
        return []


PROCESS: ContextVar[str] = ContextVar("PROCESS")
"""The process a task belongs to; tasks it starts belong to it as well."""


class CrankedLoop(asyncio.SelectorEventLoop):
    """Runs on a `Crank`. `settle` runs everything that can run now; `kill` ends a process as SIGKILL does."""

    def __init__(self, crank: Crank) -> None:
        self._crank = crank
        self._owned: dict[str, set[asyncio.Task[Any]]] = {}
        self.errors: list[object] = []
        """What ended a task and was raised to nobody."""
        selector = _Instant()
        super().__init__(selector)
        selector.idle = self.stop
        self.set_task_factory(self._own)
        self.set_exception_handler(lambda _, context: self.errors.append(context.get("exception", context["message"])))

    def time(self) -> float:
        return self._crank.seconds

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> "asyncio.Future[T]":
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # an executor hands on whatever a function raises
            future.set_exception(error)
        return future

    def settle(self) -> None:
        self.run_forever()

    def inside(self, work: Callable[[], T]) -> T:
        """What `work` answers when it is called on this loop."""

        async def run() -> T:
            return work()

        return self.run_until_complete(run())

    def kill(self, process: str) -> None:
        """Its tasks get no further; whoever calls sees to it that what they do on their way out reaches nobody."""
        for task in self._owned.pop(process, set()):
            task.cancel()
        self.settle()

    def end(self) -> None:
        for process in list(self._owned):
            self.kill(process)
        self.close()

    def _own(self, loop: asyncio.AbstractEventLoop, coro: Any, context: Any = None) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, context=context)
        mine = self._owned.setdefault(PROCESS.get("test"), set())
        mine.add(task)
        task.add_done_callback(mine.discard)
        return task
