"""Failing over: what surely cost nothing is tried again under the same hold, what nobody knows is an attempt by itself."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from api.router.errors import RouterError
from api.router.exchange import Exchange
from api.router.faces.chat import ChatFace, parse_chat
from api.router.failover import MOST_ATTEMPTS, Failover
from api.router.forward import Forward
from api.router.heads import Heads
from api.router.ways import Way, Ways
from commands.admission import Admitted, Denied
from commands.backend_choice import BackendChoice, name_of
from commands.backend_states import BackendStates
from commands.fact_writer import FactWriter
from commands.gate import Granted
from commands.outcomes import Outcomes
from domain.errors import NotReady, UpstreamFailed
from domain.facts import RequestFailed, RequestUnconfirmed
from domain.scope import Caller, PublishedModel, Target
from tests.factgen import MemoryLog
from tests.facts import facts_of
from tests.fakes import InstantLog
from tests.unit.forward_house import ANSWER, CALLER, CONTENT, DONE, NOON, PRICE, Answered, stream

REFUSED = UpstreamFailed("cannot connect", sent=False)
DROPPED = UpstreamFailed("the backend closed the connection", sent=True)
STALLED = UpstreamFailed("the backend did not finish in time", sent=True, code="upstream_timeout")
FAILED = b'event: error\ndata: {"type":"error","code":"server_error","message":"overloaded"}\n\n'
BROKEN = b'data: {"error":{"message":"overloaded"}}\n\n'


def target(backend: str) -> Target:
    return Target(backend, f"http://{backend}/v1", "openai", None, 30.0, "up", 1, ord(backend))


def model(backends: str) -> PublishedModel:
    """One tier for each letter, in order."""
    targets = tuple(target(backend) for backend in backends)
    return PublishedModel("m", targets, max_output_tokens=50, context_tokens=1000, prices=(), bound_exceeded=False)


class House:
    """Backends ``a``, ``b``, ``c`` and so on, asked in this order, that answer as told."""

    def __init__(self, **answers: Answered | UpstreamFailed) -> None:
        self.answers = answers
        self.topic = MemoryLog()
        self.sent: list[tuple[str, str]] = []
        self.out: list[dict[str, Any]] = []
        self.captured: list[tuple[str, int]] = []
        self.version = 1
        self.is_fresh = True
        self.denies: Exception | None = None
        self.long: PublishedModel | None = None
        """The model for requests that are too long."""
        self.before_send: Callable[[], None] = lambda: None
        self.now = model("".join(answers))
        """The model as the view has it by now."""
        writer = FactWriter(InstantLog(self.topic), lambda: NOON, lambda prefix: f"{prefix}_x")
        self._outcomes = Outcomes(self, writer, self._exceeded)  # type: ignore[arg-type]  # a gate whose capture is used
        self._ways = Ways(BackendChoice(BackendStates()))
        forward = Forward(self, self._outcomes, Heads(str))
        self._failover = Failover(forward, self._outcomes, self._ways, self, self, self._known)

    async def chat(self, **fields: Any) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
        way = self._ways.first(self.now, parse_chat(json.dumps(body).encode()), self.version)
        exchange = Exchange("req_1", {"headers": []}, self._receive, self._send)
        admitted = self._admitted("req_1", way)
        self.before_send()
        await self._failover.carry(exchange, admitted, ChatFace(), way, "hash")

    async def refused(self, **fields: Any) -> RouterError:
        with pytest.raises(RouterError) as error:
            await self.chat(**fields)
        return error.value

    def story(self) -> list[tuple[str, str, list[tuple[str, int, str | None]]]]:
        """Of each fact what it is, its attempt, and the tries on it: backend, status, error."""
        return [
            (type(f).__name__, f.attempt, [(t.backend, t.status, t.error) for t in f.tries])
            for f in facts_of(self.topic)
        ]

    @property
    def status(self) -> int:
        return int(self.out[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.out[1:])

    # -- what it stands on

    def fresh(self, monotonic: float) -> bool:
        return self.is_fresh

    def model(self, name: str) -> PublishedModel | None:
        return self.now if name == "m" else None

    def capture(self, partition: int, attempt: str, actual: int, tokens: int | None = None) -> None:
        self.captured.append((attempt, actual))

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
        backend = url.removeprefix("http://")[0]
        self.sent.append((backend, headers.partition(b"x-request-id: ")[2].decode().strip()))
        answer = self.answers[backend]
        if isinstance(answer, UpstreamFailed):
            raise answer
        return answer

    def _admitted(self, attempt: str, way: Way) -> Admitted:
        identity = {
            "request": "req_1", "attempt": attempt, "org": "acme", "project": "web", "user": None, "key": "key_1",
            "model": "m", "endpoint": "chat", "stream": False, "accounted_at": NOON, "price": "m@1", "hold": 500,
        }  # fmt: skip
        first = way.target.backend
        granted, backends = Granted(500, 40, ()), (first, *way.model.others(first))
        return Admitted(
            "req_1", CALLER, way.asked.call, PRICE, granted, 1, NOON, time.monotonic(), False, identity, backends
        )

    async def _known(self, hashed: str | None) -> Caller:
        assert hashed == "hash"
        if isinstance(self.denies, NotReady):
            raise self.denies
        return CALLER

    async def longer(self, attempt: str, caller: Caller, admitted: Admitted, way: Way) -> tuple[Admitted, Way]:
        if self.long is None:
            raise RouterError("model_not_found", "there is none")
        other = self._ways.first(self.long, way.asked, self.version)
        return self._admitted(attempt, other), other

    async def again(self, attempt: str, caller: Caller, admitted: Admitted, way: Way) -> tuple[Admitted, Way]:
        if self.denies is not None:
            raise self.denies
        other = self._ways.first(self.now, way.asked, self.version, (*way.tried, name_of(way.target)))
        return self._admitted(attempt, other), other

    async def _exceeded(self, model: str, request: str, cost: int, hold: int) -> None:
        raise AssertionError("no cost here is above its hold")

    async def _receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.out.append(message)


def served() -> Answered:
    return Answered(body=ANSWER)


# -- what surely cost nothing


@pytest.mark.parametrize(
    ("failure", "tried"),
    [
        (REFUSED, ("a", 0, "upstream_error")),
        *((Answered(status=status), ("a", status, None)) for status in (401, 402, 403, 404, 429, 500, 503)),
    ],
    ids=lambda value: str(value[1] or value[2]) if isinstance(value, tuple) else "",
)
async def test_what_cost_nothing_is_tried_elsewhere_under_the_same_hold(
    failure: Answered | UpstreamFailed, tried: tuple[str, int, str | None]
) -> None:
    """One attempt, one fact, both tries on it, in order; the caller sees the one that answered."""
    house = House(a=failure, b=served())
    await house.chat()
    assert house.story() == [("RequestCompleted", "req_1", [tried, ("b", 200, None)])]
    assert house.sent == [("a", "req_1"), ("b", "req_1")]
    assert dict(house.out[0]["headers"])[b"x-tollhouse-backend"] == b"b"


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_is_the_callers_own_fault_is_tried_nowhere_else(status: int) -> None:
    """It would fare no better there."""
    house = House(a=Answered(status=status, body=b'{"error":{}}'), b=served())
    await house.chat()
    assert (house.status, house.body, house.sent) == (status, b'{"error":{}}', [("a", "req_1")])
    assert house.story() == [("RequestFailed", "req_1", [("a", status, None)])]


async def test_where_none_is_left_the_last_one_is_the_answer() -> None:
    """A refusal of the caller's is passed on, whatever came before; all tries are on the one fact."""
    house = House(a=REFUSED, b=Answered(status=500), c=Answered(status=429, body=b"slow down"))
    await house.chat()
    assert (house.status, house.body) == (429, b"slow down")
    tries = [("a", 0, "upstream_error"), ("b", 500, None), ("c", 429, None)]
    assert house.story() == [("RequestFailed", "req_1", tries)]
    assert house.captured == [("req_1", 0)]
    down = House(a=Answered(status=429), b=REFUSED)
    assert (await down.refused()).code == "upstream_error"
    (fact,) = facts_of(down.topic)
    assert (fact.reason, fact.backend, fact.status) == ("upstream_refused", "b", 0)


