"""`Directory` from the keyring of the same process: current as of every command this process has answered, or as of every
command that any process has.
"""

import time
from collections.abc import Sequence

from commands.ports import Entry
from domain import admin_key
from domain.errors import NotReady
from domain.ids import PLATFORM
from domain.registry import is_removed
from projections.keyring import Keyring

_LOOK_SECONDS = 0.005


class KeyringDirectory:
    """See `commands.ports.Directory`. May be called from any thread while the keyring's loop feeds it."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def get(self, org: str, kind: str, id: str) -> Entry | None:
        return self._entry(org, kind, id)

    def list(self, org: str | None, kind: str, after: int, limit: int) -> Sequence[Entry]:
        entries = []
        for found_kind, found_org, name in self._keyring.names():
            if found_kind == kind and org in (None, found_org):
                entry = self._entry(found_org, kind, name)
                if entry is not None and entry.created > after:
                    entries.append(entry)
        return sorted(entries, key=lambda entry: entry.created)[:limit]

    def admin(self, key_hash: str) -> Entry | None:
        found = self._keyring.admin(key_hash)
        return None if found is None else self._entry(PLATFORM, admin_key.KIND, found[0])

    def admin_at_hand(self, key_hash: str) -> Entry | None:
        return self.admin(key_hash)

    def _entry(self, org: str, kind: str, id: str) -> Entry | None:
        state = self._keyring.state(kind, org, id)
        if is_removed(state):
            return None
        version, created = self._keyring.version_of(kind, org, id)
        return Entry(org, kind, id, version, created, state)


class ProvenDirectory(KeyringDirectory):
    """The same where other processes answer commands too. Raises `NotReady` while the view cannot be proved to be current.

    An admin key that is known counts as long as the view is fresh; everything else is answered as of the question.
    """

    def __init__(self, keyring: Keyring, patience: float) -> None:
        super().__init__(keyring)
        self._patience = patience

    def get(self, org: str, kind: str, id: str) -> Entry | None:
        self._prove()
        return super().get(org, kind, id)

    def list(self, org: str | None, kind: str, after: int, limit: int) -> Sequence[Entry]:
        self._prove()
        return super().list(org, kind, after, limit)

    def admin(self, key_hash: str) -> Entry | None:
        found = self.admin_at_hand(key_hash)
        if found is None:
            self._prove()
            found = super().admin(key_hash)
        return found

    def admin_at_hand(self, key_hash: str) -> Entry | None:
        return super().admin(key_hash) if self._keyring.fresh(time.monotonic()) else None

    def _prove(self) -> None:
        """Returns once the view holds everything up to now."""
        asked = time.monotonic()
        while not self._keyring.holds(asked):
            if time.monotonic() - asked > self._patience:
                raise NotReady("the view of keys and resources is not fresh: Kafka's control topic is not answering")
            time.sleep(_LOOK_SECONDS)
