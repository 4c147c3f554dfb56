"""How long an exchange may take, and how long nothing of the answer's body may come. Looked at now and then: a note of each
moment that something came would cost every piece what only a silent backend needs."""

import math


class Patience:
    """One per connection, begun anew with each exchange. Times are seconds on the loop's clock."""

    __slots__ = ("_deadline", "_idle", "_silent_until", "heard")

    def __init__(self) -> None:
        self.heard = False
        """Whether something came since somebody last looked."""
        self._deadline = self._silent_until = self._idle = math.inf

    def begin(self, now: float, timeout: float, first_byte: float | None, idle: float | None) -> None:
        """An exchange begins."""
        self.heard = False
        self._deadline = now + timeout
        self._silent_until = math.inf if first_byte is None else now + first_byte
        self._idle = math.inf if idle is None else idle

    def over(self, now: float, *, held_up: bool) -> str | None:
        """What is over, if something is. `held_up`: nothing can come, because what came was not taken yet."""
        if self._deadline < now:
            return "the backend did not finish in time"
        if self.heard or held_up:
            self.heard = False
            self._silent_until = now + self._idle
        return "the backend fell silent" if self._silent_until < now else None
