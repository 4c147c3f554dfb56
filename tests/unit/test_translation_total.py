"""Whatever a caller or a backend sends, translation answers: a request by a body or a refusal by name, an answer by bytes."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.router.errors import RouterError
from api.router.faces.chat import parse_chat
from api.router.faces.chat_to_messages_answer import chat_of_message, chat_refusal
from api.router.faces.chat_to_messages_stream import ChatOfMessages
from api.router.faces.completions import parse_completions
from api.router.faces.face import Asked, Carriage
from api.router.faces.messages import parse_messages
from api.router.faces.messages_to_chat_answer import message_of_chat, message_refusal
from api.router.faces.messages_to_chat_stream import MessagesOfChat
from commands.admission import Call

CALL = Call("messages", "m", True, 500, 90, cap=1000)
WORDS = (
    "role", "content", "type", "text", "tool_calls", "function", "name", "arguments", "id", "image_url", "url", "source", "data",
    "media_type", "tool_use", "tool_result", "tool_use_id", "tool_call_id", "input", "system", "user", "assistant", "tool",
    "base64", "cache_control", "ttl", "file", "document", "index", "delta", "choices", "message", "usage", "error",
    "finish_reason",
    "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop",
    "content_block", "partial_json", "stop_reason", "input_tokens", "output_tokens", "prompt_tokens", "completion_tokens",
)  # fmt: skip
FIELDS = (
    "tools", "tool_choice", "system", "stop", "stop_sequences", "temperature", "response_format", "output_config", "thinking",
    "metadata", "stream_options", "n", "user", "service_tier", "modalities", "cache_control", "reasoning_effort", "top_logprobs",
)  # fmt: skip

words = st.sampled_from(WORDS) | st.text(max_size=5)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)
blocks = st.fixed_dictionaries(
    {"type": words}, optional=dict.fromkeys(("text", "source", "content", "input", "id", "name", "image_url"), values)
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(("user", "assistant", "system", "tool", "developer"))},
    optional={"content": words | st.lists(blocks, max_size=3) | values, "tool_calls": values, "tool_call_id": values},
)
requests = st.fixed_dictionaries(
    {"model": st.just("m"), "max_tokens": st.just(20), "messages": st.lists(messages, min_size=1, max_size=4)},
    optional=dict.fromkeys(FIELDS, values),
)
lines = (
    st.binary(max_size=40) | values.map(lambda value: b"data: " + json.dumps(value).encode()) | st.just(b"data: [DONE]")
)


def carried(make: Callable[[], Carriage]) -> bytes | None:
    """The body that goes out, None where the request was refused as it should be."""
    try:
        return make().body("up", 7)
    except RouterError as error:
        if error.code == "invalid_json" or (error.param and error.code in ("unsupported_parameter", "invalid_value")):
            return None
        raise


@given(requests)
def test_every_chat_is_carried_or_refused_by_name(request: dict[str, Any]) -> None:
    """Nothing else is raised, and what goes out is JSON with the cap that was granted."""
    body = carried(lambda: parse_chat(json.dumps(request).encode()).carriage("anthropic"))
    if body is not None:
        sent = json.loads(body)
        assert (sent["model"], sent["max_tokens"]) == ("up", 7)


@given(requests)
def test_every_messages_request_is_carried_or_refused_by_name(request: dict[str, Any]) -> None:
    """Nothing else is raised, and what goes out is JSON with the cap that was granted."""
    body = carried(lambda: parse_messages(json.dumps(request).encode(), lambda _: None).carriage("openai"))
    if body is not None:
        sent = json.loads(body)
        assert (sent["model"], sent["max_completion_tokens"]) == ("up", 7)


@given(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_every_answer_becomes_one(answer: bytes) -> None:
    """A backend's answer never is an error of ours."""
    for shown in (chat_of_message(answer, 100)[1], message_of_chat(answer, 100, CALL)[1]):
        assert shown == answer or json.loads(shown)
    for refusal in (chat_refusal(400, answer), message_refusal(400, answer)):
        assert json.loads(refusal)["error"]["message"] is not None


@given(st.lists(lines, max_size=8), st.booleans())
def test_every_stream_becomes_one(sent: list[bytes], asked: bool) -> None:
    """Whatever the backend says, and whatever it leaves out."""
    for relay in (ChatOfMessages(asked, 100), MessagesOfChat(CALL, 100)):
        for line in sent:
            relay.feed(line + b"\n\n")
        relay.end()
        relay.rest()


HALF = b"\xed\xa0\x80"
"""Half of a surrogate pair as raw bytes: no text, though a decoder that skips over it takes it for some."""

CALLED = b'{"type":"tool_use","id":"t","name":"f","input":{"a":"' + HALF + b'"}}'


def test_a_tool_called_with_what_is_no_text_is_shown() -> None:
    """Plain or as a stream, with what can be read of it: what was served is never an error of ours."""
    answer = b'{"id":"m","content":[' + CALLED + b'],"usage":{"input_tokens":3,"output_tokens":4}}'
    usage, shown = chat_of_message(answer, 100)
    assert usage is not None and usage.total == 7
    (call,) = json.loads(shown)["choices"][0]["message"]["tool_calls"]
    assert set(json.loads(call["function"]["arguments"])) == {"a"}
    shown = ChatOfMessages(False, 100).feed(b'data: {"type":"content_block_start","content_block":' + CALLED + b"}\n\n")
    assert b"tool_calls" in shown


@pytest.mark.parametrize("parse", [parse_chat, parse_completions])
@pytest.mark.parametrize("value", [b'"' + HALF + b'"', b"9" * 5000, b"1e999"], ids=["no text", "long", "large"])
def test_what_is_beside_an_option_of_streams_goes_as_it_came(parse: Callable[[bytes], Asked], value: bytes) -> None:
    """Nobody but the backend has to make sense of it."""
    asked = b'"model":"m","prompt":"x","messages":[{"role":"user","content":"x"}],"stream":true'
    body = b"{" + asked + b',"stream_options":{"more":' + value + b"}}"
    sent = carried(lambda: parse(body).carriage("openai"))
    assert sent is not None
    assert b'"stream_options":{"more":' + value + b',"include_usage":true}' in sent


@pytest.mark.parametrize("parse", [parse_chat, parse_completions])
def test_an_option_of_streams_whose_name_is_no_text_is_refused(parse: Callable[[bytes], Asked]) -> None:
    """By its field, before anything is held."""
    asked = b'"model":"m","prompt":"x","messages":[{"role":"user","content":"x"}],"stream":true'
    with pytest.raises(RouterError) as refused:
        parse(b"{" + asked + b',"stream_options":{"' + HALF + b'":1}}')
    assert (refused.value.code, refused.value.param) == ("invalid_value", "stream_options")


@pytest.mark.parametrize("depth", [100, *range(800, 1100, 20)])
def test_what_is_taken_in_can_be_sent(depth: int) -> None:
    """However deep it is nested: it is carried as it is, or refused before anything is held."""
    deep = "[" * depth + "]" * depth
    body = '{"model":"m","max_tokens":20,"messages":[{"role":"user","content":"x"}],"tools":[%s]}'
    tool = '{"name":"f","input_schema":{"a":' + deep + "}}"
    sent = carried(lambda: parse_messages((body % tool).encode(), lambda _: None).carriage("openai"))
    assert sent is None or deep in sent.decode()
    assert sent is not None or depth > 100
