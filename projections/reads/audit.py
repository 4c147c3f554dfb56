"""Who did what: control events with the state before and after, newest first. The chain itself is `projections.audit`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from projections.audit import ChainCheck, shown


class Deed(Struct, frozen=True, kw_only=True):
    """One entry. `before` and `after` are the stream's states as JSON, empty for nothing; `body` the event as stored."""

    number: int
    position: int
    id: str
    org: str
    stream: str
    version: int
    type: str
    time: datetime
    actor: str
    command_id: str
    correlation_id: str
    before: str
    after: str
    body: str
    hash: str


class AuditTrail(Protocol):
    """The live version of the audit view. Synchronous; any thread. Raises `Unavailable`."""

    def page(self, org: str, before: int | None, limit: int) -> Sequence[Deed]:
        """The newest `limit` entries of an organization, of those with a number below `before`."""

    def after(self, org: str | None, position: int, limit: int) -> Sequence[Deed]:
        """Entries (of one organization, or all) beyond a journal position, oldest first."""

    def find(self, event: str) -> Deed | None:
        """The entry of one event."""

    def verify(self) -> ChainCheck:
        """Recomputes the chain over all entries."""


def event_of(deed: Deed) -> dict[str, Any]:
    """The event as people may see it."""
    event: dict[str, Any] = shown(deed.body)
    return event


def states_of(deed: Deed) -> tuple[Any, Any]:
    """The states before and after as people may see them, None for nothing."""
    return shown(deed.before), shown(deed.after)
