"""Asking the directory view: aggregates as of the last control event in it."""

from collections.abc import Sequence
from typing import Protocol

from projections.directory import Entry


class Directory(Protocol):
    """The live version of the directory view. Synchronous; any thread. Raises `Unavailable`."""

    def get(self, stream: str) -> Entry | None:
        """The stream ``org/kind/id``, removed or not; None if it never was."""

    def list(self, org: str, kind: str, after: str, limit: int, *, removed: bool) -> Sequence[Entry]:
        """Aggregates of one organization by id, those beyond the id `after`; `removed` ones too if so said."""

    def everywhere(self, kind: str, after: str, limit: int, *, removed: bool) -> Sequence[Entry]:
        """Aggregates of every organization by stream, those beyond the stream `after`."""
