"""How a process of distributed mode lives: its port is there at once and says what is awaited, then it takes requests, then
it drains.

Processes may be started in any order, before what they need: each waits, says so in one line of its log and in ``/readyz``, and
prints its ready line once it takes requests.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from api.metrics import Metrics
from api.problems import problem
from api.router.errors import error_body
from api.site import App, Receive, Scope, Send, Site
from cli.http_server import serve_app
from cli.settings import Settings
from cli.slow_callers import SlowCallers
from domain.errors import Unavailable
from infra.adapters.ids import new_id

T = TypeVar("T")

_AGAIN_SECONDS = 0.2
_LOOK_SECONDS = 0.02
_log = logging.getLogger("tollhouse")


class Starting:
    """What a process that is not open yet waits for, and whether it is about to end: streams end then."""

    def __init__(self) -> None:
        self.awaited = "starting"
        self.ending = False

    async def until(self, what: str, make: Callable[[], T]) -> T:
        """The answer of `make`, called in a thread again and again while it raises `Unavailable`."""
        self.awaited, told = f"waiting for {what}", ""
        while True:
            try:
                return await asyncio.to_thread(make)
            except Unavailable as error:
                if told != error.message:
                    told = error.message
                    _log.warning("waiting for %s: %s", what, told)
                await asyncio.sleep(_AGAIN_SECONDS)

    def reasons(self) -> list[str]:
        return [self.awaited]

    def end(self) -> None:
        self.ending = True


class Process(Protocol):
    """A process that is open."""

    def mounts(self) -> Mapping[str, App]:
        """Which application answers which path."""

    def reasons(self) -> list[str]:
        """Why it takes no requests now; empty when it does."""


class Door:
    """The port of a process: until it is open everything but its health is 503."""

    def __init__(self, starting: Starting, metrics: Metrics) -> None:
        self.reasons: Callable[[], list[str]] = starting.reasons
        self._metrics = metrics
        refused = {"/v1/": self._refuse_request, "/admin/v1": self._refuse_command, "/read/": self._refuse_command}
        self._site = Site(dict(refused), starting.reasons, metrics, new_id)
        metrics.gauge("tollhouse_not_ready_reasons", "Reasons why requests are refused", lambda: len(self.reasons()))

    def open(self, process: Process) -> None:
        self.reasons = process.reasons
        self._site = Site(dict(process.mounts()), process.reasons, self._metrics, new_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._site(scope, receive, send)

    async def _refuse_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        body = error_body(503, "not_ready", self._why())
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"1"),
            (b"x-request-id", new_id("req").encode()),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _refuse_command(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem(503, "not_ready", self._why())
        answer.headers["x-request-id"] = new_id("req")
        await answer(scope, receive, send)  # type: ignore[arg-type]  # ASGI's own shapes

    def _why(self) -> str:
        return f"this process does not take requests yet: {'; '.join(self.reasons())}"


def count_tasks(metrics: Metrics) -> None:
    """Shows what is under way in this process's event loop: what only ever grows there is a leak."""
    metrics.gauge("tollhouse_tasks", "Tasks of the event loop", lambda: len(asyncio.all_tasks()))


def counted_slow_callers(settings: Settings, metrics: Metrics) -> SlowCallers:
    """Those of a process, as the setting bounds them, shown in its metrics."""
    slow = SlowCallers(settings.read_timeout)
    metrics.gauge("tollhouse_callers_cut", "Callers cut off that did not take their answers", lambda: slow.cut)
    return slow


Opened = Callable[[Starting, "asyncio.Future[None]"], AbstractAsyncContextManager[Process]]
"""Opens a process: awaits what it needs, and runs it until the context ends. The future tells of a part that ended by a bug."""


@dataclass(frozen=True, slots=True)
class Life:
    """A process on its way: its door, what it waits for, and what tells that a part of it ended by a bug."""

    door: Door
    starting: Starting
    failed: "asyncio.Future[None]"

    async def ready(self) -> None:
        """Returns when the process takes requests."""
        while True:
            if not self.door.reasons():
                return
            await asyncio.sleep(_LOOK_SECONDS)


@asynccontextmanager
async def living(metrics: Metrics, opened: Opened) -> AsyncIterator[Life]:
    """Opens a process behind its door, and closes it when the context ends."""
    count_tasks(metrics)
    starting, over = Starting(), asyncio.Event()
    life = Life(Door(starting, metrics), starting, asyncio.get_running_loop().create_future())

    async def live() -> None:
        async with opened(starting, life.failed) as process:
            life.door.open(process)
            await over.wait()

    task = asyncio.create_task(live())
    task.add_done_callback(lambda task: pass_on(task, life.failed))
    try:
        yield life
    finally:
        over.set()
        if life.door.reasons == starting.reasons:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def serve_process(settings: Settings, metrics: Metrics, opened: Opened) -> None:
    """Until SIGTERM. Prints the ready line when the process first takes requests. Raises what ended a part of it."""
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with living(metrics, opened) as life:

        async def announce() -> None:
            url = await listening
            await life.ready()
            print(f"ready {url}", flush=True)

        announcing = asyncio.create_task(announce())
        announcing.add_done_callback(lambda task: pass_on(task, life.failed))
        try:
            await serve_app(
                life.door,
                settings.address,
                listening.set_result,
                life.failed,
                life.starting.end,
                slow=counted_slow_callers(settings, metrics),
                observe=metrics.observe,
            )
        finally:
            announcing.cancel()


def pass_on(task: "asyncio.Task[None]", failed: "asyncio.Future[None]") -> None:
    """What ended `task` ends the process."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not failed.done():
        failed.set_exception(error)
