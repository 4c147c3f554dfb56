"""Ordering the write-off of unconfirmed requests."""

from msgspec import Struct

from commands.handling import Changes
from commands.ports import Balances
from commands.rules import open_organization
from domain import write_off
from domain.errors import Conflict
from domain.write_off import OrderWriteOff


class WriteOffOrder(Struct, frozen=True):
    """What was ordered; `attempts` are those whose hold will be released."""

    request: str
    attempts: tuple[str, ...]
    reason: str


def order_write_off(changes: Changes, balances: Balances, org: str, id: str, reason: str) -> WriteOffOrder:
    """Orders it for every unconfirmed attempt of request `id`, or for the one attempt `id`.

    Raises `Conflict` (``not_unconfirmed``) if there is none, as far as the balances know.
    """
    open_organization(changes, org)
    if changes.state(org, write_off.KIND, id) is not None:
        attempts: tuple[str, ...] = (id,)
    else:
        unconfirmed = changes.asked(lambda: _unconfirmed(balances, org))
        attempts = tuple(attempt for request, attempt in unconfirmed if id in (request, attempt))
    if not attempts:
        raise Conflict("no attempt of this request is unconfirmed", code="not_unconfirmed")
    for attempt in attempts:
        order = OrderWriteOff(request=attempt.partition(".")[0], attempt=attempt, reason=reason)
        changes.apply(org, write_off.KIND, attempt, order)
    return WriteOffOrder(attempts[0].partition(".")[0], attempts, reason)


def _unconfirmed(balances: Balances, org: str) -> list[tuple[str, str]]:
    attempts = (overdue.attempt for overdue in balances.unconfirmed(org))
    return [(attempt.partition(".")[0], attempt) for attempt in attempts]
