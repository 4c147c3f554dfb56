"""`HttpUpstream` does what `Upstream` promises, over TCP and over a unix socket."""

import asyncio
import socket
from itertools import count
from pathlib import Path

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
