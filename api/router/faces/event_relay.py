"""Relays a stream whose events say what they are: they pass as they come, byte for byte, until the one that ends the answer. From
that on they are withheld until the completion is durable.
"""

from abc import ABC, abstractmethod

from api.router.faces.sse import Events, data_of, events_of


class EventRelay(ABC):
    """What the relays of such protocols have in common. `PIECE` is in the data of every event that carries something, and nowhere
    else: a quote in a text has a backslash before it."""

    PIECE: bytes
    __slots__ = ("_events", "_withheld", "done", "failed", "pieces")

    def __init__(self) -> None:
        self._events = Events()
        self._withheld: list[bytes] = []
        self.pieces = 0
        self.done = self.failed = False

    def feed(self, data: bytes) -> bytes:
        """See `Relay`."""
        block = self._events.feed(data)
        if not self._withheld and not self._matters(block):
            self.pieces += block.count(self.PIECE)
            return block
        return b"".join([event for event in events_of(block) if self._passes(event)])

    def end(self) -> None:
        """See `Relay`."""
        if (event := self._events.end()) and self._passes(event):
            self._withheld.append(event)

    def rest(self) -> bytes:
        """See `Relay`."""
        return b"".join(self._withheld)

    @abstractmethod
    def _matters(self, data: bytes) -> bool:
        """Whether there may be something for `_read` in it: what is asked of every piece, so as cheap as can be."""

    @abstractmethod
    def _read(self, data: bytes) -> None:
        """Learns what an event that matters says: usage, that the answer has come to its end, that it broke."""

    def _passes(self, event: bytes) -> bool:
        data = data_of(event)
        self.pieces += data.count(self.PIECE)
        if self._matters(data):
            self._read(data)
        if not self.done:
            return True
        self._withheld.append(event)
        return False
