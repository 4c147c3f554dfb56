"""A process with nothing but a gatekeeper in it. Ends at SIGTERM."""

import asyncio
import signal
from contextlib import suppress

import uvloop

from cli import log_lines
from cli.loading import loading
from cli.settings import load_settings

with loading():
    from cli.wiring_gatekeeper import open_gatekeeper


async def run() -> None:
    loop, running = asyncio.get_running_loop(), asyncio.current_task()
    assert running is not None
    loop.add_signal_handler(signal.SIGTERM, running.cancel)
    with suppress(asyncio.CancelledError):
        async with open_gatekeeper(load_settings()) as gatekeeper:
            print("ready http://nowhere", flush=True)
            await gatekeeper.run()


if __name__ == "__main__":
    log_lines.configure()
    uvloop.run(run())
