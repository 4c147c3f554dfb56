"""Streams that become streams of the other protocol: what comes out is what each protocol's own client accepts, says the same
wherever the backend's bytes are cut, and the books have the backend's usage."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic import Anthropic
from anthropic.types import ErrorResponse, RawMessageStreamEvent
from msgspec.structs import replace
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel, TypeAdapter

from api.router.faces.chat_to_messages_stream import ChatOfMessages
from api.router.faces.messages_to_chat_stream import MessagesOfChat
from commands.admission import Call
from domain.facts import Usage
from tests.golden.corpus import expected, names, same_however_cut, stream, told

CEILING = 200_000
CALL = Call("messages", "m", True, 500, 90, cap=1000)
MESSAGES, AS_CHAT, AS_MESSAGES = expected("messages"), expected("messages_as_chat"), expected("chat_as_messages")
ASKED: list[Any] = [{"role": "user", "content": "hi"}]

_events: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


@pytest.fixture(autouse=True)
def one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks say when they were made."""
    monkeypatch.setattr("time.time", lambda: 1_764_300_000.5)


def datas(body: bytes) -> Iterator[tuple[str, Any]]:
    """(name of the event, its data) of a stream of ours: one line each, one event after the other."""
    for event in body.decode().removesuffix("\n\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in event.split("\n"))
        if "data" in lines:
            yield lines.get("event", ""), lines["data"]


def exact(value: Any) -> None:
    """Nothing in it is unknown to the client's own types."""
    if isinstance(value, BaseModel):
        assert not value.model_extra, value
        for name in type(value).model_fields:
            exact(getattr(value, name))
    elif isinstance(value, list):
        for item in value:
            exact(item)


def answering(body: bytes) -> httpx2.Client:
    """A network on which everything is answered with this stream."""
    head = {"content-type": "text/event-stream"}
    return httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, headers=head, content=body)))


def usage(wanted: dict[str, int] | None) -> Usage | None:
    return None if wanted is None else Usage(**wanted)


# -- Anthropic's, to callers of OpenAI's protocol


