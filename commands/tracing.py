"""W3C trace context: which trace a request belongs to, and the spans that are told of it where somebody wants them.

Without spans a caller's context goes on as it came, to the backend and into the events. With spans the request is one of its
trace's, or begins a trace of its own, and each try at a backend is a child of it. Ids of spans are made of ids that exist
anyway, so nothing has to be kept.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from domain.facts import RequestCompleted, RequestFailed, RequestUnconfirmed

Header = Callable[[bytes], bytes | None]
"""The value of a request's header, by its name in small letters."""

_CONTEXT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NOTHING = re.compile(r"0+")
_STATE = re.compile(rb"[\x20-\x7e]{1,512}")
_SAMPLED = "01"

Ended = RequestCompleted | RequestFailed | RequestUnconfirmed


@dataclass(frozen=True, slots=True)
class Trace:
    """`id` in hex, `parent` the span that the caller asks in, if any; `state` is its vendors', untouched. `span` is the request's
    own, where spans are told."""

    id: str
    parent: str | None
    flags: str
    state: bytes | None
    span: str | None = None

    @property
    def sampled(self) -> bool:
        return int(self.flags, 16) & 1 == 1

    @property
    def context(self) -> str:
        """``traceparent`` of what happens on behalf of the request."""
        return f"00-{self.id}-{self.span or self.parent}-{self.flags}"

    def lines(self, attempt: str, number: int) -> bytes:
        """Header lines for a backend, of the try with this number at this attempt."""
        context = self.context if self.span is None else f"00-{self.id}-{try_span(attempt, number)}-{self.flags}"
        lines = b"traceparent: " + context.encode() + b"\r\n"
        return lines if self.state is None else lines + b"tracestate: " + self.state + b"\r\n"


class Spans(Protocol):
    """Where spans are told. It returns at once and raises nothing: what cannot be told is lost."""

    def request(self, trace: Trace, request: str, endpoint: str, model: str, status: int, code: str) -> None:
        """A request was answered (`code`: what it was refused with, or empty)."""

    def tries(self, trace: Trace, fact: Ended) -> None:
        """An attempt came to its end: the tries that are on its fact."""


def trace_of(header: Header) -> Trace | None:
    """The caller's, if it states one; what is malformed is none."""
    given = header(b"traceparent")
    if given is None:
        return None
    match = _CONTEXT.fullmatch(given)
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5]):
        return None
    id, parent, flags = match[2].decode(), match[3].decode(), match[4].decode()
    if _NOTHING.fullmatch(id) or _NOTHING.fullmatch(parent):
        return None
    state = header(b"tracestate")
    return Trace(id, parent, flags, state if state is not None and _STATE.fullmatch(state) else None)


def told(trace: Trace | None, request: str) -> Trace:
    """The trace of a request whose spans are told: the caller's, or one of its own."""
    if trace is None:
        return Trace(_hex(f"{request}/trace", 16), None, _SAMPLED, None, _hex(request, 8))
    return Trace(trace.id, trace.parent, trace.flags, trace.state, _hex(request, 8))


def try_span(attempt: str, number: int) -> str:
    """The id of the span of a try."""
    return _hex(f"{attempt}/{number}", 8)


def _hex(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()
