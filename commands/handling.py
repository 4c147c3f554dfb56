"""How every command is carried out: once per Idempotency-Key, against the versions it was decided on, and known to the
gateways before it is answered.

    1. The plan reads streams, decides, and composes the answer. It may run again: it must have no effect of its own.
    2. Events and ledger entry are appended in one transaction, if every stream read is still at the version read and the
       key was not used before.
    3. The answer waits until the relay has forwarded the last event.

A plan runs first on what this process knows of the streams, which may be of a moment ago: what it then appends rests on
the versions that are checked with the append, so it is as good as any. Whatever else comes of it (a refusal, a stream or
a key that is not as it was thought) says nothing, and it runs again, in a thread, on what the journal holds:

    4. A key used before answers what it answered then (`Conflict` if it was used for something else).
    5. What the plan raises now is the answer. Without an If-Match a lost race runs it again; commands of this process that
       lost a race for the same stream take turns at it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from commands.ports import Answer, Clock, Journal, LedgerEntry, Secrets, Streams
from commands.turns import Turns
from domain.envelope import Envelope, decode
from domain.errors import Conflict, TollhouseError, Unavailable, VersionConflict
from domain.ids import made_id, uuid7
from domain.registry import SCHEMAS, decide_stream, decode_event, evolve_stream

T = TypeVar("T")

RACES = 20
"""Times a command is decided again after somebody else was first."""


@dataclass(frozen=True, slots=True)
class Request:
    """How a command came. `actor` is an admin key id or ``system``; where there is a `key`, `fingerprint` stands for method,
    path and body;
    `if_match` is the version the caller has seen (0: none may exist, -1: any that exists)."""

    actor: str
    key: str | None = None
    fingerprint: str = ""
    dry_run: bool = False
    if_match: int | None = None
    correlation_id: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a plan answers. `sealed`: it contains a secret. `version` becomes the ETag."""

    body: bytes
    status: int = 200
    version: int | None = None
    sealed: bool = False


@dataclass(slots=True)
class _Stream:
    state: Any
    version: int


_Contested = Collection[str]
"""Not carried out, because somebody else may have been first: the streams it wanted to change, where that is known."""


class _Unanswered(Exception):
    """Somebody must be asked who may take his time."""


@dataclass(frozen=True, slots=True)
class Journaled:
    """`Streams` as the journal holds them. To be asked in a thread."""

    journal: Journal

    def known(self, org: str, kind: str, id: str) -> tuple[Any, int]:
        stored = self.journal.load(f"{org}/{kind}/{id}")
        state = None
        for body in stored:
            state = evolve_stream(kind, state, decode_event(decode(body)))
        return state, len(stored)


@dataclass(slots=True)
class Changes:
    """One run of a plan: the streams it has read, and the events it wants. `hurried`: it must not wait for anybody."""

    request: Request
    streams: Streams
    clock: Clock
    secrets: Secrets
    hurried: bool = False
    events: list[Envelope] = field(default_factory=list)
    expected: dict[str, int] = field(default_factory=dict)
    _read: dict[str, _Stream] = field(default_factory=dict)

    @property
    def wanted(self) -> frozenset[str]:
        """The streams that it has events for."""
        return frozenset(event.stream for event in self.events)

    def asked(self, question: Callable[[], T]) -> T:
        """What others than the journal answer to `question`, which may take its time."""
        if self.hurried:
            raise _Unanswered
        return question()

    def new_id(self, prefix: str) -> str:
        """A fresh id, sortable by time."""
        return made_id(prefix, uuid7(int(self.clock().timestamp() * 1000), self.secrets.lot(74)))

    def state(self, org: str, kind: str, id: str) -> Any:
        """The state of an aggregate, its events of this run included; None if it never was."""
        return self._stream(org, kind, id).state

    def version(self, org: str, kind: str, id: str) -> int:
        """The version of an aggregate after this run; 0: it never was."""
        return self._stream(org, kind, id).version

    def matched(self, org: str, kind: str, id: str) -> None:
        """Refuses the command (`VersionConflict`) if its If-Match is not this aggregate's version."""
        wanted, version = self.request.if_match, self._stream(org, kind, id).version
        if wanted is not None and wanted != version and not (wanted == -1 and version):
            raise VersionConflict(f"the version is {version}")

    def apply(self, org: str, kind: str, id: str, command: Any) -> Any:
        """Decides `command` and notes its events; answers the new state. Raises what `decide` raises."""
        name = f"{org}/{kind}/{id}"
        stream = self._stream(org, kind, id)
        for event in decide_stream(kind, command, stream.state):
            stream.state = evolve_stream(kind, stream.state, event)
            stream.version += 1
            self.events.append(self._envelope(org, name, stream.version, event))
        return stream.state

    def _stream(self, org: str, kind: str, id: str) -> _Stream:
        name = f"{org}/{kind}/{id}"
        found = self._read.get(name)
        if found is None:
            found = self._read[name] = _Stream(*self.streams.known(org, kind, id))
            self.expected[name] = found.version
        return found

    def _envelope(self, org: str, stream: str, version: int, event: msgspec.Struct) -> Envelope:
        return Envelope(
            id=self.new_id("evt"),
            type=type(event).__name__,
            schema=SCHEMAS[type(event).__name__],
            org=org,
            stream=stream,
            version=version,
            occurred_at=self.clock(),
            correlation_id=self.request.correlation_id,
            command_id=self.request.key,
            actor=self.request.actor,
            traceparent=self.request.traceparent,
            data=event,
        )


