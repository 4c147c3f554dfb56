"""What `commands.ports.Upstream` must do, against a peer that says byte by byte what a backend may say.

A suite says where its peer listens. Whole answers are answers, everything else is `UpstreamFailed`, and its `sent` is
false only where the backend surely saw nothing.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from domain.errors import UpstreamFailed
from infra.adapters import upstream as upstream_module
from infra.adapters import upstream_connection
from infra.adapters.upstream import HttpUpstream
from tests.waiting import PATIENCE, until

Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Answer = Callable[["Call"], Awaitable[None]]

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
BLOCK = bytes(64 * 1024)


@dataclass
class Call:
    """A request as it reached the peer, and the connection it came on (numbered from 1)."""

    connection: int
    head: bytes
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        """Returns once `data` has left this process."""
        self.writer.write(data)
        await self.writer.drain()

    def hang_up(self) -> None:
        """Ends the connection."""
        self.writer.close()


@dataclass
class Peer:
    """A backend that does what `answer` says to each request whose head came; `whole`: once its body came, too."""

    answer: Answer
    whole: bool = True
    url: str = ""
    calls: list[Call] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    """The connections that came to an end."""
    _connections: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _sessions: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        self._writers.append(writer)
        self._connections += 1
        number = self._connections
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length) if self.whole else b""
                call = Call(number, head, body, reader, writer)
                self.calls.append(call)
                await self.answer(call)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # our caller went away, which is what some tests are about
        finally:
            self.ended.add(number)
            writer.close()

    async def close(self) -> None:
        """Ends what still goes on."""
        for task in self._sessions:
            task.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    @property
    def connections(self) -> list[int]:
        """Per call, the connection it came on."""
        return [call.connection for call in self.calls]


def saying(*pieces: bytes, hang_up: bool = False) -> Answer:
    """Each piece leaves by itself; then perhaps the connection ends."""

    async def answer(call: Call) -> None:
        for piece in pieces:
            await call.say(piece)
            await asyncio.sleep(0)
        if hang_up:
            call.hang_up()

    return answer


def in_turn(*answers: Answer) -> Answer:
    """The first answer to the first call, and so on."""
    left = list(answers)

    async def answer(call: Call) -> None:
        await left.pop(0)(call)

    return answer


async def silence(call: Call) -> None:
    """Never answers; returns when the caller goes away."""
    await call.reader.read()


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; the empty one is the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class UpstreamContract(ABC):
    """Inherit it as `Test…`."""

    @abstractmethod
    def nobody(self, folder: Path) -> str:
        """The URL of a place where nobody listens."""

    @abstractmethod
    async def listen(self, accept: Accept, folder: Path) -> tuple[asyncio.Server, str]:
        """A server, and the URL of a backend whose paths begin with `base`."""

    base = ""

    @pytest_asyncio.fixture
    async def upstream(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpUpstream]:
        monkeypatch.setattr(upstream_module, "IDLE_SECONDS", 3600.0)  # what ends a connection here is what a test does
        made = HttpUpstream()
        yield made
        made.close()

    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @asynccontextmanager
    async def peer(self, answer: Answer, *, whole: bool = True) -> AsyncIterator[Peer]:
        peer = Peer(answer, whole)
        server, peer.url = await self.listen(peer.accept, self.folder)
        try:
            async with asyncio.timeout(PATIENCE):
                yield peer
        finally:
            server.close()
            await peer.close()

    async def fails(self, upstream: HttpUpstream, url: str, timeout: float = PATIENCE) -> UpstreamFailed:
        """The error of a call that must not be answered."""
        with pytest.raises(UpstreamFailed) as failed:
            await upstream.send(url, "/x", b"", b"{}", timeout)
        return failed.value

    # -- whole answers

    async def test_a_request_arrives_as_it_was_given(self, upstream: HttpUpstream) -> None:
        """The path under the backend's base, its host, our header lines, the body; and the answer's parts come back."""
        said = b"HTTP/1.1 429 No\r\nX-Thing: A b\r\nContent-Length: 5\r\n\r\nslowly"[:-1]
        async with self.peer(saying(said)) as peer:
            answer = await upstream.send(peer.url, "/chat", b"x-request-id: req_1\r\n", b'{"a":1}', PATIENCE)
            (call,) = peer.calls
        assert call.head.startswith(f"POST {self.base}/chat HTTP/1.1\r\nhost: ".encode())
        assert b"\r\nx-request-id: req_1\r\n" in call.head
        assert call.body == b'{"a":1}'
        assert (answer.status, answer.body, answer.streamed) == (429, b"slowl", False)
        assert answer.headers == [(b"x-thing", b"A b"), (b"content-length", b"5")]

    async def test_a_chunked_answer_is_whole(self, upstream: HttpUpstream) -> None:
        """However it is cut into chunks, and the chunks into packets."""
        raw = b"HTTP/1.1 200 OK\r\n" + CHUNKED + chunk(b"one ") + chunk(b"two") + chunk(b"")
        for pieces in ([raw], [raw[at : at + 1] for at in range(len(raw))]):
            async with self.peer(saying(*pieces)) as peer:
                answer = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert (answer.body, answer.streamed) == (b"one two", False)

    async def test_an_answer_without_a_body(self, upstream: HttpUpstream) -> None:
        """204 ends with its head, and the connection goes on."""
        async with self.peer(saying(b"HTTP/1.1 204 Nothing\r\n\r\n")) as peer:
            for _ in range(2):
                answer = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
                assert (answer.status, answer.body) == (204, b"")
            assert peer.connections == [1, 1]

    async def test_the_end_of_the_connection_may_end_the_body(self, upstream: HttpUpstream) -> None:
        """HTTP/1.0: no length, no chunks."""
        async with self.peer(saying(b"HTTP/1.0 200 OK\r\n\r\n", b"to the ", b"end", hang_up=True)) as peer:
            answer = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert answer.body == b"to the end"
        async with self.peer(saying(STREAM + b"\r\n", b"data: 1\n\n", hang_up=True)) as peer:
            answer = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert [await answer.chunk(), await answer.chunk()] == [b"data: 1\n\n", b""]

    async def test_interim_answers_are_passed_over(self, upstream: HttpUpstream) -> None:
        """100 and 103 are no answer, and their headers belong to no answer."""
        interim = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nlink: </a>\r\n\r\n"]
        async with self.peer(saying(*interim, PLAIN)) as peer:
            answer = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
        assert (answer.status, answer.body, answer.headers) == (200, b"ok", [(b"content-length", b"2")])

    # -- streams

    async def test_a_stream_is_handed_over_as_it_comes(self, upstream: HttpUpstream) -> None:
        """The head before the first event, each event before the next is written, empty at the end and ever after."""
        read = asyncio.Semaphore(0)

        async def answer(call: Call) -> None:
            await call.say(STREAM + CHUNKED)
            for word in (b"one", b"two"):
                await read.acquire()
                await call.say(chunk(word))
            await read.acquire()
            await call.say(chunk(b""))

        async with self.peer(answer) as peer:
            response = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert (response.status, response.streamed) == (200, True)
            for expected in (b"one", b"two", b""):
                read.release()
                assert await response.chunk() == expected
            assert await response.chunk() == b""

    async def test_a_stream_is_one_however_its_type_is_written(self, upstream: HttpUpstream) -> None:
        """Types of media have no case."""
        said = (
            b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n"
            + CHUNKED
            + chunk(b"one")
            + chunk(b"")
        )
        async with self.peer(saying(said)) as peer:
            response = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert response.streamed
            assert await response.chunk() == b"one"

    async def test_a_slow_reader_slows_the_peer_down(self, upstream: HttpUpstream) -> None:
        """A stream nobody reads stops being received, however much there is of it; read on, it is all there."""
        stalled, blocks, written = asyncio.Event(), 1024, 0

        async def answer(call: Call) -> None:
            nonlocal written
            call.writer.write(STREAM + b"content-length: %d\r\n\r\n" % (blocks * len(BLOCK)))
            for _ in range(blocks):
                call.writer.write(BLOCK)
                drained = asyncio.ensure_future(call.writer.drain())
                if not (await asyncio.wait([drained], timeout=0.5))[0]:
                    stalled.set()
                await drained
                written += 1
            stalled.set()

        async with self.peer(answer) as peer:
            response = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            await stalled.wait()
            assert written < blocks
            total = first = len(await response.chunk())
            assert first < 32 * len(BLOCK)
            while data := await response.chunk():
                total += len(data)
            assert total == blocks * len(BLOCK)
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert peer.connections == [1, 1]

    async def test_closing_a_stream_ends_its_connection(self, upstream: HttpUpstream) -> None:
        """The backend learns that nobody reads; who waits for a chunk is told; the next call has a connection of its own."""

        async def endless(call: Call) -> None:
            await call.say(STREAM + CHUNKED + chunk(b"one"))
            await call.reader.read()

        async with self.peer(in_turn(endless, saying(PLAIN))) as peer:
            response = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert await response.chunk() == b"one"
            waiting = asyncio.ensure_future(response.chunk())
            await asyncio.sleep(0)
            response.close()
            with pytest.raises(UpstreamFailed) as failed:
                await waiting
            assert failed.value.sent
            await until(lambda: peer.ended == {1}, "the peer notices")
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert peer.connections == [1, 2]

    async def test_closing_a_stream_that_ended_keeps_its_connection(self, upstream: HttpUpstream) -> None:
        """There is nothing left to end."""
        async with self.peer(saying(STREAM + CHUNKED + chunk(b"one") + chunk(b""))) as peer:
            for _ in range(2):
                response = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
                while await response.chunk():
                    pass
                response.close()
            assert peer.connections == [1, 1]

    # -- no whole answer

    async def test_where_nobody_listens_nothing_was_sent(self, upstream: HttpUpstream) -> None:
        """The one failure after which the request may be repeated."""
        error = await self.fails(upstream, self.nobody(self.folder))
        assert (error.sent, error.code) == (False, "upstream_error")

    @pytest.mark.parametrize(
        "half",
        [
            b"",
            b"HTTP/1.1 20",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhalf",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ],
    )
    async def test_half_an_answer_is_none(self, upstream: HttpUpstream, half: bytes) -> None:
        """Wherever the connection ends: the backend may have served it. It is asked once, never again."""
        async with self.peer(saying(half, hang_up=True)) as peer:
            error = await self.fails(upstream, peer.url)
            assert (error.sent, error.code) == (True, "upstream_error")
            assert len(peer.calls) == 1

    async def test_half_a_stream_says_so_behind_what_came(self, upstream: HttpUpstream) -> None:
        """What was received is handed over; then, each time, that it is not all."""
        async with self.peer(saying(STREAM + CHUNKED + chunk(b"one"), hang_up=True)) as peer:
            response = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert await response.chunk() == b"one"
            for _ in range(2):
                with pytest.raises(UpstreamFailed) as failed:
                    await response.chunk()
                assert failed.value.sent

    @pytest.mark.parametrize(
        "garbage",
        [
            b"\x00\xff\x00\xff",
            b"HTTP/1.1 what OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: few\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + CHUNKED + b"zz\r\n",
            b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        ],
    )
    async def test_garbage_is_no_answer(self, upstream: HttpUpstream, garbage: bytes) -> None:
        """And its connection is not used again."""
        async with self.peer(in_turn(saying(garbage), saying(PLAIN))) as peer:
            assert (await self.fails(upstream, peer.url)).sent
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert peer.connections == [1, 2]

    async def test_an_answer_beyond_all_measure_is_given_up(
        self, upstream: HttpUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No backend fills our memory."""
        monkeypatch.setattr(upstream_connection, "MAX_BODY", 1000)
        async with self.peer(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n" + bytes(1001))) as peer:
            assert (await self.fails(upstream, peer.url)).sent

    async def test_an_answer_that_does_not_come_in_time(self, upstream: HttpUpstream) -> None:
        """``upstream_timeout``, perhaps served; and the backend learns that nobody waits."""
        async with self.peer(silence) as peer:
            error = await self.fails(upstream, peer.url, timeout=0.05)
            assert (error.sent, error.code) == (True, "upstream_timeout")
            await until(lambda: peer.ended == {1}, "the peer notices")

    async def test_a_stream_that_does_not_end_in_time(self, upstream: HttpUpstream) -> None:
        """The time bounds the whole exchange, not its head."""

        async def endless(call: Call) -> None:
            await call.say(STREAM + CHUNKED + chunk(b"one"))
            await silence(call)

        async with self.peer(endless) as peer:
            response = await upstream.send(peer.url, "/x", b"", b"", 1.0)
            assert await response.chunk() == b"one"
            with pytest.raises(UpstreamFailed) as failed:
                await response.chunk()
            assert (failed.value.sent, failed.value.code) == (True, "upstream_timeout")
