"""One of the gateways that share a port. Started, and started again, by `cli.sharing`; ended with it.

It listens at the shared port only once it takes requests, so that no caller meets one that is still starting. From its first
moment on it tells the others, at a unix socket, how it is.
"""

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from api.backends_page import Page
from api.metrics import Metrics
from api.together import BACKENDS, METRICS, STATE, Face, State, Together
from cli import log_lines
from cli.http_server import DRAIN_SECONDS, serve_app
from cli.running import allow_many_files
from cli.serving import Life, counted_slow_callers, living
from cli.settings import Settings, load_settings
from cli.wiring_distributed_gateway import open_gateway
from commands.ports import UpstreamResponse
from domain.errors import UpstreamFailed
from infra.adapters.child_process import END, end_with_parent
from infra.adapters.ids import new_id
from infra.adapters.upstream import HttpUpstream

END_SECONDS = DRAIN_SECONDS + 15.0
"""A gateway finishes what is under way, and then writes down its last facts."""

_ANSWER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """See `api.together.Sibling`: by its socket."""

    http: HttpUpstream
    socket: Path

    async def state(self) -> State | None:
        """One that is there and says nothing is one that callers may wait for in vain."""
        try:
            return msgspec.json.decode((await self._asked(STATE)).body, type=State)
        except UpstreamFailed as failure:
            return State(True, ["does not answer"]) if failure.sent else None

    async def metrics(self) -> bytes | None:
        try:
            return (await self._asked(METRICS)).body
        except UpstreamFailed:
            return None

    async def backends(self) -> Page | None:
        try:
            answer = await self._asked(BACKENDS)
        except UpstreamFailed:
            return None
        return msgspec.json.decode(answer.body, type=Page) if answer.status == 200 else None

    async def _asked(self, path: str) -> UpstreamResponse:
        return await self.http.send(f"unix://{self.socket}", path, b"", b"", _ANSWER_SECONDS, method=b"GET")


def neighbours(http: HttpUpstream, folder: Path, number: int) -> Mapping[str, Neighbour]:
    """All of `number` gateways whose sockets are in `folder`, by name."""
    return {str(place): Neighbour(http, socket_of(folder, place)) for place in range(number)}


def socket_of(folder: Path, place: int) -> Path:
    return folder / f"{place}.sock"


def main() -> None:
    options = argparse.ArgumentParser(prog="tollhouse gateway", description=__doc__)
    options.add_argument("--listen", required=True)
    options.add_argument("--workers", type=int, required=True, help="how many share the port")
    options.add_argument("--place", type=int, required=True, help="which of them this one is")
    options.add_argument("--sockets", type=Path, required=True, help="the folder of their sockets")
    args = options.parse_args()
    end_with_parent(END_SECONDS)
    log_lines.configure()
    allow_many_files()
    settings = load_settings({"listen": args.listen, "workers": args.workers})
    uvloop.run(_run(settings, args.place, args.sockets))


async def _run(settings: Settings, place: int, folder: Path) -> None:
    metrics, http = Metrics(), HttpUpstream()
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(END, over.set)
    try:
        async with living(metrics, lambda starting, failed: open_gateway(settings, metrics, starting, failed)) as life:
            await _serve(
                settings, metrics, life, over, neighbours(http, folder, settings.workers), socket_of(folder, place)
            )
    finally:
        http.close()


async def _serve(
    settings: Settings,
    metrics: Metrics,
    life: Life,
    over: asyncio.Event,
    all_of_us: Mapping[str, Neighbour],
    socket: Path,
) -> None:
    """Its face at once, the shared port when it is ready; until it is told to end, or a part of it ended by a bug."""
    taking = False
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    face = Face(lambda: State(taking, life.door.reasons()), metrics, life.door)
    facing = asyncio.create_task(serve_app(face, str(socket), lambda _: None, ended, signals=()))
    ready, told = asyncio.create_task(life.ready()), asyncio.create_task(over.wait())
    try:
        awaited: list[asyncio.Future[Any]] = [ready, told, facing, life.failed]
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        if ready.done() and not over.is_set():
            taking = True
            await serve_app(
                Together(life.door, all_of_us, new_id),
                settings.address,
                lambda _: None,
                life.failed,
                life.starting.end,
                signals=(END,),
                slow=counted_slow_callers(settings, metrics),
                observe=metrics.observe,
                shared=True,
            )
        for part in (facing, life.failed):
            if part.done():
                part.result()
    finally:
        ready.cancel()
        told.cancel()
        ended.set_result(None)
        await facing


if __name__ == "__main__":
    main()
