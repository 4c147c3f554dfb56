"""Several gateways on one machine that share a port: ``tollhouse gateway --workers N``.

The process that was started keeps the port and takes no request itself. It runs N gateways, each a full one with a view of the
keys, connections and an interpreter of its own; one that ends is started again, and all end with it, however it ends. The kernel
spreads connections over those that listen (``SO_REUSEPORT``); the gate is on Redis, one for all.
"""

import asyncio
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cli.http_server import listen
from cli.running import running
from cli.serving import pass_on
from cli.settings import Settings
from cli.shared_gateway import END_SECONDS, Neighbour, neighbours
from infra.adapters.child_process import ChildProcess
from infra.adapters.upstream import HttpUpstream

_LOOK_SECONDS = 0.1


async def share(settings: Settings) -> None:
    """Until SIGTERM. Prints the ready line when the first of the gateways takes requests. Raises `TollhouseError`
    (``address_in_use``) if the address cannot be had, and what ended a part of it by a bug."""
    loop, http = asyncio.get_running_loop(), HttpUpstream()
    over: asyncio.Future[None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end, over)
    try:
        with _kept(settings.address) as address, tempfile.TemporaryDirectory(prefix="tollhouse-") as name:
            folder = Path(name)
            gateways = [_gateway(place, settings.workers, address, folder) for place in range(settings.workers)]
            works = {f"worker {place}": gateway.run for place, gateway in enumerate(gateways)}
            async with running(over, works):
                telling = _announced(f"http://{address}", neighbours(http, folder, settings.workers))
                announcing = asyncio.create_task(telling)
                announcing.add_done_callback(lambda task: pass_on(task, over))
                try:
                    await over
                finally:
                    announcing.cancel()
    finally:
        http.close()


def _end(over: "asyncio.Future[None]") -> None:
    if not over.done():
        over.set_result(None)


@contextmanager
def _kept(address: tuple[str, int]) -> Iterator[str]:
    """HOST:PORT, kept for us while the gateways come and go: a socket that is bound there and does not listen takes nothing."""
    with listen(address) as probe:  # others that share a port would let us in without a word
        family, found = probe.family, probe.getsockname()
    with socket.socket(family) as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper.bind(found)
        host, port = found[:2]
        yield f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"


def _gateway(place: int, number: int, address: str, folder: Path) -> ChildProcess:
    arguments = ["--listen", address, "--workers", str(number), "--place", str(place), "--sockets", str(folder)]
    return ChildProcess("cli.shared_gateway", arguments, f"worker {place}", END_SECONDS)


async def _announced(url: str, gateways: Mapping[str, Neighbour]) -> None:
    """Prints the ready line once one of them takes requests."""
    while True:
        states = await asyncio.gather(*(gateway.state() for gateway in gateways.values()))
        if any(state and state.taking and not state.reasons for state in states):
            print(f"ready {url}", flush=True)
            return
        await asyncio.sleep(_LOOK_SECONDS)
