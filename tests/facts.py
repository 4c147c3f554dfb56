"""Facts about one organization's requests, as short as a test wants to name them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from domain.envelope import Envelope, decode, encode
from domain.facts import (
    AttemptFact,
    BudgetHold,
    Fact,
    GateOpened,
    RequestAdmitted,
    RequestCompleted,
    RequestFailed,
    RequestUnconfirmed,
    RequestVoided,
    Usage,
)
from domain.registry import decode_event
from tests.factgen import MemoryLog

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ORG, HOLD, TIMEOUT = "acme", 100, timedelta(seconds=605)


def admitted(attempt: str, epoch: int = 0, **fields: Any) -> RequestAdmitted:
    """An open hold of `HOLD` in the lifetime budget ``cap``."""
    hold = BudgetHold(
        budget="cap", bucket="1.lifetime", until=None, limit=1000, limit_version=1, mode="hard", consumed=0, held=0
    )
    at = fields.pop("accounted_at", NOON)
    given: dict[str, Any] = {
        "request": attempt, "attempt": attempt, "org": ORG, "project": "web", "key": "key_1", "model": "m",
        "endpoint": "chat", "accounted_at": at, "price": "m@1", "hold": HOLD, "epoch": epoch, "deadline": at + TIMEOUT,
        "budgets": (hold,), "backend": "fake",
    }  # fmt: skip
    return RequestAdmitted(**(given | fields))


def completed(admission: RequestAdmitted, cost: int = 40) -> RequestCompleted:
    return RequestCompleted(**_identity(admission), usage=Usage(output=cost), cost=cost)


def unconfirmed(admission: RequestAdmitted) -> RequestUnconfirmed:
    return RequestUnconfirmed(**_identity(admission), reason="deadline")


def failed(admission: RequestAdmitted) -> RequestFailed:
    return RequestFailed(**_identity(admission), reason="not_dispatched")


def voided(admission: RequestAdmitted) -> RequestVoided:
    return RequestVoided(attempt=admission.attempt, org=ORG)


def opened(epoch: int, partition: int = 0) -> GateOpened:
    return GateOpened(partition=partition, epoch=epoch)


def body(fact: Fact) -> bytes:
    """A fact as it is stored."""
    return encode(
        Envelope(id="evt_x", type=type(fact).__name__, org=ORG, stream=f"{ORG}/request/x", occurred_at=NOON, data=fact)
    )


def log_of(*facts: Fact, partition: int = 0) -> MemoryLog:
    """A log whose partition holds `facts`."""
    topic = MemoryLog()
    for fact in facts:
        topic.append(partition, body(fact))
    return topic


def facts_of(topic: MemoryLog, partition: int = 0) -> list[Any]:
    return [decode_event(decode(record.value)) for record in topic.records[partition]]


def names_of(topic: MemoryLog, partition: int = 0) -> list[str]:
    """Type and attempt of each fact: ``Admitted req_1``."""
    found = facts_of(topic, partition)
    return [f"{type(f).__name__.removeprefix('Request')} {getattr(f, 'attempt', '')}".strip() for f in found]


def _identity(admission: RequestAdmitted) -> dict[str, Any]:
    return {name: getattr(admission, name) for name in AttemptFact.__struct_fields__}
