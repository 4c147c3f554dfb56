"""A TCP address that leads to a server of the test's choice: what a virtual address or a cut cable is to a process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Switch:
    """Listens on `port` of this machine and passes everything on to `target`, a port, or nowhere (None)."""

    def __init__(self, target: int | None) -> None:
        self.target = target
        self.port = 0
        self._sessions: set[asyncio.Task[None]] = set()

    def turn(self, target: int | None) -> None:
        """Leads elsewhere from now on; connections that there are end."""
        self.target = target
        for session in list(self._sessions):
            session.cancel()

    async def session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        back: asyncio.StreamWriter | None = None
        try:
            if self.target is not None:
                answers, back = await asyncio.open_connection("127.0.0.1", self.target)
                ways = [asyncio.create_task(_pass(reader, back)), asyncio.create_task(_pass(answers, writer))]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the other side hears of it by the end of its connection
        finally:
            self._sessions.discard(task)
            for end in (writer, back):
                if end is not None:
                    end.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def switch(target: int | None) -> AsyncIterator[Switch]:
    """One that is there while the context lasts."""
    made = Switch(target)
    server = await asyncio.start_server(made.session, "127.0.0.1", 0, backlog=1024)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.turn(None)
        await server.wait_closed()
