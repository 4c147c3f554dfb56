"""Offers load to a router: many chat requests over keep-alive connections, one in flight on each.

Made to cost little beside what it measures: its own HTTP/1.1 client on `asyncio.Protocol` and httptools. It never sends a
request twice on its own account; only a refusal that says so (429 `budget_busy`, or 503 before anything was done) is sent
again, and only if asked to.
"""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import msgspec

from domain.errors import invalid

PATH = "/v1/chat/completions"

UNDECIDED = frozenset({"not_ready", "gate_unavailable", "overloaded"})
"""Refusals with 503 that say that nothing was done: the clients of providers send such a request again after Retry-After."""


@dataclass(frozen=True, slots=True)
class Load:
    """One request to send: `at` seconds after the start (0: at once), JSON `body`, service key."""

    at: float
    body: bytes
    key: str
    stream: bool


@dataclass(slots=True)
class Outcome:
    """What became of one request. `status` 0: no whole answer, and `code` says why; `budget` is the one that refused. Times
    in milliseconds; tokens as the answer reported them; `request_id` is the router's."""

    status: int = 0
    code: str = ""
    budget: str = ""
    request_id: str | None = None
    latency_ms: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    repeats: int = 0

    @property
    def name(self) -> str:
        """Status, code and budget: ``200``, ``402 insufficient_quota cap``, ``0 connection_lost``."""
        return f"{self.status} {self.code} {self.budget}".rstrip()


@dataclass(slots=True)
class LoadResult:
    """The sum over all requests. `latencies_ms` are those of status 200, in the order they ended."""

    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    repeats: int = 0

    @property
    def requests(self) -> int:
        return sum(self.outcomes.values())

    @classmethod
    def of(cls, parts: "Sequence[LoadResult]") -> "LoadResult":
        """What was sent at the same time, together."""
        return cls(
            seconds=max(part.seconds for part in parts),
            outcomes=sum((part.outcomes for part in parts), Counter()),
            latencies_ms=[latency for part in parts for latency in part.latencies_ms],
            prompt_tokens=sum(part.prompt_tokens for part in parts),
            completion_tokens=sum(part.completion_tokens for part in parts),
            repeats=sum(part.repeats for part in parts),
        )

    def add(self, outcome: Outcome) -> None:
        self.outcomes[outcome.name] += 1
        self.repeats += outcome.repeats
        if outcome.status == 200:
            self.latencies_ms.append(outcome.latency_ms)
            self.prompt_tokens += outcome.prompt_tokens
            self.completion_tokens += outcome.completion_tokens

    def latency_ms(self, quantile: float) -> float | None:
        """The latency that this share of the served requests did not pass; None if none was served."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] if ordered else None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Budget(msgspec.Struct):
    id: str = ""


class _Error(msgspec.Struct):
    code: str | None = None
    budget: _Budget | None = None


class _Body(msgspec.Struct):
    usage: _Usage | None = None
    error: _Error | None = None


_body = msgspec.json.Decoder(_Body).decode


class LoadClient:
    """Sends to one router. What is refused as `UNDECIDED` is sent again up to `retries` times, and what is refused as
    budget_busy for ever if `retry_busy`. Raises `Invalid` for a URL that is none."""

    def __init__(self, url: str, *, timeout: float = 120.0, retry_busy: bool = False, retries: int = 0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise invalid("url", f"must be like http://127.0.0.1:8080; got {url!r:.80}")
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        path = parts.path.rstrip("/").removesuffix("/v1") + PATH
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
            "authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n"
        )
        self._timeout, self._retry_busy, self._retries = timeout, retry_busy, retries

    async def run(
        self, loads: Iterable[Load], concurrency: int, seen: Callable[[Load, Outcome], None] | None = None
    ) -> LoadResult:
        """Sends all of `loads`, each when it is due, at most `concurrency` at a time; `seen` is told of each outcome."""
        result, waiting, start = LoadResult(), iter(loads), time.perf_counter()

        async def sender() -> None:
            connection = _Connection()
            try:
                for load in waiting:
                    if (early := start + load.at - time.perf_counter()) > 0:
                        await asyncio.sleep(early)
                    outcome = await self._send(connection, load)
                    result.add(outcome)
                    if seen is not None:
                        seen(load, outcome)
            finally:
                connection.close()

        await asyncio.gather(*(sender() for _ in range(concurrency)))
        result.seconds = time.perf_counter() - start
        return result

    async def _send(self, connection: "_Connection", load: Load) -> Outcome:
        message = (self._head % (load.key, len(load.body))).encode("latin-1") + load.body
        repeats = undecided = 0
        while True:
            outcome = await self._once(connection, message, load.stream)
            outcome.repeats = repeats
            if outcome.status == 503 and outcome.code in UNDECIDED and undecided < self._retries:
                undecided += 1
            elif not (self._retry_busy and outcome.status == 429 and outcome.code == "budget_busy"):
                return outcome
            repeats += 1
            await asyncio.sleep(connection.retry_after)

    async def _once(self, connection: "_Connection", message: bytes, stream: bool) -> Outcome:
        loop = asyncio.get_running_loop()
        if not connection.usable:
            try:
                await asyncio.wait_for(
                    loop.create_connection(lambda: connection, self._host, self._port, ssl=self._tls), self._timeout
                )
            except (OSError, TimeoutError) as error:
                return Outcome(code="connection_refused" if isinstance(error, ConnectionError) else "connection_failed")
        start = time.perf_counter()
        timer = loop.call_later(self._timeout, connection.give_up, "timeout")
        whole = await connection.exchange(message)
        timer.cancel()
        outcome = Outcome(request_id=connection.request_id, latency_ms=(time.perf_counter() - start) * 1000)
        if not whole:
            outcome.code = connection.why
            return outcome
        outcome.status = connection.status
        _fill(outcome, b"".join(connection.body), stream)
        return outcome


def _fill(outcome: Outcome, body: bytes, stream: bool) -> None:
    if stream and outcome.status == 200:
        events = body.removesuffix(b"\n\n").rsplit(b"\n\n", 2)
        if events[-1] != b"data: [DONE]":
            outcome.status, outcome.code = 0, "stream_ended_early"
            return
        body = events[-2].removeprefix(b"data: ")
    try:
        known = _body(body)
    except msgspec.MsgspecError:
        outcome.code = "unreadable_answer"
        return
    if known.usage is not None:
        outcome.prompt_tokens, outcome.completion_tokens = known.usage.prompt_tokens, known.usage.completion_tokens
    if known.error is not None:
        outcome.code = known.error.code or ""
        outcome.budget = known.error.budget.id if known.error.budget else ""


class _Connection(asyncio.Protocol):
    """One keep-alive connection and the answer that is arriving on it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[bool] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self.status, self.retry_after, self.why = 0, 1.0, ""
        self.request_id: str | None = None
        self.body: list[bytes] = []

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def exchange(self, message: bytes) -> bool:
        """Sends one request; True once its whole answer is in `status`, `body` and `request_id`."""
        assert self._transport is not None
        self.status, self.request_id, self.body, self.why = 0, None, [], "connection_lost"
        self._done = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(message)
        return await self._done

    def give_up(self, why: str) -> None:
        self.why = why
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            self.give_up("unexpected_bytes")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.give_up("bad_http")

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._end(False)

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"x-request-id":
                self.request_id = value.decode("latin-1")
            case b"retry-after":
                self.retry_after = float(value) if value.isdigit() else 1.0

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.close()
        self._parser = None
        self._end(True)

    def _end(self, whole: bool) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(whole)
