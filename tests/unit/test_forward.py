"""Forwarding: what a backend answers is on the books before its last byte leaves, and so is what went wrong."""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace

import pytest

from api.router import streaming
from api.router.errors import RouterError
from api.router.faces.embeddings import EmbeddingsFace
from api.router.faces.responses import ResponsesFace
from api.router.heads import Heads
from commands.gate import RateClaim
from domain.errors import UpstreamFailed
from domain.facts import RequestCompleted, RequestFailed, RequestUnconfirmed, Usage
from tests.fakes import FlightLog
from tests.golden.corpus import stream as recorded
from tests.unit.forward_house import (
    ANSWER,
    CONTENT,
    DONE,
    MODEL,
    TARGET,
    USAGE,
    Answered,
    House,
    stream,
)
from tests.waiting import PATIENCE, until


@pytest.fixture
async def house() -> House:
    return House()


# -- plain answers


async def test_an_answer_is_booked_and_passed_on_as_it_came(house: House) -> None:
    """With what it cost, where that is written, and what the tightest budget has left."""
    house.answer = Answered(body=ANSWER, headers=[(b"openai-version", b"1"), (b"server", b"x"), (b"set-cookie", b"y")])
    await house.chat()
    fact = house.fact()
    assert isinstance(fact, RequestCompleted)
    assert (fact.usage, fact.cost, fact.estimated, fact.tries[0].status) == (Usage(input=7, output=20), 27, False, 200)
    assert (house.out[0]["status"], house.body) == (200, ANSWER)
    shown = {name: value for name, value in house.headers.items() if name.startswith((b"x-", b"openai", b"s"))}
    assert shown == {
        b"x-request-id": b"req_1", b"x-tollhouse-backend": b"fake", b"x-tollhouse-cost-usd": b"0.000000027",
        b"x-tollhouse-position": b"f0.0", b"x-tollhouse-budget-remaining-usd": b"0.000000823", b"openai-version": b"1",
    }  # fmt: skip


@pytest.mark.parametrize("asked", [{}, {"stream": True}])
@pytest.mark.parametrize("status", [200, 429])
async def test_whose_account_at_the_provider_it_is_stays_here(
    house: House, asked: dict[str, bool], status: int
) -> None:
    """Callers are tenants of the installation, not of the account that it has there."""
    account = [(b"openai-organization", b"our-company"), (b"openai-project", b"proj_1")]
    told = [*account, (b"openai-version", b"1"), (b"x-ratelimit-remaining-requests", b"9")]
    house.answer = Answered(status, ANSWER, told, [CONTENT, DONE], streamed=bool(asked) and status == 200)
    await house.chat(**asked)
    assert house.headers[b"openai-version"] == b"1"
    assert not {b"openai-organization", b"openai-project", b"x-ratelimit-remaining-requests"} & house.headers.keys()


async def test_many_inputs_together_may_be_more_than_one_context_window(house: House) -> None:
    """Each text of a list is embedded by itself: their report is believed up to what the body can hold."""
    house.answer = Answered(body=b'{"data":[],"usage":{"prompt_tokens":1800,"total_tokens":1800}}')
    await house.ask(EmbeddingsFace(), {"model": "m", "input": ["word " * 100] * 20}, grant=0, hold=20_000)
    fact = house.fact()
    assert (fact.usage, fact.estimated) == (Usage(input=1800), False)


async def test_what_runs_at_the_backend_may_read_more_than_one_context_window(house: House) -> None:
    """A search asks the model again and again; its report is the sum."""
    usage = {"input_tokens": 5000, "output_tokens": 20}
    house.answer = Answered(body=json.dumps({"output": [], "usage": usage}).encode())
    fields = {"model": "m", "input": "hi", "tools": [{"type": "web_search"}]}
    await house.ask(ResponsesFace(), fields, hold=20_000)
    fact = house.fact()
    assert (fact.usage, fact.estimated) == (Usage(input=5000, output=20), False)


async def test_the_backend_gets_our_id_its_own_name_and_the_granted_cap(house: House) -> None:
    """And its credential, unsealed; the cap that was clamped is told to the caller."""
    house.answer = Answered(body=ANSWER)
    await house.chat(grant=7, temperature=0.5)
    ((url, path, head, body, timeout),) = house.sent
    assert (url, path, timeout) == ("http://fake/v1", "/chat/completions", 30.0)
    assert b"authorization: Bearer th-sealed\r\n" in head
    assert head.endswith(b"x-request-id: req_1\r\n")
    assert json.loads(body) == {
        "model": "up", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "max_completion_tokens": 7,
    }  # fmt: skip
    assert house.headers[b"x-tollhouse-output-cap"] == b"7"


