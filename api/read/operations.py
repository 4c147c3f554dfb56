"""Long work on the projections, in the background: started, watched, and kept in memory for a while after it ended."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from domain.errors import NotFound, TollhouseError

KEPT = 200
"""Operations that are remembered; the oldest that ended are forgotten first."""

Update = Callable[[int, int], None]
"""Called with (done, total)."""

_logger = logging.getLogger("tollhouse.operations")


@dataclass(slots=True)
class Operation:
    """`status` is ``running``, ``done`` (then `result` is set) or ``failed`` (then `error` is)."""

    id: str
    kind: str
    status: str = "running"
    done: int = 0
    total: int = 0
    result: Any = None
    error: dict[str, str] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def document(self) -> dict[str, Any]:
        with self.lock:
            return {
                "id": self.id,
                "kind": self.kind,
                "status": self.status,
                "progress": {"done": self.done, "total": self.total},
                "result": self.result,
                "error": self.error,
            }

    def update(self, done: int, total: int) -> None:
        with self.lock:
            self.done, self.total = done, total

    def ended(self, result: Any, error: dict[str, str] | None) -> None:
        with self.lock:
            self.status, self.result, self.error = ("failed" if error else "done"), result, error


class Operations:
    """Each runs in a thread of its own. Use it from any thread."""

    def __init__(self, new_id: Callable[[str], str]) -> None:
        self._new_id = new_id
        self._known: OrderedDict[str, Operation] = OrderedDict()
        self._lock = threading.Lock()

    def start(self, kind: str, work: Callable[[Update], Any]) -> Operation:
        """Begins `work`; what it returns (JSON values) is the result."""
        operation = Operation(self._new_id("op"), kind)
        with self._lock:
            self._known[operation.id] = operation
            for id in [id for id, known in self._known.items() if known.status != "running"]:
                if len(self._known) <= KEPT:
                    break
                del self._known[id]
        threading.Thread(target=_run, args=(operation, work), name=operation.id, daemon=True).start()
        return operation

    def get(self, id: str) -> Operation:
        """Raises `NotFound`."""
        with self._lock:
            found = self._known.get(id)
        if found is None:
            raise NotFound("no such operation: it was never started, or before the last start of the server")
        return found


def _run(operation: Operation, work: Callable[[Update], Any]) -> None:
    try:
        operation.ended(work(operation.update), None)
    except TollhouseError as error:
        operation.ended(None, {"code": error.code, "message": error.message})
    except Exception as error:
        _logger.exception("operation %s (%s) failed", operation.id, operation.kind)
        operation.ended(None, {"code": "internal_error", "message": f"{type(error).__name__}: {error}"})
