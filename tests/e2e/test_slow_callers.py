"""Callers that take their time: one that does not send its request, and one that does not take its answer. It holds little
memory, and not for ever; what it was served is on the books."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.backend import Backend
from tests.lab import Key, Lab, Row
from tests.waiting import PATIENCE, eventually

PIECE = 400_000
"""Bytes of an event: the answers here are of a hundred megabytes."""

WORDS = 250

ROOM = 32 << 20
"""Bytes that a process may grow by, whatever a caller does not take."""


@asynccontextmanager
async def slow_house(read_timeout: str) -> AsyncIterator[tuple[Lab, Backend, Key]]:
    """A product whose callers must read within `read_timeout` seconds, and a backend with very long words."""
    async with Lab({"TOLLHOUSE_READ_TIMEOUT": read_timeout}) as lab:
        fake = await lab.fake()
        fake.word = "x" * PIECE
        await lab.model("m", fake.url)
        yield lab, fake, (await lab.org("acme"))["main"]


async def test_a_stream_that_nobody_reads_stops_at_its_backend() -> None:
    """Back-pressure: the backend finds no room long before its end, and the process does not take in what is not taken."""
    async with slow_house("600") as (lab, fake, key):
        before = _resident(lab)
        one, two = (Caller(lab, key, stream=True, max_completion_tokens=WORDS) for _ in range(2))
        async with one, two:
            await _standing(fake)
            assert fake.events < WORDS
            assert _resident(lab) - before < ROOM


async def test_a_caller_that_takes_nothing_of_a_stream_is_cut() -> None:
    """After the read timeout, and what it was served until then is charged: estimated, for no report came."""
    async with (
        slow_house("1") as (lab, fake, key),
        Caller(lab, key, stream=True, max_completion_tokens=WORDS) as caller,
    ):
        row = await _booked(lab)
        assert (row.outcome, row.estimated) == ("completed", True)
        assert fake.served == {}
        assert await caller.take_all() < WORDS * PIECE


async def test_a_caller_that_takes_nothing_of_a_plain_answer_is_cut() -> None:
    """The answer was whole and is charged; the memory it waited in is given back."""
    async with slow_house("1") as (lab, _, key), Caller(lab, key, max_completion_tokens=100) as caller:
        assert (await _booked(lab)).outcome == "completed"
        assert await eventually(lambda: lab.metric("tollhouse_callers_cut"), bool) == 1
        assert await caller.take_all() < 100 * PIECE


async def test_a_caller_that_goes_on_taking_is_not_cut() -> None:
    """However slowly, as long as something goes on; it gets its answer to the last byte."""
    async with slow_house("1") as (lab, fake, key), Caller(lab, key, stream=True, max_completion_tokens=50) as caller:
        taken, size = b"", 0
        while not taken.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            piece = await caller.take()
            assert piece, "cut"
            taken, size = taken[-100:] + piece, size + len(piece)
            await asyncio.sleep(0.02)
        assert size > 50 * PIECE
        assert len(fake.served) == 1
        assert await lab.metric("tollhouse_callers_cut") == 0


async def test_a_caller_that_sends_byte_by_byte_is_ended() -> None:
    """A head, and a body on every face, has to be there in time, however many bytes still come; nothing of it is carried out."""
    async with slow_house("1") as (lab, fake, key):
        long = "content-length: 999999\r\n\r\n"
        begun = {
            "GET /v1/models HTTP/1.1\r\nhost: x\r\nx-a: ": 408,
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key.secret}\r\n{long}": 408,
            f"POST /admin/v1/orgs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {lab.admin_key}\r\n{long}": 408,
            f"POST /v1/x HTTP/1.1\r\nhost: x\r\n{long}": 404,
        }
        heard = await asyncio.gather(*(_drip(lab, start) for start in begun))
        assert heard == list(begun.values())
        assert fake.received == []
        assert await lab.metric("tollhouse_http_requests_total", status="408", code="request_timeout") >= 2


async def _drip(lab: Lab, begun: str) -> int:
    """Goes on byte by byte after `begun` until the server ends the connection: the status that it answered."""
    host, _, port = lab.listen.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(begun.encode())
    reading = asyncio.ensure_future(reader.read())
    async with asyncio.timeout(PATIENCE):
        while not reading.done():
            writer.write(b"a")
            await asyncio.sleep(0.05)
    writer.close()
    return int((await reading).split()[1])


async def _booked(lab: Lab) -> Row:
    rows = await eventually(lambda: lab.rows("acme"), lambda rows: [row.outcome for row in rows] == ["completed"])
    return rows[0]


class Caller:
    """One that has asked, and whose connection takes in next to nothing by itself."""

    def __init__(self, lab: Lab, key: Key, **fields: Any) -> None:
        self._lab, self._key = lab, key
        self._fields = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}

    async def __aenter__(self) -> "Caller":
        place = urlsplit(self._lab.url)
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (place.hostname, place.port))
        self._reader, self._writer = await asyncio.open_connection(sock=made, limit=65536)
        body = json.dumps(self._fields).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self._key.secret}\r\n"
        self._writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        await self._reader.readuntil(b"\r\n\r\n")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def take(self) -> bytes:
        """What comes next, empty at the end of the connection."""
        try:
            return await self._reader.read(1 << 20)
        except ConnectionError:
            return b""

    async def take_all(self) -> int:
        """How many bytes come until the connection ends."""
        size = 0
        while piece := await self.take():
            size += len(piece)
        return size


async def _standing(fake: Backend) -> None:
    """Returns when no event has found room for a while."""
    seen = -1
    while fake.events != seen:
        seen = fake.events
        await asyncio.sleep(1.0)


def _resident(lab: Lab) -> int:
    """Bytes of memory that the process which takes requests has."""
    pages = int(Path(f"/proc/{lab.product.pid}/statm").read_text().split()[1])
    return pages * 4096