def test_a_credential_is_not_quoted_however_json_spells_it() -> None:
    """Base64 has ``/`` and ``+``, and there are writers of JSON that escape them, or anything that is no letter."""
    heads = Heads(lambda _: 'sk/a+b"c')
    for spelled in (
        b'sk/a+b\\"c',
        b'sk\\/a+b\\"c',
        b"sk/a\\u002Bb\\u0022c",
        b"\\u0073k\\u002fa+b\\u0022c",
        b'sk/a+b"c',
    ):
        said = heads.unspoken(TARGET, b'{"error":"no key ' + spelled + b' here"}')
        assert said == b'{"error":"no key ... here"}'


async def test_a_backend_that_repeats_our_credential_is_not_quoted(house: House) -> None:
    """Its refusal reaches the caller, without the credential."""
    house.answer = Answered(status=400, body=b'{"error": "no such key: th-sealed, nor th-sealed"}')
    await house.chat()
    assert (house.out[0]["status"], house.body) == (400, b'{"error": "no such key: ..., nor ..."}')


async def test_the_answer_waits_for_the_books(house: House) -> None:
    """Not a byte of a plain answer before its completion is durable."""
    house.log = flight = FlightLog(house.topic)
    house.answer = Answered(body=ANSWER)
    chatting = asyncio.create_task(house.chat())
    await until(lambda: bool(flight.flight), "the completion")
    assert house.out == []
    flight.arrive()
    await chatting
    assert house.body == ANSWER


async def test_an_answer_without_usage_is_estimated(house: House) -> None:
    """About its input, and a token for four bytes of it, at most what was granted."""
    house.answer = Answered(body=b"x" * 41)
    await house.chat()
    assert (house.fact().estimated, house.fact().usage.output) == (True, 11)
    other = House()
    other.answer = Answered(body=b"x" * 4000)
    await other.chat(n=2)
    assert other.fact().usage.output == 80


async def test_a_refusal_of_the_backend_is_the_callers_and_costs_nothing(house: House) -> None:
    """Status, body and retry headers pass; unless it reported usage, which is charged."""
    house.answer = Answered(status=429, body=b'{"error":{}}', headers=[(b"retry-after", b"3")])
    await house.chat()
    assert isinstance(house.fact(), RequestFailed)
    assert (house.fact().reason, house.fact().status) == ("upstream_status", 429)
    assert (house.out[0]["status"], house.body, house.headers[b"retry-after"]) == (429, b'{"error":{}}', b"3")
    charged = House()
    charged.answer = Answered(status=400, body=ANSWER)
    await charged.chat()
    assert (charged.fact().cost, charged.fact().status, charged.out[0]["status"]) == (27, 400, 400)


async def test_a_fault_of_the_backend_is_an_upstream_error(house: House) -> None:
    """502 for the caller; it surely cost nothing."""
    house.answer = Answered(status=500, body=b"oops")
    with pytest.raises(RouterError) as error:
        await house.chat()
    assert (error.value.code, house.fact().reason, house.out) == ("upstream_error", "upstream_status", [])


@pytest.mark.parametrize("status", [408, 499, 502, 504, 524])
async def test_whoever_gave_up_waiting_for_a_model_knows_nothing(house: House, status: int) -> None:
    """A proxy in front of it says that it timed out: the model may have served the request all the same."""
    house.answer = Answered(status=status)
    with pytest.raises(RouterError) as error:
        await house.chat()
    assert (error.value.code, type(house.fact())) == ("upstream_error", RequestUnconfirmed)


@pytest.mark.parametrize(
    ("failure", "kind", "reason"),
    [
        (UpstreamFailed("no", sent=False), RequestFailed, "upstream_refused"),
        (UpstreamFailed("no", sent=True), RequestUnconfirmed, "upstream_error"),
        (UpstreamFailed("no", sent=True, code="upstream_timeout"), RequestUnconfirmed, "upstream_timeout"),
    ],
)
async def test_no_answer_costs_nothing_or_nobody_knows(
    house: House, failure: UpstreamFailed, kind: type, reason: str
) -> None:
    """It depends on whether the backend may have seen the request. Booked before the caller hears of it."""
    house.answer = failure
    with pytest.raises(RouterError) as error:
        await house.chat()
    assert error.value.code == failure.code
    assert isinstance(house.fact(), kind)
    assert (house.fact().reason, house.fact().tries[0].error) == (reason, failure.code)


async def test_rate_limits_are_told(house: House) -> None:
    """As OpenAI's headers."""
    house.answer = Answered(body=ANSWER)
    await house.chat(rates=((RateClaim("k", "tokens", 90), 30, 61.4), (RateClaim("k", "concurrent", 3), 1, 0.0)))
    limits = {name: value for name, value in house.headers.items() if name.startswith(b"x-ratelimit")}
    assert limits == {
        b"x-ratelimit-limit-tokens": b"90", b"x-ratelimit-remaining-tokens": b"30", b"x-ratelimit-reset-tokens": b"1m1s",
    }  # fmt: skip


