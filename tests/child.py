"""A program under test as a process group of its own, ended by id and never by name."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.waiting import until


class Child:
    """`command` says ``ready http://…`` on its stdout; its stderr is appended to `log`. The working folder is `folder`."""

    def __init__(self, command: Sequence[str], log: Path, folder: Path, environ: Mapping[str, str]) -> None:
        self.command, self.log = list(command), log
        self._folder, self._environ = folder, dict(environ)
        self._process: asyncio.subprocess.Process | None = None
        self._groups: list[int] = []
        self._rest: asyncio.Task[bytes] | None = None
        self.said: list[str] = []
        """The lines of stdout up to the ready line."""
        self.ready_seconds = 0.0
        """From start to the ready line."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, seconds: float = 60.0) -> str:
        """The URL of the ready line. Raises `AssertionError` with the log's end if it does not come."""
        began = time.monotonic()
        await self.spawn()
        assert self._process is not None and self._process.stdout is not None
        self.said.clear()
        try:
            async with asyncio.timeout(seconds):
                while line := (await self._process.stdout.readline()).decode().rstrip("\n"):
                    self.said.append(line)
                    if line.startswith("ready http://"):
                        self.ready_seconds = time.monotonic() - began
                        self._rest = asyncio.create_task(self._process.stdout.read())
                        return line.split()[1]
        except TimeoutError:
            pass
        await self.kill()
        raise AssertionError(f"no ready line from {self.command}; it logged {self.log.read_text()[-2000:]}")

    async def spawn(self) -> None:
        """Starts it without waiting for anything."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self._folder,
                env=self._environ,
                start_new_session=True,
            )
        self._groups.append(self._process.pid)

    def living(self) -> list[int]:
        """Processes of this and of earlier starts that have not ended."""
        return living(self._groups)

    def signal(self, number: signal.Signals) -> None:
        """A signal to the main process."""
        assert self._process is not None
        self._process.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM to the main process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    async def ended(self, seconds: float = 60.0) -> int:
        """The exit code of the main process, once nothing of it or its children is left."""
        code = await self.main_ended(seconds)
        await until(lambda: not self.living(), "every process ended", seconds)
        return code

    async def main_ended(self, seconds: float = 60.0) -> int:
        """The exit code of the main process; its children may live on."""
        assert self._process is not None and self._process.stdout is not None
        async with asyncio.timeout(seconds):
            code = await self._process.wait()
            await (self._rest or self._process.stdout.read())
        self._rest = None
        return code

    async def kill(self) -> None:
        """SIGKILL to every process of every start at once."""
        for group in self._groups:
            if living([group]):
                os.killpg(group, signal.SIGKILL)
        if self._process is not None:
            await self.ended()

    async def kill_main(self) -> None:
        """SIGKILL to the main process alone: its children must end by themselves."""
        assert self._process is not None
        self._process.kill()
        await self.main_ended()

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.terminate()
        return await self.ended()


def living(groups: Sequence[int]) -> list[int]:
    """Ids of the processes of some groups that run (one that ended and was not reaped does not)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            state, _, process_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue  # it ended while we looked
        if int(process_group) in groups and state != "Z":
            found.append(int(entry.name))
    return found
