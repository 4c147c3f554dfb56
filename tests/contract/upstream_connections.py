"""What `commands.ports.Upstream` must do with connections: use them again, but only such as can be trusted."""

import asyncio

import pytest

from commands.ports import NotSent, UpstreamResponse
from domain.errors import UpstreamFailed
from infra.adapters import upstream as upstream_module
from infra.adapters import upstream_connection
from infra.adapters.upstream import HttpUpstream
from tests.contract.upstream_contract import PLAIN, Call, UpstreamContract, in_turn, saying, silence
from tests.waiting import PATIENCE, until


class UpstreamConnections(UpstreamContract):
    """Inherit it as `Test…`."""

    async def test_one_call_after_the_other_is_one_connection(self, upstream: HttpUpstream) -> None:
        """Calls at once have one each, and are followed on those."""
        async with self.peer(saying(PLAIN)) as peer:
            for _ in range(3):
                await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert peer.connections == [1, 1, 1]
            for _ in range(2):
                await asyncio.gather(*(upstream.send(peer.url, "/x", b"", b"", PATIENCE) for _ in range(2)))
            assert sorted(peer.connections[3:]) == [1, 1, 2, 2]

    @pytest.mark.parametrize(
        "last",
        [
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
            b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        ],
    )
    async def test_a_backend_that_will_not_go_on_is_taken_at_its_word(
        self, upstream: HttpUpstream, last: bytes
    ) -> None:
        """The next call has a connection of its own, though this one was left open."""
        async with self.peer(saying(last)) as peer:
            for _ in range(2):
                assert (await upstream.send(peer.url, "/x", b"", b"", PATIENCE)).body == b"ok"
            assert peer.connections == [1, 2]

    async def test_a_connection_that_was_closed_while_idle_is_not_used(self, upstream: HttpUpstream) -> None:
        """A backend that restarted costs no request."""

        async def answer_and_leave(call: Call) -> None:
            await call.say(PLAIN)
            call.writer.write_eof()
            await call.reader.read()
            call.hang_up()

        async with self.peer(in_turn(answer_and_leave, saying(PLAIN))) as peer:
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            await until(lambda: peer.ended == {1}, "both sides have closed it")
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert peer.connections == [1, 2]

    async def test_a_used_connection_that_breaks_under_a_call_fails_it(self, upstream: HttpUpstream) -> None:
        """The backend may have seen it: it is not repeated on another connection."""
        async with self.peer(in_turn(saying(PLAIN), saying(hang_up=True), saying(PLAIN))) as peer:
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert (await self.fails(upstream, peer.url)).sent
            assert peer.connections == [1, 1]
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert peer.connections == [1, 1, 2]

    async def test_bytes_nobody_asked_for_end_a_connection(self, upstream: HttpUpstream) -> None:
        """They would be taken for the answer to the next call."""

        async def answer_twice(call: Call) -> None:
            await call.say(PLAIN)
            await answered.wait()
            await call.say(PLAIN.replace(b"ok", b"no"))
            await call.reader.read()

        answered = asyncio.Event()
        async with self.peer(in_turn(answer_twice, saying(PLAIN))) as peer:
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            answered.set()
            await until(lambda: peer.ended == {1}, "the peer sees its connection end")
            assert (await upstream.send(peer.url, "/x", b"", b"", PATIENCE)).body == b"ok"
            assert peer.connections == [1, 2]

    async def test_an_answer_before_the_request_was_sent_whole(self, upstream: HttpUpstream) -> None:
        """It is the answer; the rest of the request does not get in the way of the next one."""
        early = b"HTTP/1.1 413 Large\r\ncontent-length: 2\r\n\r\nno"

        async def answer(call: Call) -> None:
            await call.say(early)
            await over.wait()
            call.hang_up()

        over = asyncio.Event()
        async with self.peer(in_turn(answer, saying(PLAIN)), whole=False) as peer:
            assert (await upstream.send(peer.url, "/x", b"", bytes(32 << 20), PATIENCE)).status == 413
            assert (await upstream.send(peer.url, "/x", b"", b"", PATIENCE)).body == b"ok"
            assert peer.connections == [1, 2]
            over.set()

    async def test_an_answer_nobody_waits_for_goes_to_nobody(self, upstream: HttpUpstream) -> None:
        """A call that was cancelled leaves its answer to no other call."""

        async def answer(call: Call) -> None:
            await cancelled.wait()
            await call.say(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%b" % call.body)

        cancelled = asyncio.Event()
        async with self.peer(answer) as peer:
            first = asyncio.ensure_future(upstream.send(peer.url, "/x", b"", b"1", PATIENCE))
            await until(lambda: len(peer.calls) == 1, "the call arrives")
            first.cancel()
            await asyncio.wait([first])
            second = asyncio.ensure_future(upstream.send(peer.url, "/x", b"", b"2", PATIENCE))
            await until(lambda: len(peer.calls) == 2, "the next call arrives")
            cancelled.set()
            assert (await second).body == b"2"
            assert (await upstream.send(peer.url, "/x", b"", b"3", PATIENCE)).body == b"3"

    async def test_a_call_that_was_cancelled_ends_its_connection(self, upstream: HttpUpstream) -> None:
        """The backend learns that nobody waits for it any more."""
        async with self.peer(silence) as peer:
            waiting = asyncio.ensure_future(upstream.send(peer.url, "/x", b"", b"", PATIENCE))
            await until(lambda: len(peer.calls) == 1, "the call arrives")
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await waiting
            assert not isinstance(cancelled.value, NotSent)
            await until(lambda: peer.ended == {1}, "the peer notices")

    async def test_a_call_that_was_cancelled_with_its_answer_leaves_the_next_alone(
        self, upstream: HttpUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The answer has come and its connection has another call by the time the first is told that it was cancelled."""
        finish, calls = upstream_connection.Connection._finish, list[asyncio.Future[UpstreamResponse]]()

        def finished(connection: upstream_connection.Connection, error: UpstreamFailed | None) -> None:
            if len(calls) == 1:
                calls.append(asyncio.ensure_future(upstream.send(peer.url, "/x", b"", b"2", PATIENCE)))
            finish(connection, error)
            calls[0].cancel()  # does nothing once it is told

        monkeypatch.setattr(upstream_connection.Connection, "_finish", finished)
        async with self.peer(saying(PLAIN)) as peer:
            calls.append(asyncio.ensure_future(upstream.send(peer.url, "/x", b"", b"1", PATIENCE)))
            with pytest.raises(asyncio.CancelledError):
                await calls[0]
            assert (await calls[1]).status == 200
            assert peer.connections == [1, 1]

    async def test_a_stream_that_ended_unread_leaves_a_connection_that_is_read(self, upstream: HttpUpstream) -> None:
        """It was so long that reading had paused; whoever comes next is not kept waiting."""
        size = upstream_connection._HIGH_WATER + 1
        long = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % size
        async with self.peer(in_turn(saying(long + bytes(size)), saying(PLAIN))) as peer:
            stream = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            await until(lambda: stream._ended, "all of it came")
            stream.close()
            assert (await upstream.send(peer.url, "/x", b"", b"", PATIENCE)).body == b"ok"
            assert peer.connections == [1, 1]

    async def test_a_connection_idle_for_long_is_closed(
        self, upstream: HttpUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By us, before the backend does it under a request."""
        async with self.peer(saying(PLAIN)) as peer:
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            monkeypatch.setattr(upstream_module, "IDLE_SECONDS", 0.0)
            await until(lambda: peer.ended == {1}, "the peer sees its connection end")
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert peer.connections == [1, 2]

    async def test_closing_ends_every_connection(self, upstream: HttpUpstream) -> None:
        """Idle or not; who waits is told."""
        async with self.peer(in_turn(saying(PLAIN), saying(PLAIN), silence)) as peer:
            await asyncio.gather(*(upstream.send(peer.url, "/x", b"", b"", PATIENCE) for _ in range(2)))
            waiting = asyncio.ensure_future(upstream.send(peer.url, "/x", b"", b"", PATIENCE))
            await until(lambda: len(peer.calls) == 3, "the call arrives")
            upstream.close()
            with pytest.raises(UpstreamFailed) as failed:
                await waiting
            assert failed.value.sent
            await until(lambda: peer.ended == {1, 2}, "the peer sees its connections end")
