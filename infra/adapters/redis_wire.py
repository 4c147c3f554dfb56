"""One connection to one Redis server, shared by everything in flight: the calls of a loop tick leave in one write.

Replies come in the order of the calls. A call is never sent twice by the wire, except where the server said that it did
nothing (an unknown script). The connection is given up when it breaks, when a reply is overdue, or when the server says
that it is not (any more) the one to ask; all that was in flight fails then, and the next call connects anew. Each new
connection reads the server's `run_id`, which every script call carries.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha1
from typing import Any

from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from domain.errors import GateUnavailable

EVICTION = "noeviction"
"""The only `maxmemory-policy` under which what is absent was never there."""

Connection = Any
"""An `AbstractConnection` of redis-py, which leaves parts of it untyped."""

_ELSEWHERE = (MovedError, AskError, ClusterDownError, ReadOnlyError)
_INFO = b"*1\r\n$4\r\nINFO\r\n"

_log = logging.getLogger("tollhouse.gate")


class Script:
    """A Lua script that takes `keys`, the run_id of the connection and one argument."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self._sha = sha1(self.source, usedforsecurity=False).hexdigest().encode()

    @property
    def load(self) -> bytes:
        """The command that makes a server know it."""
        return b"*3\r\n" + _bulk(b"SCRIPT") + _bulk(b"LOAD") + _bulk(self.source)

    def bind(self, keys: tuple[bytes, ...]) -> "Bound":
        """The script on these keys."""
        tail = _bulk(b"%d" % len(keys)) + b"".join(map(_bulk, keys))
        head = b"*%d\r\n" % (5 + len(keys))
        known = head + _bulk(b"EVALSHA") + _bulk(self._sha) + tail
        return Bound(known, head + _bulk(b"EVAL") + _bulk(self.source) + tail)


class Bound:
    """A script with its keys, as it begins on the wire: by its digest, and by its source."""

    __slots__ = ("known", "unknown")

    def __init__(self, known: bytes, unknown: bytes) -> None:
        self.known, self.unknown = known, unknown


class _Call:
    __slots__ = ("argument", "bound", "future", "sent")

    def __init__(self, bound: Bound | bytes, argument: bytes, future: "asyncio.Future[Any]") -> None:
        self.bound, self.argument, self.future = bound, argument, future
        self.sent = math.inf


