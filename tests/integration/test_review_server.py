"""What strangers may send to a process before anybody knows who they are."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from cli.http_server import HEAD_BYTES, serve_app

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def test_a_head_without_end_is_cut() -> None:
    """Headers, and trailers behind a body, end with 431 soon after the limit; memory and time do not grow with them."""
    begun = (
        b"GET / HTTP/1.1\r\nhost: x\r\nx-a: ",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-a: ",
    )
    async with _served() as port:
        for head in begun:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            sent = 0
            try:
                while sent < 100 * HEAD_BYTES:
                    writer.write(b"a" * HEAD_BYTES)
                    await writer.drain()
                    sent += HEAD_BYTES
            except ConnectionError:
                pass  # cut off while sending is as good as an answer
            assert sent < 100 * HEAD_BYTES
            writer.close()


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


@asynccontextmanager
async def _served() -> AsyncIterator[int]:
    """A server that answers each request with the length of its body."""

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        answer = b"%d" % size
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve_app(app, ("127.0.0.1", 0), ready.set_result, ended, signals=()))
    try:
        yield int((await ready).rpartition(":")[2])
    finally:
        ended.set_result(None)
        await serving
