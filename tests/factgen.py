"""Synthetic facts: legal logs with every kind of end, repeated appends, late facts and gates opened anew. And a log in memory."""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from msgspec.structs import replace

from domain.envelope import Envelope, encode
from domain.facts import (
    AttemptFact,
    BudgetHold,
    Fact,
    GateOpened,
    RequestAdmitted,
    RequestCompleted,
    RequestDenied,
    RequestFailed,
    RequestUnconfirmed,
    RequestVoided,
    RequestWrittenOff,
    Try,
    Usage,
)
from domain.ids import PARTITIONS, made_id, partition_of, uuid7
from projections.ports import CONTROL, FACTS, Record

START = datetime(2026, 11, 2, 9, tzinfo=UTC)
ORGS = ("acme", "globex", "initech", "umbrella", "hooli")
MODELS = ("small", "large")

_F = TypeVar("_F", bound=AttemptFact)


class MemoryLog:
    """`LogReader` of a topic in memory; `append` adds a record and answers its offset."""

    def __init__(self, topic: str = FACTS) -> None:
        self.topic = topic
        self.partitions = 1 if topic == CONTROL else PARTITIONS
        self.records: list[list[Record]] = [[] for _ in range(self.partitions)]

    def append(self, partition: int, value: bytes, position: int = 0, previous: int = 0) -> int:
        kept = self.records[partition]
        kept.append(Record(partition, len(kept), value, position, previous))
        return len(kept) - 1

    def read(self, partition: int, offset: int, limit: int) -> Sequence[Record]:
        return self.records[partition][offset : offset + limit]

    def ends(self) -> Sequence[int]:
        return [len(kept) for kept in self.records]

    def wait(self, seen: Sequence[int], timeout: float) -> bool:
        return any(end > known for end, known in zip(self.ends(), seen, strict=True))

    def close(self) -> None:
        """Nothing is held open."""

    def all(self) -> list[Record]:
        """Every record, partition by partition."""
        return [record for kept in self.records for record in kept]


def envelope(fact: Fact, at: datetime, number: int) -> bytes:
    """`fact` as the gateway stores it."""
    org = "_" if isinstance(fact, GateOpened) else fact.org
    stream = f"{org}/gate/{fact.partition}" if isinstance(fact, GateOpened) else f"{org}/request/{_attempt(fact)}"
    id = made_id("evt", uuid7(int(at.timestamp() * 1000), number))
    return encode(
        Envelope(id=id, type=type(fact).__name__, org=org, stream=stream, occurred_at=at, actor="key_1", data=fact)
    )


def _attempt(fact: Any) -> str:
    return str(getattr(fact, "attempt", None) or fact.request)


