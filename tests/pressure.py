"""Steady load on the router by callers that never stop asking, and what each of their requests became."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.http1 import Answer, Cut
from tests.lab import Key, Lab
from tests.waiting import until


@dataclass
class Pressure:
    """The answers so far, in the order in which they came."""

    answers: list[Answer] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)

    def begun_after(self, moment: float) -> list[Answer]:
        """Answers of the requests that began after a monotonic `moment`."""
        return [answer for answer in self.answers if answer.began > moment]

    async def more(self, count: int) -> None:
        """Returns once `count` more answers have come."""
        wanted = len(self.answers) + count
        await until(lambda: len(self.answers) >= wanted, f"{count} more answers")

    async def of(self, status: int, count: int = 1) -> None:
        """Returns once `count` more answers of this status have come."""
        wanted = self._of(status) + count
        await until(lambda: self._of(status) >= wanted, f"{count} more answers of status {status}")

    def _of(self, status: int) -> int:
        return sum(answer.status == status for answer in self.answers)


@asynccontextmanager
async def pressure(lab: Lab, key: Key, model: str, callers: int = 16) -> AsyncIterator[Pressure]:
    """`callers` that ask again as soon as they are answered, every third one for a stream; all end with the context."""
    seen, over = Pressure(), asyncio.Event()

    async def caller(number: int) -> None:
        while not over.is_set():
            try:
                answer = await lab.chat(key, model, max_tokens=20, stream=number % 3 == 0)
                seen.answers.append(answer)
                refused = answer.status != 200
            except Cut as cut:
                seen.cuts.append(cut)
                refused = True
            await asyncio.sleep(0.005 if refused else 0)

    tasks = [asyncio.create_task(caller(number)) for number in range(callers)]
    try:
        yield seen
    finally:
        over.set()
        await asyncio.gather(*tasks)
