"""Write-offs: an admin gives up on confirming an attempt. One stream per attempt; the keeper turns the order into a fact."""

from msgspec import Struct

from domain.errors import invalid
from domain.inputs import reason_text

KIND = "write-off"


# ---------------------------------------------------------------- events: stored format


class RequestWriteOffOrdered(Struct, frozen=True, kw_only=True):
    request: str
    attempt: str
    reason: str


Event = RequestWriteOffOrdered

EVENTS: tuple[type[Struct], ...] = (RequestWriteOffOrdered,)


# ---------------------------------------------------------------- state


class WriteOff(Struct, frozen=True, kw_only=True):
    request: str
    attempt: str
    reason: str

    @property
    def removed(self) -> bool:
        return False


def evolve(_state: WriteOff | None, event: Event) -> WriteOff | None:
    """The state after `event`."""
    return WriteOff(request=event.request, attempt=event.attempt, reason=event.reason)


# ---------------------------------------------------------------- commands and decisions


class OrderWriteOff(Struct, frozen=True, kw_only=True):
    request: str
    attempt: str
    reason: str


Command = OrderWriteOff


def decide(command: Command, state: WriteOff | None) -> list[Event]:
    """The order; none if it was given before. Raises `Invalid` without a reason."""
    if state is not None:
        return []
    reason = reason_text(command.reason)
    if not reason or not reason.strip():
        raise invalid("reason", "must say why the hold is given up")
    return [RequestWriteOffOrdered(request=command.request, attempt=command.attempt, reason=reason)]