class Wire:
    """See the module. `make` gives an unconnected connection, `timeout` (seconds) bounds connecting and each reply,
    `lost` is called when the server is not (or no longer) the one to ask, `scripts` are told to each new connection."""

    def __init__(
        self,
        make: Callable[[], Connection],
        timeout: float,
        lost: Callable[[], None],
        scripts: Sequence[Script],
    ) -> None:
        self._make, self._timeout, self._lost, self._scripts = make, timeout, lost, scripts
        self._queue: list[_Call] = []
        self._sent: deque[_Call] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._overdue: asyncio.Future[None] | None = None
        self._watch: asyncio.TimerHandle | None = None

    def call(self, bound: Bound, argument: bytes) -> "asyncio.Future[Any]":
        """Queues a script call. The awaited answer is its reply; raises `GateUnavailable`."""
        return self._enqueue(_Call(bound, argument, asyncio.get_running_loop().create_future()))

    async def command(self, *words: str) -> Any:
        """The reply of a plain command. Raises `GateUnavailable`."""
        frame = b"*%d\r\n" % len(words) + b"".join(_bulk(word.encode()) for word in words)
        return await self._enqueue(_Call(frame, b"", asyncio.get_running_loop().create_future()))

    async def info(self) -> dict[str, str]:
        """The server's INFO, asked now. Raises `GateUnavailable`, also for a server that evicts keys."""
        return _checked(await self._enqueue(_Call(_INFO, b"", asyncio.get_running_loop().create_future())))

    async def close(self) -> None:
        """Gives the connection up; what is in flight fails."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # -- inside

    def _enqueue(self, call: _Call) -> "asyncio.Future[Any]":
        self._queue.append(call)
        if self._task is None:
            self._task = asyncio.create_task(self._live())
        elif len(self._queue) == 1:
            self._wake.set()
        return call.future

    async def _live(self) -> None:
        """From connecting to the end of the connection."""
        connection = self._make()
        failure: BaseException = GateUnavailable("the connection to Redis was closed")
        try:
            async with asyncio.timeout(self._timeout):
                node = await _greet(connection, self._scripts)
            await self._exchange(connection, node)
        except (RedisError, OSError, TimeoutError) as error:
            failure = GateUnavailable(f"Redis: {error or type(error).__name__}")
            _log.warning("the gate's connection to Redis ended: %s", error or type(error).__name__)
        except GateUnavailable as error:
            failure = error
            _log.warning("the gate's connection to Redis ended: %s", error)
        finally:
            calls = [*self._sent, *self._queue]
            self._sent.clear()
            self._queue.clear()
            self._wake.clear()
            self._task = None
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None
            for call in calls:
                if not call.future.done():
                    call.future.set_exception(failure)
            self._lost()
            await connection.disconnect(nowait=True)

    async def _exchange(self, connection: Connection, node: bytes) -> None:
        self._overdue = asyncio.get_running_loop().create_future()
        ends = [
            asyncio.create_task(self._write(connection, node)),
            asyncio.create_task(self._read(connection)),
            self._overdue,
        ]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    async def _write(self, connection: Connection, node: bytes) -> None:
        middle = _bulk(node)
        while True:
            if not self._queue:
                await self._wake.wait()
            self._wake.clear()
            batch, self._queue = self._queue, []
            now = time.monotonic()
            pieces = []
            for call in batch:
                call.sent = now
                bound = call.bound
                if isinstance(bound, bytes):
                    pieces.append(bound)
                else:
                    pieces += (bound.known, middle, b"$%d\r\n" % len(call.argument), call.argument, b"\r\n")
            self._sent.extend(batch)
            if self._watch is None:
                self._watch = asyncio.get_running_loop().call_later(self._timeout, self._check)
            await connection.send_packed_command(b"".join(pieces), check_health=False)

    async def _read(self, connection: Connection) -> None:
        while True:
            try:
                reply = await connection.read_response(True, math.inf, disconnect_on_error=False)
            except NoScriptError:
                call = self._sent.popleft()
                assert isinstance(call.bound, Bound)
                call.bound = Bound(call.bound.unknown, call.bound.unknown)
                self._enqueue(call)
            except ResponseError as error:
                call = self._sent.popleft()
                if not call.future.done():
                    call.future.set_exception(GateUnavailable(f"Redis: {error}"))
                if isinstance(error, _ELSEWHERE) or str(error).startswith(("MOVED ", "ASK ")):
                    raise
                _log.error("the gate's Redis refused a call: %s", error)
            else:
                call = self._sent.popleft()
                if not call.future.done():
                    call.future.set_result(reply)

    def _check(self) -> None:
        """Ends the exchange if the oldest reply is overdue."""
        self._watch = None
        if not self._sent:
            return
        left = self._sent[0].sent + self._timeout - time.monotonic()
        if left > 0:
            self._watch = asyncio.get_running_loop().call_later(left, self._check)
        elif self._overdue is not None and not self._overdue.done():
            self._overdue.set_exception(TimeoutError(f"no reply within {self._timeout} s"))


async def _greet(connection: Connection, scripts: Sequence[Script]) -> bytes:
    """Connects; the server's run_id."""
    await connection.connect()
    await connection.send_packed_command(b"".join(script.load for script in scripts) + _INFO, check_health=False)
    for _ in scripts:
        await connection.read_response(True)
    return _checked(await connection.read_response(True))["run_id"].encode()


def _checked(answer: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in answer.decode().splitlines() if ":" in line)
    info = {name: value for name, _, value in lines}
    if info["maxmemory_policy"] != EVICTION:
        raise GateUnavailable(
            f"Redis would evict what the gate counts: set maxmemory-policy to {EVICTION} (it is {info['maxmemory_policy']})"
        )
    return info


def _bulk(data: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(data), data)
