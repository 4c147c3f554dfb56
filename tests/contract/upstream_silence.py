"""What `commands.ports.Upstream` must do about backends that fall silent: each silence has its bound, and ends the exchange."""

import pytest

from domain.errors import UpstreamFailed
from infra.adapters.upstream import HttpUpstream
from tests.contract.upstream_contract import CHUNKED, STREAM, Answer, Call, UpstreamContract, chunk, silence
from tests.waiting import PATIENCE, until

SOON = 0.05


def then_silence(*pieces: bytes) -> Answer:
    async def answer(call: Call) -> None:
        for piece in pieces:
            await call.say(piece)
        await silence(call)

    return answer


class UpstreamSilence(UpstreamContract):
    """Inherit it as `Test…`."""

    @pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"], ids=["nothing", "a head"])
    async def test_no_first_byte_of_a_body_in_time(self, upstream: HttpUpstream, head: bytes) -> None:
        """A head is none. ``upstream_timeout``, perhaps served; and the backend learns that nobody waits."""
        async with self.peer(then_silence(head)) as peer:
            with pytest.raises(UpstreamFailed) as failed:
                await upstream.send(peer.url, "/x", b"", b"", PATIENCE, SOON, PATIENCE)
            assert (failed.value.sent, failed.value.code) == (True, "upstream_timeout")
            await until(lambda: peer.ended == {1}, "the peer notices")

    async def test_no_first_byte_of_a_stream_in_time(self, upstream: HttpUpstream) -> None:
        """Its head is given at once, and then it breaks."""
        async with self.peer(then_silence(STREAM + CHUNKED)) as peer:
            response = await upstream.send(peer.url, "/x", b"", b"", PATIENCE, SOON, PATIENCE)
            assert response.streamed
            with pytest.raises(UpstreamFailed) as failed:
                await response.chunk()
            assert failed.value.code == "upstream_timeout"

    async def test_a_stream_that_falls_silent(self, upstream: HttpUpstream) -> None:
        """What came is given, then it breaks; the first byte had another bound."""
        async with self.peer(then_silence(STREAM + CHUNKED + chunk(b"one"))) as peer:
            response = await upstream.send(peer.url, "/x", b"", b"", PATIENCE, PATIENCE, SOON)
            assert await response.chunk() == b"one"
            with pytest.raises(UpstreamFailed) as failed:
                await response.chunk()
            assert failed.value.code == "upstream_timeout"
            await until(lambda: peer.ended == {1}, "the peer notices")

    async def test_a_plain_answer_that_falls_silent(self, upstream: HttpUpstream) -> None:
        """Half of it is none."""
        async with self.peer(then_silence(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")) as peer:
            with pytest.raises(UpstreamFailed) as failed:
                await upstream.send(peer.url, "/x", b"", b"", PATIENCE, None, SOON)
            assert failed.value.code == "upstream_timeout"
