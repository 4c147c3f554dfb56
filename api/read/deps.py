"""What the read API stands on, as the composition root hands it over."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from commands.ports import Clock, Secrets
from projections.engine import Engine
from projections.keyring import Keyring
from projections.ports import Parking
from projections.reads.audit import AuditTrail
from projections.reads.budgets import Budgets
from projections.reads.events import Events
from projections.reads.freshness import Freshness
from projections.reads.past import Past
from projections.reads.requests import Requests
from projections.reads.usage import Usages
from projections.rebuild import Rebuilder


@dataclass(frozen=True, slots=True)
class ReadDeps:
    """`keyring` is read and fed on the event loop of the API; `refresh` brings it up to the end of the log and raises
    `Unavailable` if that cannot be read. Everything else is asked in threads.

    `live` answers the version of a view that is in use, `failing` per view why it fails at the moment (None: it does not).
    `ending` says whether the process is about to end, so that streams end too.
    """

    keyring: Keyring
    refresh: Callable[[], None]
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
    engines: Mapping[str, Engine]
    rebuilder: Rebuilder
    parking: Parking
    live: Callable[[str], int | None]
    failing: Callable[[], Mapping[str, str | None]]
    ending: Callable[[], bool] = lambda: False
    patience: float = 5.0
    """Seconds that a read waits for a position."""
