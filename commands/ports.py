"""What the use cases need from outside, as they would say it. Adapters live in `infra.adapters`; suites in `tests/contract`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from domain.envelope import Envelope
from domain.fold import Books

Clock = Callable[[], datetime]
"""The time now, UTC, timezone-aware."""


# ---------------------------------------------------------------- control plane


class Stored(Struct, frozen=True):
    """One control event as the journal holds it: `position` grows in commit order, with holes; `body` is the envelope."""

    position: int
    body: bytes


class Answer(Struct, frozen=True):
    """What a command answered: kept in the ledger, so that the same Idempotency-Key answers the same bytes.

    `sealed` bodies contain a secret: the ledger keeps them encrypted and forgets them after 24 hours.
    """

    status: int
    body: bytes
    position: int
    etag: str | None = None
    sealed: bool = False


class LedgerEntry(Struct, frozen=True):
    """Idempotency of commands: (actor, key) was used for a request with this fingerprint and answered this.

    `answer` is None when the answer held a secret and is no longer kept.
    """

    fingerprint: str
    answer: Answer | None


class CommandRow(Struct, frozen=True, kw_only=True):
    """A command in the ledger. `at` is unix seconds; `body` is ciphertext if `sealed`, None once erased."""

    actor: str
    key: str
    fingerprint: str
    at: int
    status: int
    position: int
    etag: str | None
    sealed: bool
    body: bytes | None


class Journal(Protocol):
    """The record of control events. Call what is synchronous in a thread."""

    def load(self, stream: str) -> Sequence[bytes]:
        """The envelopes of one stream, in order; empty if it never was."""

    async def appended(
        self, events: Sequence[Envelope], expected: Mapping[str, int], ledger: tuple[str, str, LedgerEntry] | None
    ) -> int:
        """Appends all of `events` or none, in one transaction with the ledger entry (actor, key, entry).

        `expected` is the version each stream must be at (0: new), also of streams that get no event. Answers the position
        of the last event, which is the kept answer's position too; with no events, the end of the journal.
        Raises `Conflict(code="command_id_taken")` if the ledger has the key, else `VersionConflict`.
        """

    def answered(self, actor: str, key: str) -> LedgerEntry | None:
        """The ledger entry of a command that was carried out."""


class Streams(Protocol):
    """States of streams, as somebody knows them."""

    def known(self, org: str, kind: str, id: str) -> tuple[Any, int]:
        """State and version as they are or once were; (None, 0): it never was, as far as is known here."""


class Feed(Protocol):
    """What was committed to the journal, in commit order."""

    def after(self, position: int, limit: int) -> Sequence[Stored]:
        """Committed events beyond `position`, at most `limit`; never passes one that may still commit before another."""


class Lease(Protocol):
    """A right that one holder at a time has, until it expires by one clock that all holders share. Synchronous.

    It keeps work from being done twice; it does not fence: a holder that stood still may go on for a moment after another
    one took over, so what it does must be harmless then.
    """

    seconds: float
    """How long it lasts after `hold`, counted from before the call."""

    def hold(self) -> bool:
        """Takes the lease, or renews it. False: another one has it. Raises `Unavailable`: it may or may not be held."""

    def release(self) -> None:
        """Gives it up, if it is held: another one may take it at once. Raises `Unavailable`."""


class Secrets(Protocol):
    """Randomness, keyed hashes and encryption under the installation's secret."""

    def random(self, bits: int) -> int:
        """An unpredictable number of at most `bits` bits."""

    def lot(self, bits: int) -> int:
        """A number of at most `bits` bits, as good as never drawn before. It can be predicted, and costs little."""

    def hash(self, key: str) -> str:
        """The keyed hash of a key (hex): equal keys, equal hashes; useless without the secret."""

    def seal(self, plain: str) -> str:
        """Ciphertext of a backend credential, different each time."""

    def unseal(self, sealed: str) -> str:
        """The credential. Raises `Unavailable` (``wrong_secret``)."""


class Entry(Struct, frozen=True):
    """An aggregate as the directory lists it. `created` grows in order of creation; `state` is the aggregate's."""

    org: str
    kind: str
    id: str
    version: int
    created: int
    state: Any


