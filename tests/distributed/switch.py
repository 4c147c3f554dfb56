"""A TCP address that leads to a server of the test's choice: what a virtual address, or a cut cable, is to a process."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

HOST = b"127.0.0.1"

Piece = Callable[[asyncio.StreamReader], Coroutine[None, None, bytes]]
"""What comes next of a stream, empty at its end."""


class Switch:
    """Listens on `port` of this machine and passes everything on to `target`, a port, or nowhere (None).

    While `passing` is cleared, bytes vanish and connections stay: a cut cable. `kafka`: the server is a broker, whose answers
    tell clients where it is; they are told to come here.
    """

    def __init__(self, target: int | None, *, kafka: bool = False) -> None:
        self.target, self._kafka = target, kafka
        self.port = 0
        self.passing = asyncio.Event()
        self.passing.set()
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
                piece = _frame if self._kafka else _some
                ways = [self._pass(_some, reader, back), self._pass(piece, answers, writer)]
                tasks = [asyncio.create_task(way) for way in ways]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in tasks:
                        way.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the other side hears of it by the end of its connection
        finally:
            self._sessions.discard(task)
            for end in (writer, back):
                if end is not None:
                    end.transport.abort()

    async def _pass(self, piece: Piece, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while data := await piece(reader):
                await self.passing.wait()
                if self._kafka and self.target is not None:
                    data = data.replace(_place(self.target), _place(self.port))
                writer.write(data)
                await writer.drain()


def _place(port: int) -> bytes:
    """Where a broker is, as Kafka writes it."""
    return HOST + struct.pack(">i", port)


async def _some(reader: asyncio.StreamReader) -> bytes:
    return await reader.read(1 << 16)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """One answer of a broker, whole."""
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "big"))


@asynccontextmanager
async def switch(target: int | None, *, kafka: bool = False) -> AsyncIterator[Switch]:
    """One that is there while the context lasts."""
    made = Switch(target, kafka=kafka)
    server = await asyncio.start_server(made.session, "127.0.0.1", 0, backlog=1024, limit=1 << 24)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.turn(None)
        await server.wait_closed()