async def test_nothing_goes_where_the_admission_does_not_name() -> None:
    """A backend that the model got since then is none that the books would ask about."""
    house = House(a=REFUSED, b=REFUSED, c=served())
    house.now = model("ab")

    def grow() -> None:
        house.now = model("abc")

    house.before_send = grow
    await house.refused()
    assert [backend for backend, _ in house.sent] == ["a", "b"]


@pytest.mark.parametrize("what", ["killed", "stale"])
async def test_nothing_goes_elsewhere_by_an_old_view(what: str) -> None:
    """A backend that was killed since then, or by a view that may not know of it."""
    house = House(a=REFUSED, b=served())

    def change() -> None:
        house.is_fresh = what != "stale"
        house.now = model("a" if what == "killed" else "ab")

    house.before_send = change
    await house.refused()
    assert house.sent == [("a", "req_1")]


async def test_a_backend_killed_between_admission_and_dispatch_gets_nothing() -> None:
    """The next one does; without one nothing was dispatched, and the fact says so."""
    house = House(a=served(), b=served())

    def kill() -> None:
        house.version, house.now = 2, model("b")

    house.before_send = kill
    await house.chat()
    assert house.sent == [("b", "req_1")]
    alone = House(a=served())

    def kill_it() -> None:
        alone.version, alone.now = 2, model("")

    alone.before_send = kill_it
    assert (await alone.refused()).code == "no_backend"
    assert (alone.sent, facts_of(alone.topic)[0].reason) == ([], "not_dispatched")