@pytest.mark.parametrize("name", names("messages"))
def test_events_become_chunks_wherever_they_are_cut(name: str) -> None:
    """Same chunks, same usage in the books; the end is withheld, and no chunk holds what the client does not know."""
    wanted = MESSAGES[name]
    found, passed, withheld = same_however_cut(lambda: ChatOfMessages(True, CEILING), stream("messages", name))
    assert (found.usage, found.done, found.pieces) == (usage(wanted["usage"]), wanted["done"], wanted["pieces"])
    assert found.failed is wanted.get("failed", False)
    chunks = [data for _, data in datas(passed)]
    if error := AS_CHAT[name].get("error"):
        assert (json.loads(chunks.pop())["error"]["code"], withheld) == (error, b"")
    else:
        assert withheld.endswith(b"data: [DONE]\n\n")
        chunks += [data for _, data in datas(withheld)][:-1]
        assert (b'"choices":[],' in withheld) is (found.usage is not None)
    for data in chunks:
        chunk = ChatCompletionChunk.model_validate_json(data)
        exact(chunk)
        assert "usage" in json.loads(data)
    if chunks:
        assert json.loads(chunks[0])["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}


@pytest.mark.parametrize("name", names("messages"))
def test_who_did_not_ask_sees_no_usage(name: str) -> None:
    """The same chunks without, and the books have it."""
    asked, silent = ChatOfMessages(True, CEILING), ChatOfMessages(False, CEILING)
    shown, hidden = (b"".join(told(relay, stream("messages", name))) for relay in (asked, silent))
    assert b'"usage"' not in hidden.replace(b'\\"usage\\"', b"")
    assert silent.usage == asked.usage
    with_usage = [json.loads(data) for _, data in datas(shown) if data != "[DONE]"]
    without = [json.loads(data) for _, data in datas(hidden) if data != "[DONE]"]
    assert without == [
        {name: value for name, value in chunk.items() if name != "usage"}
        for chunk in with_usage
        if chunk.get("choices", True)
    ]


@pytest.mark.parametrize("name", names("messages"))
def test_the_openai_client_finds_in_the_chunks_what_the_events_said(name: str) -> None:
    """Words, calls with their arguments, why it ended, usage of every class: put together by the client itself."""
    wanted = AS_CHAT[name]
    passed, withheld = told(ChatOfMessages(True, CEILING), stream("messages", name))
    client = OpenAI(api_key="x", http_client=answering(passed + withheld))
    with client.chat.completions.stream(model="m", messages=ASKED, stream_options={"include_usage": True}) as heard:
        if "error" in wanted:
            with pytest.raises(openai.APIError):
                heard.until_done()
            return
        heard.until_done()
        answer = heard.current_completion_snapshot
    (choice,) = answer.choices
    calls = [call for call in choice.message.tool_calls or () if call.type == "function"]
    assert [[c.id, c.function.name, json.loads(c.function.arguments)] for c in calls] == wanted["calls"]
    assert (choice.message.content or "", choice.finish_reason) == (wanted["text"], wanted["finish"])
    assert choice.message.refusal == wanted.get("refusal")
    booked = usage(MESSAGES[name]["usage"])
    assert (answer.usage is None) is (booked is None)
    if booked is not None and answer.usage is not None:
        read, written = answer.usage.prompt_tokens_details, answer.usage.completion_tokens_details
        assert read is not None and written is not None
        shown = Usage(
            input=answer.usage.prompt_tokens - (read.cached_tokens or 0) - (read.cache_write_tokens or 0),
            cached_input=read.cached_tokens or 0,
            cache_write=read.cache_write_tokens or 0,
            output=answer.usage.completion_tokens - (written.reasoning_tokens or 0),
            reasoning=written.reasoning_tokens or 0,
        )
        assert shown == booked
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


# -- OpenAI's, to callers of Anthropic's protocol


@pytest.mark.parametrize("name", names("chat_as_messages"))
def test_chunks_become_events_wherever_they_are_cut(name: str) -> None:
    """Same events in the protocol's order, same usage in the books, the end withheld; all known to the client's own types."""
    wanted = AS_MESSAGES[name]
    found, passed, withheld = same_however_cut(lambda: MessagesOfChat(CALL, CEILING), stream("chat_as_messages", name))
    assert (found.usage, found.done) == (usage(wanted["usage"]), wanted["done"])
    assert found.failed is wanted.get("failed", False)
    events = list(datas(passed))
    if error := wanted.get("error"):
        kind, data = events.pop()
        assert (kind, json.loads(data)["error"]["type"], withheld) == ("error", error, b"")
        assert ErrorResponse.model_validate_json(data).error.type == error
    else:
        assert withheld.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
        assert b"message_delta" not in passed
        events += list(datas(withheld))
    for kind, data in events:
        event = _events.validate_json(data)
        exact(event)
        assert event.type == kind
    in_order([json.loads(data) for _, data in events])


def in_order(events: list[dict[str, Any]]) -> None:
    """message_start, then blocks one after another, each begun and ended once, then message_delta and message_stop."""
    open_block: int | None = None
    ended = 0
    for number, event in enumerate(events):
        kind = event["type"]
        assert (kind == "message_start") is (number == 0)
        if kind == "content_block_start":
            assert (open_block, event["index"]) == (None, ended)
            open_block = event["index"]
        elif kind == "content_block_delta":
            assert event["index"] == open_block
        elif kind == "content_block_stop":
            assert event["index"] == open_block
            open_block, ended = None, ended + 1
        elif kind in ("message_delta", "message_stop"):
            assert open_block is None
            assert number == len(events) - (2 if kind == "message_delta" else 1)


@pytest.mark.parametrize("name", names("chat_as_messages"))
def test_the_anthropic_client_finds_in_the_events_what_the_chunks_said(name: str) -> None:
    """Content, why it ended, usage of every class that its protocol has: put together by the client itself."""
    wanted = AS_MESSAGES[name]
    relay = MessagesOfChat(CALL, CEILING)
    passed, withheld = told(relay, stream("chat_as_messages", name))
    client = Anthropic(api_key="x", http_client=answering(passed + withheld))
    with client.messages.stream(model="m", max_tokens=1000, messages=ASKED) as heard:
        if error := wanted.get("error"):
            with pytest.raises(anthropic.APIStatusError) as raised:
                heard.until_done()
            assert raised.value.type == error
            return
        message = heard.get_final_message()
    shown = [block.model_dump(include={"type", "text", "id", "name", "input"}) for block in message.content]
    assert shown == wanted["content"]
    assert (message.stop_reason, message.model) == (wanted["stop"], "gpt-5.1")
    booked = usage(wanted["usage"]) or Usage(input=CALL.estimated_input, output=relay.pieces)
    thought = message.usage.output_tokens_details
    assert thought is not None
    assert replace(
        booked, input=booked.input + booked.audio_input + booked.image_input, audio_input=0, image_input=0
    ) == Usage(
        input=message.usage.input_tokens,
        cached_input=message.usage.cache_read_input_tokens or 0,
        cache_write=message.usage.cache_creation_input_tokens or 0,
        output=message.usage.output_tokens - thought.thinking_tokens,
        reasoning=thought.thinking_tokens,
    )


def test_every_stream_says_what_becomes_of_it() -> None:
    """None is left out, none is left over."""
    assert sorted(AS_CHAT) == names("messages")
    assert sorted(AS_MESSAGES) == names("chat_as_messages")


@pytest.mark.parametrize("event", range(2, 8))
def test_what_came_is_shown_at_once(event: int) -> None:
    """A call's input passes piece by piece while no other call is under way."""
    sent = stream("chat_as_messages", "tool").split(b"\n\n")
    relay = MessagesOfChat(CALL, CEILING)
    shown = b"".join([relay.feed(piece + b"\n\n") for piece in sent[:event]])
    assert shown.count(b"input_json_delta") == max(0, min(event, 5) - 2)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (b'{"id":null,"choices":null,"type":"error","error":{"message":"no more"}}', b"no more"),
        (b'{"type":"error","error":{"message":null,"type":7,"code":[]}}', b"the answer broke"),
        (b'{"type":"error","error":["no more"]}', b"the answer broke"),
    ],
)
@pytest.mark.parametrize("make", [lambda: ChatOfMessages(False, CEILING), lambda: MessagesOfChat(CALL, CEILING)])
def test_an_error_of_any_shape_is_one(
    make: Callable[[], ChatOfMessages | MessagesOfChat], event: bytes, words: bytes
) -> None:
    """Its words are shown where they can be found, and the books know that the answer broke."""
    relay = make()
    passed, withheld = told(relay, b"data: " + event + b"\n\n")
    assert (relay.failed, withheld) == (True, b"")
    assert b'"error"' in passed and words in passed


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("invalid_request_error", "invalid_request_error"),
        ("billing_error", "insufficient_quota"),
        ("rate_limit_error", "rate_limit_error"),
        ("overloaded_error", "server_error"),
        ("unheard_of_error", "server_error"),
    ],
)
def test_an_error_in_the_events_has_its_type_in_the_chunks(kind: str, shown: str) -> None:
    """What nobody has heard of is not the fault of who asks."""
    event = b'data: {"type":"error","error":{"type":"%b","message":"no"}}\n\n' % kind.encode()
    ((_, data),) = datas(ChatOfMessages(False, CEILING).feed(event))
    error = json.loads(data)["error"]
    assert (error["type"], error["code"], error["message"]) == (shown, kind, "no")


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ({"type": "tokens", "code": "rate_limit_exceeded"}, "rate_limit_error"),
        ({"type": "rate_limit_error", "code": None}, "rate_limit_error"),
        ({"type": "invalid_request_error", "code": "context_length_exceeded"}, "invalid_request_error"),
        ({"type": "insufficient_quota", "code": "insufficient_quota"}, "billing_error"),
        ({"type": None, "code": 503}, "api_error"),
        ({"type": "server_error", "code": None}, "api_error"),
    ],
)
def test_an_error_in_the_chunks_has_its_type_in_the_events(error: dict[str, Any], shown: str) -> None:
    """OpenAI's limits have the type of what is limited: their code says that it is one."""
    data = json.dumps({"error": {"message": "no", "param": None, **error}}).encode()
    ((_, event),) = datas(MessagesOfChat(CALL, CEILING).feed(b"data: " + data + b"\n\n"))
    assert json.loads(event)["error"]["type"] == shown


