"""What an OpenAI backend answers, brought to a caller of Anthropic's messages."""

import json
from typing import Any

import pytest
from anthropic.types import ErrorResponse, Message

from api.router.faces.face import Carriage
from api.router.faces.messages import parse_messages
from domain.facts import Usage


def carriage() -> Carriage:
    """Of a plain question."""
    asked = b'{"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}'
    return parse_messages(asked, lambda _: None).carriage("openai")


def answered(message: dict[str, Any], finish: str | None = "stop", usage: dict[str, Any] | None = None) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"id": "chatcmpl-1", "model": "gpt", "choices": [choice], "usage": usage}).encode()


REPORT = {
    "prompt_tokens": 78,
    "completion_tokens": 40,
    "total_tokens": 118,
    "prompt_tokens_details": {"cached_tokens": 70, "cache_write_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 30},
}


def test_a_completion_becomes_a_message() -> None:
    """Words, calls, why it ended, usage of every class."""
    calls = [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": "ü"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": ""}},
        {"id": "call_3", "type": "function", "function": {"name": "h", "arguments": '{"a": '}},
    ]
    body = answered({"content": "I look it up.", "tool_calls": calls}, "tool_calls", REPORT)
    usage, shown = carriage().answer(body, 1000)
    assert usage == Usage(input=5, cached_input=70, cache_write=3, output=10, reasoning=30)
    message = Message.model_validate_json(shown)
    assert (message.id, message.model, message.stop_reason) == ("chatcmpl-1", "gpt", "tool_use")
    assert [block.model_dump(exclude_none=True) for block in message.content] == [
        {"type": "text", "text": "I look it up."},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": "ü"}},
        {"type": "tool_use", "id": "call_2", "name": "g", "input": {}},
        {"type": "tool_use", "id": "call_3", "name": "h", "input": {"INVALID_JSON": '{"a": '}},
    ]
    assert json.loads(shown)["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 70,
        "output_tokens": 40,
        "output_tokens_details": {"thinking_tokens": 30},
    }


@pytest.mark.parametrize(
    ("message", "finish", "stop"),
    [
        ({"content": "x"}, "stop", "end_turn"),
        ({"content": "x"}, "length", "max_tokens"),
        ({"content": None}, "content_filter", "refusal"),
        ({"content": None, "refusal": "no"}, "stop", "refusal"),
        ({"content": "x"}, None, "end_turn"),
    ],
)
def test_why_it_ended_has_a_name_there(message: dict[str, Any], finish: str | None, stop: str) -> None:
    """A refusal's words are the answer's."""
    shown = Message.model_validate_json(carriage().answer(answered(message, finish, REPORT), 1000)[1])
    assert shown.stop_reason == stop
    words = (message["content"] or "") + (message.get("refusal") or "")
    assert [block.text for block in shown.content if block.type == "text"] == ([words] if words else [])


@pytest.mark.parametrize(
    ("finish", "stop"),
    [("tool_calls", "tool_use"), ("stop", "tool_use"), (None, "tool_use"), ("length", "max_tokens")],
)
def test_an_answer_that_calls_ends_for_its_calls(finish: str | None, stop: str) -> None:
    """A function that had to be called ends with ``stop`` there: clients here look for ``tool_use`` before they run it."""
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    body = answered({"content": None, "tool_calls": calls}, finish, REPORT)
    assert json.loads(carriage().answer(body, 1000)[1])["stop_reason"] == stop
    chunk = {"index": 0, "delta": {"tool_calls": [{"index": 0, **calls[0]}]}, "finish_reason": finish}
    relay = carriage().relay(1000)
    relay.feed(b"data: " + json.dumps({"id": "c", "choices": [chunk]}).encode() + b"\n\ndata: [DONE]\n\n")
    relay.end()
    assert json.dumps({"stop_reason": stop})[1:-1].replace(" ", "").encode() in relay.rest()


def test_an_answer_without_usage_shows_what_is_booked() -> None:
    """The protocol has no message without: about the input, and a token for four bytes, at most what was allowed."""
    body = answered({"content": "x"})
    usage, shown = carriage().answer(body, 1000)
    assert usage is None
    assert json.loads(shown)["usage"]["output_tokens"] == 20


@pytest.mark.parametrize("body", [b"<html>", b'{"choices":[]}'])
def test_an_answer_that_is_no_completion_is_passed_on(body: bytes) -> None:
    """Nothing is known of it, least of all that it cost nothing."""
    assert carriage().answer(body, 1000) == (None, body)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (
            400,
            b'{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"too_long"}}',
            ("invalid_request_error", "too long", "messages", "too_long"),
        ),
        (429, b'{"error":{"message":"slow","type":"tokens","code":429}}', ("rate_limit_error", "slow", None, "429")),
        (404, b"<html>", ("not_found_error", "the backend answered 404", None, None)),
    ],
)
def test_a_refusal_is_an_error_of_anthropics(status: int, body: bytes, error: tuple[Any, ...]) -> None:
    """With the backend's own words, field and code."""
    shown = carriage().refusal(status, body)
    ErrorResponse.model_validate_json(shown)
    kind, message, param, code = error
    error_shown = {"type": kind, "message": message, "param": param, "code": code}
    assert json.loads(shown) == {"type": "error", "error": error_shown}


def blocks_of(*calls: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(id, name, input) of each tool's call that a stream of these pieces becomes."""
    relay = carriage().relay(1000)
    shown = b""
    for made in calls:
        chunk = {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [made]}}]}
        shown += relay.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    shown += relay.feed(b"data: [DONE]\n\n")
    relay.end()
    shown += relay.rest()
    found: list[tuple[str, str, str]] = []
    for line in shown.decode().split("\n"):
        if not line.startswith("data: "):
            continue
        event = json.loads(line.removeprefix("data: "))
        if event["type"] == "content_block_start":
            assert event["index"] == len(found)
            found.append((event["content_block"]["id"], event["content_block"]["name"], ""))
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(found) - 1
            found[-1] = (*found[-1][:2], found[-1][2] + event["delta"]["partial_json"])
    return found


def piece(index: int | None, id_: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    return {"index": index, "id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    """Google numbers every call 0, or none at all; what goes on names no tool, though some give each piece an id of its own."""
    whole = [("a", "f", "{}"), ("b", "g", '{"x":1}')]
    assert blocks_of(piece(0, "a", "f", "{}"), piece(0, "b", "g", '{"x":1}')) == whole
    assert blocks_of(piece(None, "a", "f", "{}"), piece(None, "b", "g", '{"x":1}')) == whole
    assert blocks_of(piece(0, "b", "g", '{"x"'), piece(0, "else", None, ":1}"), piece(0, "b", "g", "")) == whole[1:]