LONG_WORDS = [
    b'{"error":{"message":"too long","code":"context_length_exceeded"}}',
    b'{"error":{"message":"This model\'s maximum context length is 8192 tokens."}}',
    b'{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 200001 tokens"}}',
]


@pytest.mark.parametrize("words", LONG_WORDS)
async def test_a_request_that_is_too_long_is_an_attempt_with_the_model_that_takes_it(words: bytes) -> None:
    """The first one cost nothing; where there is no such model, or that one says the same, its refusal is passed on."""
    house = House(a=Answered(status=400, body=words), b=served())
    house.now, house.long = model("a"), model("b")
    await house.chat()
    assert [story[:2] for story in house.story()] == [("RequestFailed", "req_1"), ("RequestCompleted", "req_1.2")]
    assert house.sent == [("a", "req_1"), ("b", "req_1.2")]
    alone = House(a=Answered(status=400, body=words))
    await alone.chat()
    assert (alone.status, alone.body, len(alone.story())) == (400, words, 1)


async def test_what_is_wrong_otherwise_is_not_too_long() -> None:
    """No other model is asked."""
    house = House(a=Answered(status=400, body=b'{"error":{"message":"temperature must be a number"}}'))
    house.long = model("b")
    await house.chat()
    assert (house.status, len(house.story())) == (400, 1)


# -- what nobody knows the cost of


@pytest.mark.parametrize("failure", [DROPPED, STALLED, Answered(status=502), Answered(status=504)], ids=str)
async def test_what_nobody_knows_is_booked_and_the_next_is_an_attempt_of_its_own(
    failure: Answered | UpstreamFailed,
) -> None:
    """Unconfirmed with its whole hold, before the second attempt; the backend sees that one's id."""
    house = House(a=failure, b=served())
    await house.chat()
    (first, attempt, _), (second, later, tries) = house.story()
    assert (first, attempt, second, later) == ("RequestUnconfirmed", "req_1", "RequestCompleted", "req_1.2")
    assert tries == [("b", 200, None)]
    assert house.sent == [("a", "req_1"), ("b", "req_1.2")]
    assert house.captured == [("req_1", 500), ("req_1.2", 27)]
    assert {fact.request for fact in facts_of(house.topic)} == {"req_1"}


