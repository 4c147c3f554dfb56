"""Which commands of a group are let in: each as if it were alone, and after those before it."""

from collections.abc import Sequence

from msgspec.structs import replace

from commands.ports import CommandRow
from domain.errors import Conflict, VersionConflict
from infra.adapters.group_commit import Append, Outcome

EventRow = tuple[str, int, str, bytes, int]
"""Stream, version, type, bytes and position of an event."""


class Known:
    """What the journal holds of the streams and keys of a group, and will hold after those commands that were let in.

    `positions` are drawn for all events of the group, those of refused commands too: they become holes. `last` is the end of the
    journal.
    """

    def __init__(
        self, versions: dict[str, int], taken: set[tuple[str, str]], positions: Sequence[int], last: int
    ) -> None:
        self._versions, self._taken = versions, taken
        self._positions, self.last = positions, last

    def let_in(self, appends: Sequence[Append]) -> tuple[list[Outcome], list[EventRow], list[CommandRow]]:
        """What becomes of each command, and the rows to insert."""
        outcomes, events, rows = list[Outcome](), list[EventRow](), list[CommandRow]()
        drawn = iter(self._positions)
        for append in appends:
            refusal = self._refusal(append)
            positions = [next(drawn) for _ in append.events]
            if refusal is not None:
                outcomes.append(refusal)
                continue
            self.last = positions[-1] if positions else self.last
            outcomes.append(self.last)
            for event, at in zip(append.events, positions, strict=True):
                events.append((str(event.originator_id), event.originator_version, event.topic, event.state, at))
            if append.row is not None:
                rows.append(replace(append.row, position=self.last))
        return outcomes, events, rows

    def _refusal(self, append: Append) -> Conflict | None:
        row, versions = append.row, self._versions
        if row is not None and (row.actor, row.key) in self._taken:
            return Conflict("this Idempotency-Key was used", code="command_id_taken")
        for stream, version in append.expected.items():
            if versions[stream] != version:
                return VersionConflict(f"{stream} is at version {versions[stream]}, not {version}")
        after: dict[str, int] = {}
        for event in append.events:
            stream, version = str(event.originator_id), event.originator_version
            if version <= after.get(stream, versions[stream]):
                return VersionConflict(f"{stream} has a version {version}")
            after[stream] = version
        versions.update(after)
        if row is not None:
            self._taken.add((row.actor, row.key))
        return None