# -- streams


async def test_a_stream_passes_as_it_comes_and_its_end_waits_for_the_books(house: House) -> None:
    """Usage is asked for upstream and hidden from who did not ask; ``[DONE]`` leaves when the completion is durable."""
    house.log = flight = FlightLog(house.topic)
    house.answer = stream(CONTENT, CONTENT + USAGE, DONE)
    chatting = asyncio.create_task(house.chat(stream=True))
    await until(lambda: bool(flight.flight), "the completion")
    assert json.loads(house.sent[0][3])["stream_options"] == {"include_usage": True}
    assert house.body == CONTENT * 2
    flight.arrive()
    await chatting
    assert house.body == CONTENT * 2 + DONE
    assert [message["more_body"] for message in house.out[1:]] == [True, True, False]
    fact = house.fact()
    assert (fact.cost, fact.estimated, fact.abandoned, fact.stream) == (27, False, False, True)
    assert fact.first_token_ms is not None


@pytest.mark.parametrize(("begins", "then"), [(CONTENT, "warming"), (b'data: {"error":{}}\n\n', "open")])
async def test_a_stream_that_has_begun_is_what_a_circuit_waits_for(house: House, begins: bytes, then: str) -> None:
    """Its backend is well enough for others, however long the stream goes on; one that says that it broke is not."""
    circuit = house.states.of(TARGET).circuit
    circuit.open(house.states.now() - 60)
    house.answer = stream(begins, endless=True)
    chatting = asyncio.create_task(house.chat(stream=True))
    await until(lambda: circuit.state(house.states.now()) == then, f"the circuit is {then}")
    house.left.set()
    with suppress(RouterError):
        await chatting


async def test_a_stream_without_usage_is_counted(house: House) -> None:
    """A token for each event, at most what was granted."""
    house.answer = stream(CONTENT, CONTENT, CONTENT, DONE)
    await house.chat(stream=True)
    assert (house.fact().usage.output, house.fact().estimated) == (3, True)


async def test_what_may_be_sound_is_counted_as_sound(house: House) -> None:
    """It costs more than text, and may have been it."""
    house.answer = stream(CONTENT, CONTENT, DONE)
    await house.chat(stream=True, modalities=["text", "audio"], audio={"voice": "alloy", "format": "pcm16"})
    assert (house.fact().usage.audio_output, house.fact().usage.output, house.fact().estimated) == (2, 0, True)


async def test_a_stream_that_breaks_is_unconfirmed_and_says_so(house: House) -> None:
    """An error event ends it, never ``[DONE]``: a torn answer must not look whole."""
    house.answer = stream(CONTENT, UpstreamFailed("cut", sent=True))
    await house.chat(stream=True)
    assert isinstance(house.fact(), RequestUnconfirmed)
    assert house.body.startswith(CONTENT + b'data: {"error":')
    assert DONE not in house.body


ERROR = b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'


@pytest.mark.parametrize(
    "behind", [(), (DONE,), (UpstreamFailed("cut", sent=True),)], ids=["an end", "an announced end", "a break"]
)
async def test_a_stream_that_says_that_it_broke_is_unconfirmed(
    house: House, behind: tuple[bytes | UpstreamFailed, ...]
) -> None:
    """Nobody knows what it cost, whatever comes behind the error; the caller gets the backend's own words and no others."""
    house.answer = stream(CONTENT, ERROR, *behind)
    await house.chat(stream=True)
    fact = house.fact()
    assert isinstance(fact, RequestUnconfirmed)
    assert [(one.status, one.error) for one in fact.tries] == [(200, "upstream_error")]
    assert house.body == CONTENT + ERROR + b"".join(data for data in behind if isinstance(data, bytes))
    assert not house.out[-1]["more_body"]


async def test_words_that_come_with_the_error_reach_the_caller(house: House) -> None:
    """However the network cuts a stream, it is the same to whoever reads it."""
    house.answer = stream(CONTENT + ERROR)
    await house.chat(stream=True)
    assert isinstance(house.fact(), RequestUnconfirmed)
    assert house.body == CONTENT + ERROR


async def test_a_stream_that_says_that_it_broke_and_what_it_used_is_charged_that(house: House) -> None:
    """Such a report is as good as any, at the announced end."""
    house.answer = stream(CONTENT, ERROR, USAGE, DONE)
    await house.chat(stream=True)
    assert (house.fact().cost, house.fact().estimated, house.body) == (27, False, CONTENT + ERROR + DONE)


