"""`HttpUpstream` does what `Upstream` promises, over TCP and over a unix socket."""

import asyncio
import socket
from itertools import count
from pathlib import Path

import pytest

from commands.ports import NotSent
from infra.adapters.upstream import HttpUpstream
from tests.contract.upstream_bounds import UpstreamBounds
from tests.contract.upstream_connections import UpstreamConnections
from tests.contract.upstream_contract import Accept
from tests.contract.upstream_silence import UpstreamSilence

_numbers = count(1)


class TestOverTcp(UpstreamConnections, UpstreamSilence, UpstreamBounds):
    base = "/v1"

    def nobody(self, folder: Path) -> str:
        with socket.socket() as bound:  # a port that was free, and that nobody else is given so soon
            bound.bind(("127.0.0.1", 0))
            return f"http://127.0.0.1:{bound.getsockname()[1]}/v1"

    async def listen(self, accept: Accept, folder: Path) -> tuple[asyncio.Server, str]:
        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


class TestOverUnixSocket(UpstreamConnections, UpstreamSilence, UpstreamBounds):
    def nobody(self, folder: Path) -> str:
        return f"unix://{folder}/nobody"

    async def listen(self, accept: Accept, folder: Path) -> tuple[asyncio.Server, str]:
        path = folder / f"peer-{next(_numbers)}"
        return await asyncio.start_unix_server(accept, path), f"unix://{path}"


class _NoAnswer:
    """`AddressGuard` of a resolver that does not answer."""

    async def addresses(self, host: str, port: int) -> tuple[str, ...]:
        await asyncio.Event().wait()
        return ()


async def test_a_call_that_was_cancelled_before_it_had_a_connection_was_not_sent() -> None:
    """It surely cost nothing."""
    upstream = HttpUpstream(_NoAnswer())  # type: ignore[arg-type]  # as much of one as is used
    waiting = asyncio.ensure_future(upstream.send("http://nowhere/v1", "/x", b"", b"", 60.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(NotSent):
        await waiting
    upstream.close()
