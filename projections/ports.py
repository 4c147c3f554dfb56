"""What the projections need from outside. Adapters live in `infra.adapters`; suites in `tests/contract`."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

CONTROL = "tollhouse.control.v1"
"""Topic of control events: one partition, chained records. Stored format."""

FACTS = "tollhouse.facts.v1"
"""Topic of facts: `domain.ids.PARTITIONS` partitions, keyed by organization. Stored format."""


class Record(Struct, frozen=True):
    """One record of a topic. Control records carry their journal position and the one before it (`previous`): a reader
    accepts only what continues the chain it has accepted so far, and ignores every other record."""

    partition: int
    offset: int
    value: bytes
    position: int = 0
    previous: int = 0


class LogReader(Protocol):
    """Reads one topic. Synchronous and safe to use from any one thread at a time."""

    topic: str
    partitions: int

    def read(self, partition: int, offset: int, limit: int) -> Sequence[Record]:
        """Records from `offset` on, in order: at most about `limit` (a whole stored batch may pass it), empty at the end."""

    def ends(self) -> Sequence[int]:
        """The next offset of each partition, as of now."""

    def wait(self, seen: Sequence[int], timeout: float) -> bool:
        """Returns True once some partition's end is past `seen`, False when `timeout` seconds went by without that."""


Vector = Mapping[int, int]
"""A watermark: per partition the next offset, everything below it is in the view."""