async def test_a_caller_who_leaves_a_broken_stream_changes_nothing(house: House) -> None:
    """Clients close the connection at an error: that is not a choice to pay for what was seen."""
    house.answer = stream(CONTENT, ERROR, endless=True)
    chatting = asyncio.create_task(house.chat(stream=True))
    await until(lambda: house.body == CONTENT + ERROR, "the error")
    house.left.set()
    await chatting
    assert isinstance(house.fact(), RequestUnconfirmed)


async def test_an_error_in_a_text_is_text(house: House) -> None:
    """Also a member of that name that says nothing."""
    told = CONTENT.replace(b'"hi"', b'"\\"error\\": {}"')
    house.answer = stream(told, CONTENT.replace(b"{", b'{"error":null,', 1), USAGE, DONE)
    await house.chat(stream=True)
    assert house.fact().cost == 27


async def test_a_connection_that_breaks_behind_the_end_changes_nothing(house: House) -> None:
    """The answer was whole."""
    house.answer = stream(CONTENT + USAGE + DONE, UpstreamFailed("cut", sent=True))
    await house.chat(stream=True)
    assert (house.fact().cost, house.body) == (27, CONTENT + DONE)


async def test_a_backend_that_holds_on_behind_its_end_holds_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report may still come for a moment; then the stream is over, whatever the backend does with its connection."""
    monkeypatch.setattr(streaming, "HELD_SECONDS", 0.01)
    answer = house.answer = stream(CONTENT, USAGE, DONE, endless=True)
    async with asyncio.timeout(PATIENCE):
        await house.chat(stream=True)
    assert answer.closed.is_set()
    assert (house.fact().cost, house.fact().estimated, house.fact().abandoned) == (27, False, False)
    assert (house.body, house.out[-1]["more_body"]) == (CONTENT + DONE, False)


async def test_a_caller_who_leaves_ends_the_stream_and_pays_what_was_seen(house: House) -> None:
    """The backend's stream is closed; nothing more is written."""
    answer = house.answer = stream(CONTENT, CONTENT, endless=True)
    chatting = asyncio.create_task(house.chat(stream=True))
    await until(lambda: house.body == CONTENT * 2, "the stream's beginning")
    house.left.set()
    await chatting
    assert answer.closed.is_set()
    fact = house.fact()
    assert isinstance(fact, RequestCompleted)
    assert (fact.abandoned, fact.estimated, fact.usage.output) == (True, True, 2)
    assert house.body == CONTENT * 2


async def test_a_caller_who_leaves_pays_the_last_report_if_there_was_one(house: House) -> None:
    """A backend that reports usage as it goes leaves nothing to guess."""
    reported = CONTENT.replace(b"]}\n", b'],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n')
    house.answer = stream(reported, endless=True)
    chatting = asyncio.create_task(house.chat(stream=True))
    await until(lambda: bool(house.body), "the stream's beginning")
    house.left.set()
    await chatting
    assert (house.fact().cost, house.fact().estimated, house.body) == (9, False, CONTENT)


@pytest.mark.parametrize(("pieces", "output"), [(3, 3), (60, 40)], ids=["few", "more than was granted"])
async def test_a_caller_who_leaves_pays_what_came_behind_an_early_report(
    house: House, pieces: int, output: int
) -> None:
    """Some backends say at the beginning what came in, and that nothing went out yet: what is counted since is added to it."""
    begun = USAGE.replace(b":20", b":0")
    house.answer = stream(CONTENT.replace(b"hi", b""), begun, *[CONTENT] * pieces, endless=True)
    chatting = asyncio.create_task(house.chat(stream=True))
    await until(lambda: house.body.count(b"hi") == pieces, "the stream's beginning")
    house.left.set()
    await chatting
    fact = house.fact()
    assert (fact.usage, fact.estimated, fact.abandoned) == (Usage(input=7, output=output), True, True)


async def test_a_caller_who_leaves_pays_the_input_that_was_told(house: House) -> None:
    """A backend that says at the start what came in, and from which cache, leaves only the output to count."""
    house.published = replace(MODEL, targets=(replace(TARGET, protocol="anthropic"),))
    sent = recorded("messages", "cache").split(b"event: content_block_stop")[0].replace(b"18086", b"60")
    house.answer = stream(sent, endless=True)
    chatting = asyncio.create_task(house.chat(stream=True))
    await until(lambda: b"novel" in house.body, "the stream's beginning")
    house.left.set()
    await chatting
    fact = house.fact()
    assert (fact.abandoned, fact.estimated) == (True, True)
    assert fact.usage == Usage(input=21, cached_input=60, cache_write=188, output=1)


async def test_a_refusal_to_stream_is_a_plain_answer(house: House) -> None:
    """Read whole and handed on with its status."""
    house.answer = Answered(status=400, body=b'{"error":{}}')
    await house.chat(stream=True)
    assert (house.out[0]["status"], house.body) == (400, b'{"error":{}}')
