"""One try at one backend: who asks, for what, where it goes, and what it came to if it came to nothing."""

import time
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from api.router.departure import Departure
from api.router.errors import RouterError
from api.router.exchange import Exchange
from api.router.faces.face import Face
from api.router.ways import Way
from commands.admission import Admitted
from commands.ports import UpstreamResponse
from domain.facts import Try, Usage
from domain.upstream_status import Said

SLOW_MS = 4000.0
"""A failure that takes longer was waited for: as long as a connection is, at least."""


LEFT = 499
"""The status, in our own figures, of a stream whose caller left before its head."""


@dataclass(slots=True)
class Passage:
    """`before`: the tries that came before it under the same hold; `began`: monotonic seconds;
    `departure`: of its caller, where that ends it."""

    exchange: Exchange
    admitted: Admitted
    face: Face
    way: Way
    before: tuple[Try, ...]
    began: float
    departure: Departure | None = None

    @property
    def backend(self) -> str:
        return self.way.target.backend

    def tried(self, status: int = 0, error: str | None = None) -> Try:
        """This try, as a fact shows it."""
        ms = round((time.monotonic() - self.began) * 1000, 3)
        return Try(backend=self.backend, status=status, error=error, ms=ms)

    def counted(self, output: int, came_in: Usage | None = None) -> Usage:
        """What is charged where no usage was reported: the input as far as it was told, else about what it has, and the output
        counted, at most what was granted: as the dearer of what it may be."""
        return self.more(came_in or Usage(input=self.admitted.call.estimated_input), output)

    def more(self, told: Usage, output: int) -> Usage:
        """What was told, and an output counted beside it: together at most what was granted."""
        call = self.admitted.call
        output = max(0, min(output, self.admitted.grant * call.choices - told.all_output))
        if call.spoken:
            return replace(told, audio_output=told.audio_output + output)
        return replace(told, output=told.output + output)


@dataclass(frozen=True, slots=True)
class Failed:
    """A try that gave the caller nothing, and is not on the books yet. `said` tells what it cost and whether another backend
    may be asked; `error` is what the caller gets if none is, unless there is an `answer` of the backend's own to pass on."""

    said: Said
    tried: Try
    error: RouterError
    reason: Literal["upstream_refused", "upstream_status"] = "upstream_status"
    answer: UpstreamResponse | None = None
