"""`Parking` in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from domain.errors import NotFound
from projections.ports import Parked


@dataclass
class MemoryParking:
    """See `projections.ports.Parking`."""

    kept: dict[str, Parked] = field(default_factory=dict)

    def park(self, parked: Sequence[Parked]) -> None:
        for one in parked:
            known = self.kept.setdefault(one.id, one)
            if one.error is not None:
                self.kept[one.id] = replace(known, error=one.error)

    def parked(self, projection: str | None = None, *, dropped: bool = False) -> Sequence[Parked]:
        found = [p for p in self.kept.values() if p.dropped == dropped and projection in (None, p.projection)]
        return sorted(found, key=lambda p: (p.projection, p.record.partition, p.record.offset))

    def get(self, id: str) -> Parked:
        if id not in self.kept or self.kept[id].dropped:
            raise NotFound(id)
        return self.kept[id]

    def release(self, id: str) -> None:
        del self.kept[id]

    def drop(self, id: str) -> None:
        self.kept[id] = replace(self.kept[id], dropped=True)
