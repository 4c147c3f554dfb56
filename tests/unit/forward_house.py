"""A forward without a product around it: a backend that answers as told, a log, and a caller."""

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from api.router.errors import RouterError
from api.router.exchange import Exchange
from api.router.faces.chat import ChatFace
from api.router.faces.face import Face
from api.router.failover import Failover
from api.router.forward import Forward
from api.router.heads import Heads
from api.router.ways import Way, Ways
from commands.admission import Admitted
from commands.backend_choice import BackendChoice
from commands.backend_states import BackendStates
from commands.fact_writer import FactWriter
from commands.gate import Granted
from commands.outcomes import Outcomes
from domain.errors import UpstreamFailed
from domain.facts import BudgetHold
from domain.pricing import Price
from domain.scope import Caller, PublishedModel, Target
from tests.factgen import MemoryLog
from tests.facts import facts_of
from tests.fakes import InstantLog

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PRICE = Price(version="m@1", input=10**6, output=10**6, cached_input=10**6, cache_write=10**6, reasoning=10**6)
CALLER = Caller("acme", "web", None, "key_1", 0, None, (), (), 402, None, None)
TARGET = Target("fake", "http://fake/v1", "openai", "sealed", 30.0, "up", 1, 0)
MODEL = PublishedModel("m", (TARGET,), max_output_tokens=50, context_tokens=1000, prices=(), bound_exceeded=False)
SEEN = tuple(
    BudgetHold(budget=name, bucket="b", until=None, limit=limit, limit_version=1, mode="hard", consumed=100, held=50)
    for name, limit in (("wide", 2000), ("tight", 1000))
)
REPORT = {"prompt_tokens": 7, "completion_tokens": 20}
ANSWER = json.dumps({"choices": [{"message": {"content": "hi"}}], "usage": REPORT}).encode()
CONTENT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":20}}\n\n'
DONE = b"data: [DONE]\n\n"


@dataclass
class Answered:
    """`UpstreamResponse`. Chunks that are errors are raised; after the last one comes the end, or nothing until `close`."""

    status: int = 200
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    chunks: list[bytes | UpstreamFailed] = field(default_factory=list)
    streamed: bool = False
    endless: bool = False
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def chunk(self) -> bytes:
        if not self.chunks and self.endless:
            await self.closed.wait()
            raise UpstreamFailed("the stream was closed", sent=True)
        data = self.chunks.pop(0) if self.chunks else b""
        if isinstance(data, UpstreamFailed):
            raise data
        return data

    def close(self) -> None:
        self.closed.set()


def stream(*chunks: bytes | UpstreamFailed, endless: bool = False) -> Answered:
    return Answered(chunks=list(chunks), streamed=True, endless=endless)


class House:
    """A forward between a backend that answers as told and a log; `out` is what left for the caller."""

    def __init__(self) -> None:
        self.topic = MemoryLog()
        self.log: Any = InstantLog(self.topic)
        self.out: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.sent: list[tuple[str, str, bytes, bytes, float]] = []
        self.answer: Answered | UpstreamFailed | asyncio.CancelledError = Answered()
        """The last: never, and that is what a call that is cancelled raises."""
        self.published = MODEL
        self.status = 0
        self.states = BackendStates()

    def capture(self, partition: int, attempt: str, actual: int, tokens: int | None = None) -> None:
        """The gate frees room."""

    async def exceeded(self, model: str, request: str, cost: int, hold: int) -> None:
        raise AssertionError("no cost here is above its hold")

    async def send(
        self,
        url: str,
        path: str,
        headers: bytes,
        body: bytes,
        timeout: float,
        first_byte: float | None = None,
        idle: float | None = None,
    ) -> Answered:
        self.sent.append((url, path, headers, body, timeout))
        if isinstance(self.answer, UpstreamFailed):
            raise self.answer
        if isinstance(self.answer, asyncio.CancelledError):
            try:
                await asyncio.Event().wait()
            finally:
                raise self.answer
        return self.answer

    version = 1

    def fresh(self, monotonic: float) -> bool:
        raise AssertionError("one backend: nothing is tried elsewhere")

    def model(self, name: str) -> PublishedModel | None:
        return self.published if name == "m" else None

    async def known(self, hashed: str | None) -> Caller:
        return CALLER

    async def again(self, attempt: str, caller: Caller, admitted: Admitted, way: Way) -> tuple[Admitted, Way]:
        raise RouterError("no_backend", "there is no other")

    async def longer(self, attempt: str, caller: Caller, admitted: Admitted, way: Way) -> tuple[Admitted, Way]:
        raise RouterError("model_not_found", "there is no other")

    async def chat(self, *, grant: int = 40, rates: Any = (), **asked: Any) -> None:
        fields = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **asked}
        await self.ask(ChatFace(), fields, grant, rates)

    async def ask(self, face: Face, fields: Any, grant: int = 40, rates: Any = (), hold: int = 500) -> None:
        request = face.parse(json.dumps(fields).encode(), lambda _: None)
        identity = {
            "request": "req_1", "attempt": "req_1", "org": "acme", "project": "web", "user": None, "key": "key_1",
            "model": "m", "endpoint": "chat", "stream": request.call.stream, "accounted_at": NOON, "price": "m@1",
            "hold": hold,
        }  # fmt: skip
        granted = Granted(hold, grant, SEEN, rates)
        admitted = Admitted("req_1", CALLER, request.call, PRICE, granted, 1, NOON, 0.0, grant < 40, identity)
        self.writer = writer = FactWriter(self.log, lambda: NOON, lambda prefix: f"{prefix}_x")
        outcomes = Outcomes(self, writer, self.exceeded)  # type: ignore[arg-type]  # a gate whose capture is used
        forward = Forward(self, outcomes, Heads(lambda sealed: f"th-{sealed}"))
        exchange = Exchange("req_1", {"headers": []}, self._receive, self._send)
        ways = Ways(BackendChoice(self.states))
        failover = Failover(forward, outcomes, ways, self, self, self.known)
        way = ways.first(self.published, request, self.version)
        await failover.carry(exchange, admitted, face, way)
        self.status = exchange.status

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.out.append(message)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.out[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.out[1:])

    def fact(self) -> Any:
        (found,) = facts_of(self.topic)
        return found
