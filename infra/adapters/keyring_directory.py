"""`Directory` from the keyring of the same process: current as of every command this process has answered."""

from collections.abc import Sequence

from commands.ports import Entry
from domain import admin_key
from domain.ids import PLATFORM
from domain.registry import is_removed
from projections.keyring import Keyring


class KeyringDirectory:
    """See `commands.ports.Directory`. May be called from any thread while the keyring's loop feeds it."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def get(self, org: str, kind: str, id: str) -> Entry | None:
        state = self._keyring.state(kind, org, id)
        if is_removed(state):
            return None
        version, created = self._keyring.version_of(kind, org, id)
        return Entry(org, kind, id, version, created, state)

    def list(self, org: str | None, kind: str, after: int, limit: int) -> Sequence[Entry]:
        entries = []
        for found_kind, found_org, name in self._keyring.names():
            if found_kind == kind and org in (None, found_org):
                entry = self.get(found_org, kind, name)
                if entry is not None and entry.created > after:
                    entries.append(entry)
        return sorted(entries, key=lambda entry: entry.created)[:limit]

    def admin(self, key_hash: str) -> Entry | None:
        found = self._keyring.admin(key_hash)
        return None if found is None else self.get(PLATFORM, admin_key.KIND, found[0])