class Traffic:
    """Writes the facts of one request after the other into a log, with everything that may happen to them."""

    def __init__(
        self, seed: int = 0, orgs: Sequence[str] = ORGS, step: timedelta = timedelta(milliseconds=150)
    ) -> None:
        self.random = random.Random(seed)
        self.log = MemoryLog()
        self.facts: list[tuple[int, int, Fact]] = []
        self.orgs, self.step, self.now = orgs, step, START
        self.epochs: dict[int, int] = {}
        self._number = 0
        self._late: list[tuple[int, Callable[[], None]]] = []

    def run(self, requests: int, plain: float = 0.5) -> "Traffic":
        """`requests` more; the share `plain` of them is admitted and completed, the others meet every other fate alike."""
        for partition in {partition_of(org) for org in self.orgs} - self.epochs.keys():
            self.open(partition)
        for number in range(requests):
            self.now += self.step * self.random.random() * 2
            self._request(self.random.choice(self.orgs), plain)
            while self._late and self._late[0][0] <= number:
                self._late.pop(0)[1]()
        for _, late in self._late:
            late()
        self._late.clear()
        return self

    def open(self, partition: int) -> None:
        """The gate of a partition was lost and is opened under the next epoch."""
        self.epochs[partition] = self.epochs.get(partition, 0) + 1
        self.append(partition, GateOpened(partition=partition, epoch=self.epochs[partition]))

    def append(self, partition: int, fact: Fact) -> None:
        self._number += 1
        offset = self.log.append(partition, envelope(fact, self.now, self._number))
        self.facts.append((partition, offset, fact))

    def later(self, action: Callable[[], None]) -> None:
        """Runs it among the facts of later requests."""
        self._late.append((self._number + self.random.randrange(1, 30), action))
        self._late.sort(key=lambda entry: entry[0])

    def _request(self, org: str, plain: float) -> None:
        partition, rng = partition_of(org), self.random
        admitted = self.admission(org, partition)
        if rng.random() < plain:
            self.append(partition, admitted)
            self.append(partition, self.completion(admitted))
            return
        self._fates()[rng.randrange(len(self._fates()))](partition, admitted)

    def _fates(self) -> Sequence[Callable[[int, RequestAdmitted], None]]:
        return (
            self._abandoned,
            self._refused,
            self._not_dispatched,
            self._repeated,
            self._unconfirmed,
            self._written_off,
            self._late_completion,
            self._voided,
            self._old_epoch,
            self._repeated_after_opening,
            self._denied,
        )

    def _abandoned(self, partition: int, admitted: RequestAdmitted) -> None:
        self.append(partition, admitted)

    def _refused(self, partition: int, admitted: RequestAdmitted) -> None:
        self.append(partition, admitted)
        self.append(partition, end(admitted, RequestFailed, reason="upstream_refused", status=400, backend="fake"))

    def _not_dispatched(self, partition: int, admitted: RequestAdmitted) -> None:
        failed = end(admitted, RequestFailed, reason="not_dispatched")
        self.append(partition, failed)
        self.later(lambda: self.append(partition, admitted))

    def _repeated(self, partition: int, admitted: RequestAdmitted) -> None:
        self.append(partition, admitted)
        self.append(partition, admitted)
        completed = self.completion(admitted)
        self.append(partition, completed)
        self.later(lambda: self.append(partition, completed))
        self.later(lambda: self.append(partition, admitted))

    def _unconfirmed(self, partition: int, admitted: RequestAdmitted) -> None:
        self.append(partition, admitted)
        where = (None, "fake", "spare")[admitted.hold % 3]
        unconfirmed = end(admitted, RequestUnconfirmed, reason="deadline", backend=where)
        self.append(partition, unconfirmed)
        self.later(lambda: self.append(partition, unconfirmed))

    def _written_off(self, partition: int, admitted: RequestAdmitted) -> None:
        self._unconfirmed(partition, admitted)
        self.append(partition, end(admitted, RequestWrittenOff, reason="agreed"))
        self.later(lambda: self.append(partition, self.completion(admitted)))

    def _late_completion(self, partition: int, admitted: RequestAdmitted) -> None:
        self._unconfirmed(partition, admitted)
        self.later(lambda: self.append(partition, self.completion(admitted)))

    def _voided(self, partition: int, admitted: RequestAdmitted) -> None:
        voided = RequestVoided(attempt=admitted.attempt, org=admitted.org)
        self.append(partition, voided)
        self.later(lambda: self.append(partition, admitted))
        self.later(lambda: self.append(partition, voided))

    def _old_epoch(self, partition: int, admitted: RequestAdmitted) -> None:
        self.open(partition)
        self.append(partition, admitted)

    def _repeated_after_opening(self, partition: int, admitted: RequestAdmitted) -> None:
        self.append(partition, admitted)
        self.open(partition)
        self.append(partition, admitted)
        self.later(lambda: self.append(partition, self.completion(admitted)))

    def _denied(self, partition: int, admitted: RequestAdmitted) -> None:
        denied = RequestDenied(
            request=admitted.request,
            org=admitted.org,
            project=admitted.project,
            user=admitted.user,
            key=admitted.key,
            model=admitted.model,
            endpoint=admitted.endpoint,
            accounted_at=admitted.accounted_at,
            status=402,
            code="insufficient_quota",
            reason="the budget is exhausted",
            budget="cap",
            budgets=admitted.budgets,
            worst=admitted.hold,
            count=self.random.randrange(1, 4),
            last=admitted.request,
        )
        self.append(partition, denied)
        self.later(lambda: self.append(partition, denied))

    def admission(self, org: str, partition: int) -> RequestAdmitted:
        """A request of `org` as the gate admits it now."""
        self._number += 1
        request = made_id("req", uuid7(int(self.now.timestamp() * 1000), self.random.getrandbits(74)))
        hold = self.random.randrange(1_000_000, 50_000_000)
        return RequestAdmitted(
            request=request,
            attempt=request,
            org=org,
            project=self.random.choice(("web", "batch")),
            user=self.random.choice((None, "ada")),
            key=f"key_{org}_{self.random.randrange(3)}",
            model=self.random.choice(MODELS),
            endpoint="chat",
            stream=self.random.random() < 0.5,
            accounted_at=self.now,
            price="small@1",
            hold=hold,
            epoch=self.epochs.get(partition, 0),
            deadline=self.now + timedelta(seconds=605),
            backend="fake",
            others=("spare",) if hold % 2 else (),
            grant=256,
            input_bound=900,
            once=f"once-{request}" if self.random.random() < 0.1 else None,
            budgets=tuple(
                BudgetHold(
                    budget=budget,
                    bucket=f"1/{bucket}",
                    until=until,
                    limit=5_000_000_000,
                    limit_version=1,
                    mode="hard",
                    consumed=123_456_789,
                    held=45_000_000,
                )
                for budget, bucket, until in (
                    ("cap", "lifetime", None),
                    ("daily", self.now.date().isoformat(), datetime(2026, 12, 1, tzinfo=UTC)),
                )
            ),
        )

    def completion(self, admitted: RequestAdmitted) -> RequestCompleted:
        """A served request: it cost less than its hold, but for a few."""
        rng = self.random
        fact = end(
            admitted,
            RequestCompleted,
            usage=Usage(input=rng.randrange(900), cached_input=rng.randrange(3), output=rng.randrange(256)),
            cost=rng.randrange(admitted.hold),
            backend="fake",
            tries=(Try(backend="fake", status=200, ms=12.5),),
            latency_ms=rng.randrange(1, 4000) / 2,
            first_token_ms=rng.randrange(1, 400) / 2 if admitted.stream else None,
            estimated=rng.random() < 0.05,
        )
        return fact if fact.cost % 7 else replace(fact, cost=admitted.hold + 1 + fact.cost, overrun=True)


def end(admitted: RequestAdmitted, shape: type[_F], **fields: Any) -> _F:
    """A later fact about the attempt of `admitted`, repeating its identity."""
    identity = {name: getattr(admitted, name) for name in AttemptFact.__struct_fields__}
    return shape(**identity, **fields)


def batches(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    """`records` cut into pieces of `size`."""
    return (records[i : i + size] for i in range(0, len(records), size))