async def test_both_kinds_in_one_request() -> None:
    """The hold that was kept goes on; the one that is unconfirmed does not."""
    house = House(a=REFUSED, b=DROPPED, c=REFUSED, d=served())
    await house.chat()
    assert house.story() == [
        ("RequestUnconfirmed", "req_1", [("a", 0, "upstream_error"), ("b", 0, "upstream_error")]),
        ("RequestCompleted", "req_1.2", [("c", 0, "upstream_error"), ("d", 200, None)]),
    ]
    assert facts_of(house.topic)[0].backend == "b"


@pytest.mark.parametrize(
    "denied", [Denied("insufficient_quota", "exhausted"), RouterError("no_backend", "none"), NotReady("stale")]
)
async def test_a_second_attempt_may_be_refused(denied: Exception) -> None:
    """The caller hears what became of the first: what the second was refused for is not what it asked about."""
    house = House(a=STALLED, b=served())
    house.denies = denied
    assert (await house.refused()).code == "upstream_timeout"
    assert house.sent == [("a", "req_1")]
    assert [type(fact) for fact in facts_of(house.topic)] == [RequestUnconfirmed]


async def test_holds_of_one_request_that_stay_unconfirmed_are_few() -> None:
    """However many backends there are."""
    house = House(a=DROPPED, b=DROPPED, c=DROPPED, d=DROPPED, e=DROPPED)
    await house.refused()
    assert len(house.story()) == MOST_ATTEMPTS == 3


# -- streams


@pytest.mark.parametrize(
    "broken",
    [(DROPPED,), (STALLED,), (), (BROKEN,), (BROKEN + DONE,), (FAILED,)],
    ids=["dropped", "stalled", "empty", "error", "error and end", "error by its type"],
)
async def test_a_stream_that_breaks_before_its_first_byte_is_tried_elsewhere(
    broken: tuple[bytes | UpstreamFailed, ...],
) -> None:
    """The caller has seen nothing of it, not even its head; what it cost nobody knows."""
    house = House(a=stream(*broken), b=stream(CONTENT, DONE))
    await house.chat(stream=True)
    assert [story[:2] for story in house.story()] == [("RequestUnconfirmed", "req_1"), ("RequestCompleted", "req_1.2")]
    assert (house.status, house.body) == (200, CONTENT + DONE)
    assert sum(message["type"] == "http.response.start" for message in house.out) == 1


async def test_a_stream_that_breaks_after_its_first_byte_is_not() -> None:
    """It ends with the error, and nothing is asked elsewhere."""
    house = House(a=stream(CONTENT, DROPPED), b=stream(CONTENT, DONE))
    await house.chat(stream=True)
    assert [story[:2] for story in house.story()] == [("RequestUnconfirmed", "req_1")]
    assert house.body.startswith(CONTENT + b'data: {"error"')


async def test_a_stream_that_never_begins_anywhere_is_an_error_with_a_status() -> None:
    """Not a stream that holds one."""
    house = House(a=stream(BROKEN), b=stream())
    assert (await house.refused(stream=True)).code == "upstream_error"
    assert (house.out, len(house.story())) == ([], 2)


async def test_a_plain_refusal_of_a_stream_is_tried_elsewhere_too() -> None:
    """It surely cost nothing."""
    house = House(a=Answered(status=503), b=stream(CONTENT, DONE))
    await house.chat(stream=True)
    assert house.story() == [("RequestCompleted", "req_1", [("a", 503, None), ("b", 200, None)])]
    assert not any(isinstance(fact, RequestFailed) for fact in facts_of(house.topic))
