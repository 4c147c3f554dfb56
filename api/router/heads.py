"""The headers of a request to a backend that are the target's own: the same for every request of it, so made once."""

import re
from collections.abc import Callable

from domain.scope import Target

_CREDENTIAL = {"anthropic": b"x-api-key: "}
"""How a protocol takes its credential, where that is not as a bearer token."""

_OURS = (
    b"content-type: application/json\r\naccept: application/json, text/event-stream\r\n"
    b"accept-encoding: identity\r\nuser-agent: tollhouse\r\n"
)
"""Without the encoding named, a backend may take any for granted."""

_MOST = 1000


class Heads:
    """`unseal` opens a stored credential."""

    def __init__(self, unseal: Callable[[str], str]) -> None:
        self._unseal = unseal
        self._known: dict[Target, bytes] = {}

    def of(self, target: Target) -> bytes:
        """Header lines, each ended by CR LF."""
        head = self._known.get(target)
        if head is None:
            head = _OURS
            if target.credential is not None:
                name = _CREDENTIAL.get(target.protocol, b"authorization: Bearer ")
                head += name + self._unseal(target.credential).encode() + b"\r\n"
            if len(self._known) > _MOST:  # targets are made anew with every change of the keyring
                self._known.clear()
            self._known[target] = head
        return head

    def unspoken(self, target: Target, body: bytes) -> bytes:
        """What a backend says of a request, without our credential if it repeats that."""
        if target.credential is None:
            return body
        return re.sub(_spelled(self._unseal(target.credential)), b"...", body)


def _spelled(text: str) -> bytes:
    """A pattern for `text` as it is, and as JSON may escape it."""
    return b"".join(rb"(?:\\?%b|\\u(?i:%04x))" % (re.escape(letter.encode()), ord(letter)) for letter in text)