def cut_off(folder: str, name: str, mark: bytes) -> bytes:
    """A stream that ends with its first event that says `mark`, and without the blank line behind it."""
    sent = stream(folder, name)
    return sent[: sent.index(b"\n\n", sent.index(mark))]


def test_the_last_event_needs_no_blank_line_to_be_shown() -> None:
    """What it says reaches the caller as if there were one: the last words, why it ended, and that it broke."""
    finish = cut_off("messages", "text", b"message_delta")
    passed, withheld = told(ChatOfMessages(False, CEILING), finish)
    assert b"".join(told(ChatOfMessages(False, CEILING), finish + b"\n\n")) == passed + withheld
    assert withheld.count(b'"finish_reason":"stop"') == 1

    words = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"bye"},"finish_reason":"stop"}]}'
    passed, withheld = told(MessagesOfChat(CALL, CEILING), words)
    assert b"".join(told(MessagesOfChat(CALL, CEILING), words + b"\n\n")) == passed + withheld
    assert withheld.count(b'"text":"bye"') == 1


@pytest.mark.parametrize(
    ("relay", "folder"),
    [(ChatOfMessages(False, CEILING), "messages"), (MessagesOfChat(CALL, CEILING), "chat_as_messages")],
)
def test_an_error_needs_no_blank_line_to_be_shown(relay: ChatOfMessages | MessagesOfChat, folder: str) -> None:
    """Its words are the last thing that the caller gets."""
    _, withheld = told(relay, cut_off(folder, "error_in_the_middle", b'"error"'))
    assert relay.failed
    assert b'"error"' in withheld
