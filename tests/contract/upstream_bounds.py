"""What `commands.ports.Upstream` must do about backends that say too much: each part of an answer has its bound, and an answer is
taken as it comes or not at all."""

import gzip
from pathlib import Path

import pytest

from domain.errors import UpstreamFailed
from infra.adapters.upstream import HttpUpstream
from tests.contract.upstream_contract import CHUNKED, PLAIN, STREAM, UpstreamContract, chunk, in_turn, saying
from tests.waiting import PATIENCE


async def _read(upstream: HttpUpstream, url: str) -> None:
    """To the end of the answer."""
    response = await upstream.send(url, "/x", b"", b"", PATIENCE)
    while response.streamed and await response.chunk():
        continue


GZIP = b"content-encoding: gzip\r\n"
BOMB = gzip.compress(bytes(1_000_000))


class UpstreamBounds(UpstreamContract):
    """Inherit it as `Test…`."""

    @pytest.mark.parametrize(
        "head",
        [
            b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 20_000 + b"\r\n",
            b"HTTP/1.1 200 OK\r\nx-a: " + b"b" * 100_000 + b"\r\n\r\n",
            b"HTTP/1.1 103 Early\r\nx-a: b\r\n\r\n" * 20_000,
            STREAM + CHUNKED + chunk(b"one") + b"0\r\n" + b"x-a: b\r\n" * 20_000 + b"\r\n",
        ],
        ids=["many fields", "a long one", "interim answers", "behind a body"],
    )
    async def test_a_head_without_measure_is_given_up(self, upstream: HttpUpstream, head: bytes) -> None:
        """No backend fills our memory."""
        async with self.peer(saying(head)) as peer:
            with pytest.raises(UpstreamFailed, match="larger than") as failed:
                await _read(upstream, peer.url)
            assert failed.value.sent

    @pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
    async def test_a_compressed_answer_is_none(self, upstream: HttpUpstream, kind: bytes) -> None:
        """Nobody asked for it, and what it would become has no bound; it was served all the same."""
        said = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n\r\n" % (kind, GZIP, len(BOMB)) + BOMB
        async with self.peer(in_turn(saying(said), saying(PLAIN))) as peer:
            error = await self.fails(upstream, peer.url)
            assert (error.sent, error.code) == (True, "upstream_error")
            assert "compressed" in error.message
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert peer.connections == [1, 2]

    @pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip\r\ntransfer-encoding: chunked"], ids=["one", "two"])
    async def test_an_answer_compressed_on_its_way_is_none(self, upstream: HttpUpstream, coding: bytes) -> None:
        """A transfer coding beside chunks is a compression by another name."""
        said = b"HTTP/1.1 200 OK\r\ntransfer-encoding: %b\r\n\r\n" % coding + chunk(BOMB) + chunk(b"")
        async with self.peer(in_turn(saying(said), saying(PLAIN))) as peer:
            error = await self.fails(upstream, peer.url)
            assert error.sent
            assert "compressed" in error.message
            await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert peer.connections == [1, 2]

    async def test_a_compressed_refusal_is_one_without_its_words(self, upstream: HttpUpstream) -> None:
        """Its status says that it cost nothing; the connection goes on."""
        said = b"HTTP/1.1 429 No\r\nretry-after: 7\r\n%bcontent-length: %d\r\n\r\n" % (GZIP, len(BOMB)) + BOMB
        async with self.peer(in_turn(saying(said), saying(PLAIN))) as peer:
            answer = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
            assert (answer.status, answer.body) == (429, b"")
            assert (b"retry-after", b"7") in answer.headers
            assert (await upstream.send(peer.url, "/x", b"", b"", PATIENCE)).body == b"ok"
            assert peer.connections == [1, 1]

    async def test_what_comes_behind_a_body_is_no_header(self, upstream: HttpUpstream) -> None:
        """Whoever looked at the head has seen them all."""
        said = b"HTTP/1.1 200 OK\r\n" + CHUNKED + chunk(b"ok") + b"0\r\nretry-after: 7\r\n\r\n"
        async with self.peer(saying(said)) as peer:
            answer = await upstream.send(peer.url, "/x", b"", b"", PATIENCE)
        assert (answer.body, answer.headers) == (b"ok", [(b"transfer-encoding", b"chunked")])

    async def test_who_could_not_be_reached_is_not_said(self, upstream: HttpUpstream, tmp_path: Path) -> None:
        """Callers are told that, and need not know where backends are."""
        error = await self.fails(upstream, self.nobody(tmp_path))
        assert not error.sent
        assert error.message in ("cannot connect: Connection refused", "cannot connect: No such file or directory")
