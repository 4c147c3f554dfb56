"""What the HTTP status of a backend's answer without usage says: about its cost, and about who is to blame.

Only an answer that came whole is judged here. Whatever stands in front of a model and gave up waiting (408, 499, 502, 504, the
520s of content networks) does not know whether the model served the request: that cost is unknown, never zero. Every other
status is the word of whoever was asked that it did not serve, and costs nothing.
"""

from enum import Enum

_PERHAPS_SERVED = frozenset({408, 499, 502, 504, *range(520, 528)})

_BROKEN = frozenset({401, 403})
"""Our credential is refused: no request of ours will fare better there."""

_BUSY = frozenset({402, 429})
"""Our account there has used up what it may, for now."""

_NOT_THERE = frozenset({404, 405, 410})
"""The model, or this way to ask for it, is not to be had there."""


class Said(Enum):
    """`PERHAPS`: it may have been served; `BROKEN`, `BUSY`, `NOT_THERE`: it was not, for reasons of the backend's own, so another
    one may be asked; `CALLERS`: it was not, and would not be elsewhere."""

    SERVED = "served"
    PERHAPS = "perhaps"
    BROKEN = "broken"
    BUSY = "busy"
    NOT_THERE = "not_there"
    CALLERS = "callers"


def said_by(status: int) -> Said:
    """See the module."""
    if 200 <= status < 300:
        return Said.SERVED
    if status in _PERHAPS_SERVED:
        return Said.PERHAPS
    if status in _BUSY:
        return Said.BUSY
    if status in _NOT_THERE:
        return Said.NOT_THERE
    if 400 <= status < 500 and status not in _BROKEN:
        return Said.CALLERS
    return Said.BROKEN