Plan = Callable[[Changes], Reply]


@dataclass(frozen=True, slots=True)
class Commands:
    """Carries out plans. `acknowledged` waits until everything up to a journal position has been forwarded. `streams`: what
    this process knows without asking the journal; None: nothing."""

    journal: Journal
    clock: Clock
    secrets: Secrets
    acknowledged: Callable[[int], Awaitable[None]]
    streams: Streams | None = None
    turns: Turns = field(default_factory=Turns)

    async def execute(self, request: Request, plan: Plan) -> Answer:
        """The answer of `plan`, carried out once. Raises what the plan raises, `VersionConflict`, `Conflict`
        (``idempotency_key_reused``, ``secret_not_repeatable``) and `Unavailable`; after `LogUnavailable` the command is
        recorded, and its repetition answers."""
        answer = await self._carried_out(request, plan)
        if not request.dry_run:
            await self.acknowledged(answer.position)
        return answer

    async def _carried_out(self, request: Request, plan: Plan) -> Answer:
        found = await self._at_first_sight(request, plan)
        for _ in range(RACES):
            if isinstance(found, Answer):
                return found
            async with self.turns.at(found):
                found = await self._considered(request, plan)
        if isinstance(found, Answer):
            return found
        raise VersionConflict("others kept changing the same; try again")

    async def _at_first_sight(self, request: Request, plan: Plan) -> Answer | _Contested:
        """What this process knows may not be enough, or of the past."""
        if self.streams is None or request.dry_run:
            return ()
        changes = Changes(request, self.streams, self.clock, self.secrets, hurried=True)
        try:
            return await self._appended(changes, plan(changes))
        except Unavailable:
            raise
        except (TollhouseError, _Unanswered):
            return changes.wanted

    async def _considered(self, request: Request, plan: Plan) -> Answer | _Contested:
        changes = Changes(request, Journaled(self.journal), self.clock, self.secrets)
        found = await asyncio.to_thread(self._decided, changes, plan)
        if isinstance(found, Answer):
            return found
        try:
            return await self._appended(changes, found)
        except VersionConflict:
            if request.if_match is not None:
                raise
        except Conflict as error:
            if error.code != "command_id_taken":
                raise
        return changes.wanted

    def _decided(self, changes: Changes, plan: Plan) -> Reply | Answer:
        """What the plan replies, or what there is to answer without an append."""
        request = changes.request
        if request.key is not None and (known := self.journal.answered(request.actor, request.key)) is not None:
            return _repeated(known, request.fingerprint)
        reply = plan(changes)
        if request.dry_run:
            return Answer(200, msgspec.json.encode({"events": changes.events}), 0)
        return reply

    async def _appended(self, changes: Changes, reply: Reply) -> Answer:
        request, etag = changes.request, None if reply.version is None else f'"{reply.version}"'
        answer = Answer(reply.status, reply.body, 0, etag, reply.sealed)
        ledger = None if request.key is None else (request.actor, request.key, LedgerEntry(request.fingerprint, answer))
        position = await self.journal.appended(changes.events, changes.expected, ledger)
        return msgspec.structs.replace(answer, position=position)


def _repeated(entry: LedgerEntry, fingerprint: str) -> Answer:
    if entry.fingerprint != fingerprint:
        raise Conflict("this Idempotency-Key was used for another request", code="idempotency_key_reused")
    if entry.answer is None:
        raise Conflict(
            "the first answer held a secret and is no longer kept; if the secret is lost, rotate or issue a new key",
            code="secret_not_repeatable",
        )
    return entry.answer
