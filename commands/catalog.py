"""The directory that is never behind: every aggregate folded from the journal's feed, in memory, caught up at each call.

The control plane is small, so a call costs one look for new events. The first call reads the whole journal.
"""

from collections.abc import Sequence
from threading import Lock

from commands.ports import Entry, Feed
from domain import admin_key
from domain.envelope import decode
from domain.registry import decode_event, evolve_stream, is_removed

_BATCH = 1000


class Catalog:
    """Implements `commands.ports.Directory`. Safe to call from several threads."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._lock = Lock()
        self._position = 0
        self._entries: dict[tuple[str, str], dict[str, Entry]] = {}
        self._admins: dict[str, str] = {}

    def get(self, org: str, kind: str, id: str) -> Entry | None:
        """See `Directory.get`."""
        with self._lock:
            self._catch_up()
            found = self._entries.get((kind, org), {}).get(id)
        return None if found is None or is_removed(found.state) else found

    def list(self, org: str | None, kind: str, after: int, limit: int) -> Sequence[Entry]:
        """See `Directory.list`."""
        with self._lock:
            self._catch_up()
            groups = [group for (of, where), group in self._entries.items() if of == kind and org in (None, where)]
            found = [entry for group in groups for entry in group.values() if entry.created > after]
        alive = [entry for entry in found if not is_removed(entry.state)]
        return sorted(alive, key=lambda entry: entry.created)[:limit]

    def admin(self, key_hash: str) -> Entry | None:
        """See `Directory.admin`."""
        with self._lock:
            self._catch_up()
            found = self._admins.get(key_hash)
            entry = None if found is None else self._entries[admin_key.KIND, "_"][found]
        return None if entry is None or entry.state.revoked else entry

    def _catch_up(self) -> None:
        while batch := self._feed.after(self._position, _BATCH):
            for stored in batch:
                self._fold(stored.position, stored.body)
                self._position = stored.position

    def _fold(self, position: int, body: bytes) -> None:
        envelope = decode(body)
        org, kind, id = envelope.stream.split("/", 2)
        group = self._entries.setdefault((kind, org), {})
        before = group.get(id)
        state = evolve_stream(kind, None if before is None else before.state, decode_event(envelope))
        created = position if before is None else before.created
        group[id] = Entry(org, kind, id, envelope.version, created, state)
        if kind == admin_key.KIND and before is None:
            self._admins[state.hash] = id
