"""What strangers may send to a process before anybody knows who they are."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from api.site import App
from cli import http_protocol, http_server
from cli.http_protocol import HEAD_BYTES
from cli.http_server import serve_app
from cli.slow_callers import SlowCallers
from tests.waiting import PATIENCE

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def test_a_head_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers, and trailers behind a body, end with 431 soon after the limit. Whoever goes on sending is listened to no more, and
    cut off after a while."""
    monkeypatch.setattr(http_protocol, "LINGER_SECONDS", 0.1)
    begun = (
        b"GET / HTTP/1.1\r\nhost: x\r\nx-a: ",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-a: ",
    )
    async with _served(SlowCallers(0.5)) as port:
        for head in begun:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + b"a" * 8 * HEAD_BYTES)
            assert (await reader.read()).startswith(b"HTTP/1.1 431 ")
            await _cut_off(writer, b"a" * HEAD_BYTES)


async def test_a_connection_that_asks_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one and one that was answered, also if empty lines go on coming."""
    monkeypatch.setattr(http_protocol, "KEEP_ALIVE_SECONDS", 0.3)
    async with _served(SlowCallers(0.5)) as port:
        for begun, answered in ((b"", b""), (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n\r\n0")):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begun)
            if answered:
                await reader.readuntil(answered)
            await _cut_off(writer, b"\r\n")


OLD = b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"


async def test_a_stream_for_an_old_client_ends_with_its_connection() -> None:
    """HTTP/1.0 knows no chunks: the bytes come as they are. An answer of known length is the same as ever."""
    async with _served(app=_streams) as port:
        head, _, body = (await _all(port, OLD)).partition(b"\r\n\r\n")
        assert body == b"one two"
        assert (b"transfer-encoding" in head, b"connection: close" in head) == (False, True)
    async with _served() as port:
        assert (await _all(port, OLD)).endswith(b"\r\ncontent-length: 1\r\nconnection: close\r\n\r\n0")


async def test_a_stream_for_an_old_client_that_is_torn_does_not_look_whole() -> None:
    """Where the end of the connection is that of the answer, the connection must break."""

    async def torn(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        raise ValueError("it broke")

    async with _served(app=torn) as port:
        with pytest.raises(ConnectionError):
            await _all(port, OLD)


async def test_a_long_body_in_small_chunks_is_no_head() -> None:
    """The framing of a chunked body is not held against it, nor are earlier requests of a connection."""
    body = b"".join(b"%x\r\n%b\r\n" % (100, b"a" * 100) for _ in range(20_000)) + b"0\r\n\r\n"
    async with _served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * 40_000)
            writer.write(b"\r\ntransfer-encoding: chunked\r\n\r\n" + body)
            await writer.drain()
            assert await reader.readuntil(b"2000000") == b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n2000000"
        writer.close()


async def _all(port: int, data: bytes) -> bytes:
    """What is answered to `data`, to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    return answer


async def test_what_an_application_never_answers_is_answered_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error object with an id: 503 if it outlasts the drain, 500 if it fails. Its last words are waited for."""
    monkeypatch.setattr(http_server, "DRAIN_SECONDS", 0.1)
    begun, said = asyncio.Event(), list[str]()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["path"] == "/fails":
            raise ValueError("a bug")
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            said.append("over")

    async with _served(app=app) as port:
        assert _told(await _all(port, b"GET /fails HTTP/1.1\r\nhost: x\r\n\r\n")) == (500, "internal_error")
        last = asyncio.create_task(_all(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"))
        await begun.wait()
    assert _told(await last) == (503, "not_ready")
    assert said == ["over"]


async def test_nothing_begins_once_the_drain_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cancelled may still answer; what waits behind it on its connection would be waited for no more."""
    monkeypatch.setattr(http_server, "DRAIN_SECONDS", 0.1)
    begun = asyncio.Semaphore(0)

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        begun.release()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await _counts(scope, receive, send)

    async with _served(app=app) as port:
        asked = asyncio.create_task(_all(port, 2 * b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"))
        await begun.acquire()
    assert await asked == b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\n0"
    assert begun.locked(), "the second has not"


def _told(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nx-request-id: req_" in head
    status = int(head.split()[1])
    assert (b"\r\nretry-after: " in head) == (status == 503)
    return status, json.loads(body)["error"]["code"]


async def _cut_off(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Says `data` again and again, and returns once nobody takes it any more."""
    async with asyncio.timeout(PATIENCE):
        while not writer.is_closing():
            writer.write(data)
            with suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(0.005)


async def _counts(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answers each request with the length of its body."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    answer = b"%d" % size
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _streams(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answers each request with two pieces."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for piece, more in ((b"one ", True), (b"two", True), (b"", False)):
        await send({"type": "http.response.body", "body": piece, "more_body": more})


@asynccontextmanager
async def _served(slow: SlowCallers | None = None, app: App = _counts) -> AsyncIterator[int]:
    """A server whose application is `app`."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve_app(app, ("127.0.0.1", 0), ready.set_result, ended, signals=(), slow=slow))
    try:
        yield int((await ready).rpartition(":")[2])
    finally:
        ended.set_result(None)
        await serving
