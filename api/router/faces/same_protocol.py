"""A request on its way to a backend that speaks the caller's own protocol: bytes pass, but for the few fields that are the
router's business."""

from typing import Generic, Protocol, TypeVar

import msgspec
from msgspec import Raw

from api.router.faces.fields import Fields, said_twice
from commands.admission import Call

_encode = msgspec.json.encode


class Sendable(Protocol):
    """A parsed request: the raw members of its body, and the body as it came."""

    @property
    def call(self) -> Call: ...
    @property
    def fields(self) -> Fields: ...
    @property
    def sent(self) -> bytes: ...


A = TypeVar("A", bound=Sendable)


class SameProtocol(Generic[A]):
    """What such carriages share. A subclass says its `path`, the field of its output cap, and how it reads usage."""

    __slots__ = ("_asked",)
    headers = b""

    def __init__(self, asked: A) -> None:
        self._asked = asked

    @property
    def cap_field(self) -> str | None:
        """The field of the output cap; None: there is no output to cap."""
        return None

    def body(self, upstream_model: str, grant: int, cap_field: str | None = None) -> bytes:
        """See `Carriage.body`. The paths but one have one name of the cap."""
        del cap_field
        asked = self._asked
        changed = self.changed(upstream_model, grant)
        if changed or said_twice(asked.sent, asked.fields):
            return _encode({**asked.fields, **changed})
        return asked.sent

    def changed(self, upstream_model: str, grant: int) -> Fields:
        """The members that the backend gets in the place of the caller's."""
        call, changed, cap_field = self._asked.call, {}, self.cap_field
        if upstream_model != call.model:
            changed["model"] = Raw(_encode(upstream_model))
        if cap_field is not None and call.cap != grant:
            changed[cap_field] = Raw(b"%d" % grant)
        return changed

    def refusal(self, status: int, body: bytes) -> bytes:
        """See `Carriage.refusal`: it is the caller's own protocol."""
        del status
        return body
