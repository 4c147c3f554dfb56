"""What the router asks of a face, and of the way a request is carried to a backend.

A `Face` is one path of one public protocol. It parses a body once (`Asked`), and shows errors in its protocol's shape. A
`Carriage` brings one request to a backend of one protocol and the answer back: the body that goes there, what of the
answer reaches the caller, and the usage that is found on the way. Where the two protocols are the same, bytes pass.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from commands.admission import Call
from domain.facts import Usage

Header = Callable[[bytes], bytes | None]
"""The value of a request's header, by its name in lower case; None if it has none."""


class Relay(Protocol):
    """One answer that streams. `usage` is the last report that can be true, `came_in` what a protocol told of the input before
    there was one, `pieces` counts the events that carried something, `done` says that the stream announced its end, `failed` that
    it said that the answer broke."""

    @property
    def usage(self) -> Usage | None: ...

    @property
    def came_in(self) -> Usage | None: ...

    @property
    def pieces(self) -> int: ...

    @property
    def done(self) -> bool: ...

    @property
    def failed(self) -> bool: ...

    def feed(self, data: bytes) -> bytes:
        """What of the stream so far may go to the caller now."""

    def end(self) -> None:
        """Nothing more comes."""

    def rest(self) -> bytes:
        """What is owed to the caller once the completion is durable."""


class Carriage(Protocol):
    """One request on its way to backends of one protocol. `ceiling` bounds the tokens of either side that a report may claim."""

    @property
    def path(self) -> str:
        """Appended to the backend's base URL."""

    @property
    def headers(self) -> bytes:
        """Header lines of the protocol, each ended by CR LF; the target's own (its credential) are not among them."""

    def body(self, upstream_model: str, grant: int, cap_field: str | None = None) -> bytes:
        """What goes to the backend: its name of the model, and `grant` as the output cap per choice, in the field of this name
        where the protocol has several, and the backend heeds one of them."""

    def answer(self, body: bytes, ceiling: int) -> tuple[Usage | None, bytes]:
        """Of a plain answer: the usage it reports, if it can be true, and what the caller gets."""

    def refusal(self, status: int, body: bytes) -> bytes:
        """What the caller gets of a backend's own refusal."""

    def relay(self, ceiling: int) -> Relay:
        """For an answer that streams."""


class Asked(Protocol):
    """A parsed request. `call` is what admission needs of it."""

    @property
    def call(self) -> Call: ...

    def carriage(self, protocol: str) -> Carriage:
        """How it reaches a backend that speaks `protocol`. Raises `RouterError` (``unsupported_parameter``) naming what cannot
        be carried over."""


class Errors(Protocol):
    """How a public protocol shows what went wrong."""

    def error(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        extra: Mapping[str, Any] | None = None,
        request: str | None = None,
    ) -> bytes:
        """The body of an answer that is an error. `request` is our id of the request."""

    def error_event(self, status: int, code: str, message: str) -> bytes:
        """The event that ends a stream which broke."""


class Face(Errors, Protocol):
    """One path of one public protocol."""

    @property
    def endpoint(self) -> str:
        """Its name on facts and metrics. Stored format."""

    def parse(self, body: bytes, header: Header) -> Asked:
        """Raises `RouterError` (``invalid_json``, ``missing_model``, ``invalid_value``) naming the field."""
