"""A TCP server of a test's own, in its event loop, that leaves nothing behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

Session = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(answer: Session, backlog: int = 100) -> AsyncIterator[str]:
    """``http://HOST:PORT``, a free one of this machine, whose connections are `answer`'s; those still open are cut in the end."""
    under_way = set[asyncio.Task[None]]()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            await answer(reader, writer)
        except asyncio.CancelledError:
            return  # the test is over; a cancelled session is no error of the stream server
        finally:
            under_way.discard(task)

    server = await asyncio.start_server(session, "127.0.0.1", 0, backlog=backlog)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await server.wait_closed()
