"""A child process that belongs to this one: it ends when this one ends, however that happens, and is started again if it dies.

The child watches its standard input: the pipe's end is the parent's end, also after kill -9.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

RESTART_SECONDS = 0.5
END_SECONDS = 10.0
FORCE_SECONDS = 30.0
_log = logging.getLogger("tollhouse.child")


class ChildProcess:
    """`module` is run by the same interpreter with `arguments`; in the log it is `name`. Its stderr is ours. Told to end, it has
    `patience` seconds."""

    def __init__(
        self, module: str, arguments: Sequence[str], name: str = "the views process", patience: float = END_SECONDS
    ) -> None:
        self._name, self._patience = name, patience
        self._command = [sys.executable, "-m", module, *arguments]
        self._child: asyncio.subprocess.Process | None = None
        self.starts = 0

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child and self._child.returncode is None else None

    async def run(self) -> None:
        """Keeps the child running until cancelled, then ends it: first by closing its input, then by force."""
        try:
            while True:
                try:
                    self._child = await asyncio.create_subprocess_exec(
                        *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
                    )
                except OSError as error:
                    _log.error("%s cannot be started: %s", self._name, error)
                    await asyncio.sleep(RESTART_SECONDS)
                    continue
                self.starts += 1
                code = await self._child.wait()
                _log.error("%s ended with %s; starting it again", self._name, code)
                await asyncio.sleep(RESTART_SECONDS)
        finally:
            await self._end()

    async def _end(self) -> None:
        child = self._child
        if child is None or child.returncode is not None:
            return
        if child.stdin is not None:
            child.stdin.close()
        # not `asyncio.timeout`: in a task that is being cancelled, Python 3.11.2's never turns into `TimeoutError`
        ended = asyncio.ensure_future(child.wait())
        await asyncio.wait([ended], timeout=self._patience)
        if not ended.done():
            _log.error("%s did not end; killing it", self._name)
            child.kill()
        await ended


END = signal.SIGUSR1
"""What a child gets when its parent is gone. The group's and the terminal's signals are the parent's business."""


def end_with_parent(force: float = FORCE_SECONDS) -> None:
    """In the child: ends by `END` when standard input does, and by force if that takes `force` seconds."""

    def watch() -> None:
        while os.read(0, 1024):
            continue
        os.kill(os.getpid(), END)
        time.sleep(force)
        os._exit(1)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
