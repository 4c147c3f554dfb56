"""An error as backends of both protocols tell it: a body, or an event, with an ``error`` object."""

import msgspec

from api.router.errors import NOT_JSON


class Fault(msgspec.Struct):
    """An error of the backend's. Anthropic's have a `type` and a `message`."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _Refusal(msgspec.Struct):
    error: Fault


_refusal = msgspec.json.Decoder(_Refusal).decode


def fault_of(body: bytes, unsaid: str) -> Fault:
    """The error of a body; of one of another shape nothing is known, and `unsaid` stands for its words."""
    try:
        return _refusal(body).error
    except NOT_JSON:
        return Fault(message=unsaid)
