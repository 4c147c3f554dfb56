"""A stream that ends because the process ends is on the books for what was seen of it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from api.router.exchange import Exchange
from api.router.faces.chat import ChatFace, parse_chat
from api.router.forward import Forward
from api.router.heads import Heads
from api.router.ways import Ways
from commands.admission import Admitted
from commands.backend_choice import BackendChoice
from commands.backend_states import BackendStates
from commands.fact_writer import FactWriter
from commands.gate import Granted
from commands.outcomes import Outcomes
from domain.envelope import decode
from domain.facts import RequestCompleted
from domain.registry import decode_event
from tests.factgen import MemoryLog
from tests.fakes import InstantLog
from tests.unit.test_admission import MODEL, caller

BODY = b'{"model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
NOW = datetime(2026, 11, 23, tzinfo=UTC)


class EndlessStream:
    """Two events, then nothing more comes."""

    status, streamed, body = 200, True, b""
    headers: list[tuple[bytes, bytes]] = []  # noqa: RUF012  # never changed

    def __init__(self) -> None:
        self._events = [b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'] * 2

    async def chunk(self) -> bytes:
        if self._events:
            return self._events.pop()
        await asyncio.Event().wait()
        return b""

    def close(self) -> None:
        """Nothing to close."""

    async def send(self, *_: Any) -> "EndlessStream":
        return self


class NoGate:
    """Captures go nowhere."""

    def capture(self, partition: int, attempt: str, actual: int, tokens: int | None = None) -> None:
        self.captured = actual


async def no_report(*_: Any) -> None:
    """Nothing exceeds its bound here."""


async def test_what_was_seen_is_charged() -> None:
    """Two events, counted, flagged as an estimate and as abandoned; not the whole hold."""
    topic, gate, stream = MemoryLog(), NoGate(), EndlessStream()
    writer = FactWriter(InstantLog(topic), lambda: NOW, lambda prefix: f"{prefix}_x")
    forward = Forward(stream, Outcomes(gate, writer, no_report), Heads(str))  # type: ignore[arg-type]  # as much as is used
    request, key = parse_chat(BODY), caller()
    identity = {"request": "req_1", "attempt": "req_1", "org": "acme", "project": "web", "key": "key_1", "model": "m"}
    rest = {"endpoint": "chat", "stream": True, "accounted_at": NOW, "price": "m@1", "hold": 1000}
    granted = Granted(1000, 9, ())
    admitted = Admitted(
        "req_1", key, request.call, MODEL.price(NOW), granted, 1, NOW, 0.0, False, {**identity, **rest, "user": None}
    )
    seen = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            seen.set()

    exchange = Exchange("req_1", {"headers": []}, receive, send)
    way = Ways(BackendChoice(BackendStates())).first(MODEL, request, 1)
    task = asyncio.ensure_future(forward.carry(exchange, admitted, ChatFace(), way))
    await seen.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await writer.drain()
    (fact,) = [decode_event(decode(record.value)) for record in topic.records[0]]
    assert isinstance(fact, RequestCompleted)
    assert (fact.estimated, fact.abandoned, fact.usage.output) == (True, True, 2)
    assert 0 < fact.cost < 1000