class Directory(Protocol):
    """What there is, as of every command answered so far. Synchronous; call it in a thread, but for `admin_at_hand`."""

    def get(self, org: str, kind: str, id: str) -> Entry | None:
        """One aggregate; None if it never was or is removed."""

    def list(self, org: str | None, kind: str, after: int, limit: int) -> Sequence[Entry]:
        """Aggregates that are not removed, in order of creation, created after `after`; `org` None: of all of them."""

    def admin(self, key_hash: str) -> Entry | None:
        """The admin key with this keyed hash, unless revoked."""

    def admin_at_hand(self, key_hash: str) -> Entry | None:
        """The same where it is known without waiting for anybody; None says nothing."""


class ControlLog(Protocol):
    """The control topic, written by the relay only."""

    async def tail(self) -> int:
        """The position of the last chained record in the topic, 0 if there is none."""

    async def forward(self, previous: int, events: Sequence[Stored]) -> None:
        """Appends `events`, each chained to the one before (the first to `previous`). Raises `LogUnavailable`: stop then."""


# ---------------------------------------------------------------- data plane


class FactLog(Protocol):
    """The facts topic, as the gateway writes it."""

    def append(self, partition: int, body: bytes) -> Awaitable[int]:
        """Begins to append at once (order of calls is order in the partition); the awaited answer is the offset, durable.

        Raises `LogUnavailable` when awaited; the record may or may not be in the log then.
        """


class FactRecord(Protocol):
    """One record of the facts topic."""

    @property
    def offset(self) -> int: ...

    @property
    def value(self) -> bytes: ...


class FactReader(Protocol):
    """Reads the facts topic. Synchronous."""

    def read(self, partition: int, offset: int, limit: int) -> Sequence[FactRecord]:
        """Records from `offset` on, about `limit` at most; empty at the end."""


class UpstreamResponse(Protocol):
    """A backend's answer. Plain answers are complete (`body`); event streams (`streamed`) are read chunk by chunk."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    streamed: bool

    async def chunk(self) -> bytes:
        """The bytes that came since the last call, as they came; empty at the end. Raises as `Upstream.send` does."""

    def close(self) -> None:
        """Ends a stream that nobody reads any more; the connection goes with it."""


class NotSent(asyncio.CancelledError):
    """A call of `Upstream.send` was cancelled before its backend could see anything of it."""


class Upstream(Protocol):
    """Model backends."""

    async def send(
        self,
        url: str,
        path: str,
        headers: bytes,
        body: bytes,
        timeout: float,
        first_byte: float | None = None,
        idle: float | None = None,
    ) -> UpstreamResponse:
        """POSTs `body` to base `url` + `path` with `headers` (raw lines, each ended by CR LF).

        `timeout` seconds bound the whole exchange, `first_byte` the wait for the first byte of the answer's body, `idle` that for
        each further one, while they are taken. Raises `UpstreamFailed`; its `sent` says whether the backend may have seen it.
        A call that is cancelled raises `NotSent` if it surely has not; else its connection is ended, so that the backend knows.
        """


@dataclass(frozen=True, slots=True)
class Overdue:
    """An attempt that somebody has to end, as `Balances` knows it: the stored admission, to be repeated in the fact."""

    partition: int
    attempt: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Overrun:
    """An attempt of a model that cost more than its hold (nano-dollars): the bound was wrong."""

    model: str
    request: str
    attempt: str
    cost: int
    hold: int


@dataclass(frozen=True, slots=True)
class PartitionBalances:
    """A partition's books at `watermark` (the next offset): buckets, attempts open or unconfirmed, ended ids, used once-keys.

    `admissions`: the stored admission of each attempt that is open. `parked`: facts that the view has passed but not taken in,
    in order, each with the epoch that was in force where it stands.
    """

    watermark: int
    books: Books = field(default_factory=Books)
    admissions: Mapping[str, bytes] = field(default_factory=dict)
    parked: Sequence[tuple[int, bytes]] = ()


class Balances(Protocol):
    """Open and unconfirmed holds, from the balances view. Synchronous; call it in a thread."""

    def watermarks(self) -> Mapping[int, int]:
        """The next offset of each partition that the view has begun."""

    def partition(self, partition: int) -> PartitionBalances:
        """Everything the gate needs of one partition, in one snapshot."""

    def overdue(self, now: datetime) -> Sequence[Overdue]:
        """Open attempts whose deadline is before `now`."""

    def unconfirmed(self, org: str | None = None) -> Sequence[Overdue]:
        """Unconfirmed attempts, of one organization or of all."""

    def awaiting(self, attempts: Sequence[str]) -> Sequence[Overdue]:
        """Those of `attempts` that are unconfirmed."""

    def overruns(self) -> Sequence[Overrun]:
        """Of each model the last overrun in each partition."""
