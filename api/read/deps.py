"""What the read API stands on, as the composition root hands it over."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from commands.ports import Clock, Secrets
from projections.keyring import Keyring
from projections.ports import Mark, Parking
from projections.reads.audit import AuditTrail
from projections.reads.budgets import Budgets
from projections.reads.events import Events
from projections.reads.freshness import Freshness
from projections.reads.past import Past
from projections.reads.requests import Requests
from projections.reads.usage import Usages
from projections.rebuild import Rebuilder


class View(Protocol):
    """A view and what operators do with it: its engine, or what its store tells where others feed it."""

    name: str
    topic: str

    def marks(self) -> Mapping[int, Mark]:
        """The watermark."""

    def retry(self, id: str) -> int:
        """See `projections.engine.Engine`."""

    def drop(self, id: str) -> None:
        """See `projections.engine.Engine`."""


@dataclass(frozen=True, slots=True)
class ReadDeps:
    """`keyring` is read and fed on the event loop of the API. `refresh` returns once it is as current as admission wants it,
    `prove` once it has all that was in the log when it was called; both raise `Unavailable`. Everything else is asked in
    threads.

    `live` answers the version of a view that is in use, `failing` per view why it fails at the moment (None: it does not).
    `ending` says whether the process is about to end, so that streams end too.
    """

    keyring: Keyring
    refresh: Callable[[], Awaitable[None]]
    prove: Callable[[], Awaitable[None]]
    secrets: Secrets
    clock: Clock
    new_id: Callable[[str], str]
    freshness: Freshness
    budgets: Budgets
    past: Past
    usages: Usages
    requests: Requests
    audit: AuditTrail
    events: Events
    views: Mapping[str, View]
    rebuilder: Rebuilder
    parking: Parking
    live: Callable[[str], int | None]
    failing: Callable[[], Mapping[str, str | None]]
    ending: Callable[[], bool] = lambda: False
    patience: float = 5.0
    """Seconds that a read waits for a position."""
