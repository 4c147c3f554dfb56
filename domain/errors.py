"""The one exception tree. Each class has a stable `code`; `api` maps kinds to HTTP once, `cli` to exit codes once.

TollhouseError
├── Invalid            bad input: which field, what is wrong, what would be right
├── NotFound           no such thing, or not for this caller
├── Conflict           the command contradicts what is already so
│   └── VersionConflict  somebody else was first (optimistic concurrency)
├── UndecodableEvent   stored bytes that are no event we know
├── Unauthenticated    no key, or not one of ours
├── Forbidden          a key of ours that may not do this
└── Unavailable        a part that is needed cannot answer now; nothing was done
    ├── LogUnavailable
    ├── GateUnavailable
    ├── NotReady
    ├── ViewBehind
    └── UpstreamFailed   a backend gave no whole answer
"""

from dataclasses import dataclass


class TollhouseError(Exception):
    """Root of every error Tollhouse raises on purpose."""

    code = "internal_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field of an input; `message` says what would be right."""

    field: str
    message: str


class Invalid(TollhouseError):
    """Bad input. `errors` names every bad field found."""

    code = "invalid_field"

    def __init__(self, *errors: FieldError, code: str | None = None) -> None:
        super().__init__("; ".join(f"{e.field}: {e.message}" for e in errors), code=code)
        self.errors = errors


def invalid(field: str, message: str) -> Invalid:
    """The common case of `Invalid`: one field."""
    return Invalid(FieldError(field, message))


class NotFound(TollhouseError):
    code = "not_found"


class Conflict(TollhouseError):
    code = "conflict"


class VersionConflict(Conflict):
    code = "version_conflict"


class UndecodableEvent(TollhouseError):
    code = "undecodable_event"


class Unauthenticated(TollhouseError):
    code = "invalid_api_key"


class Forbidden(TollhouseError):
    code = "forbidden"


class Unavailable(TollhouseError):
    code = "unavailable"


class LogUnavailable(Unavailable):
    code = "log_unavailable"


class GateUnavailable(Unavailable):
    code = "gate_unavailable"


class NotReady(Unavailable):
    code = "not_ready"


class ViewBehind(Unavailable):
    code = "view_behind"


class UpstreamFailed(Unavailable):
    """`sent`: the backend may have seen the request, so what it cost is unknown."""

    code = "upstream_error"

    def __init__(self, message: str, *, sent: bool, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.sent = sent
