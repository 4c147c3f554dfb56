"""Whether the views that others feed move: one that is behind the log and takes nothing in has nobody to feed it."""

import threading
import time
from collections.abc import Mapping

from domain.errors import Unavailable
from projections.ports import Mark
from projections.reads.freshness import Freshness, Watched

STILL_SECONDS = 10.0
"""A view that is behind is fed at least this often."""


class Standstill:
    """`look` is called again and again; the others tell what was seen last. Any thread."""

    def __init__(self, freshness: Freshness, views: Mapping[str, Watched]) -> None:
        self._freshness, self._views = freshness, views
        self._lock = threading.Lock()
        self._since: dict[str, tuple[Mapping[int, Mark], float]] = {}
        self._reasons: dict[str, str | None] = dict.fromkeys(views)
        self._lags: dict[str, int] = dict.fromkeys(views, 0)

    def look(self) -> None:
        """Asks every view how far it is."""
        for name, view in self._views.items():
            try:
                self._saw(name, view.marks(), self._freshness.lag(name))
            except Unavailable as error:
                with self._lock:
                    self._reasons[name] = error.message

    def reasons(self) -> Mapping[str, str | None]:
        """Per view why it stands still, or cannot be asked."""
        with self._lock:
            return dict(self._reasons)

    def lags(self) -> Mapping[str, int]:
        """Records that are not in each view."""
        with self._lock:
            return dict(self._lags)

    def _saw(self, name: str, marks: Mapping[int, Mark], lag: int) -> None:
        now = time.monotonic()
        with self._lock:
            self._lags[name] = lag
            known = self._since.get(name)
            if not lag or known is None or known[0] != marks:
                self._since[name] = (marks, now)
            still = now - self._since[name][1]
            told = f"{lag} records behind, and no worker took one in for {still:.0f} s"
            self._reasons[name] = told if still > STILL_SECONDS else None
