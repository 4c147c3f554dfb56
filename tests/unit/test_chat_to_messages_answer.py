"""What an Anthropic backend answers, brought to a caller of chat completions."""

import json

import pytest
from openai.types.chat import ChatCompletion

from api.router.faces.chat import parse_chat
from api.router.faces.face import Carriage
from domain.facts import Usage


def carriage() -> Carriage:
    """Of a plain question."""
    return parse_chat(b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}').carriage("anthropic")


def test_an_answer_becomes_a_completion() -> None:
    """Words, calls, why it ended, usage of every class; thinking has no place there."""
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "I look"},
            {"type": "text", "text": " it up."},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": "ü"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_read_input_tokens": 70,
            "cache_creation_input_tokens": 3,
            "output_tokens": 40,
            "output_tokens_details": {"thinking_tokens": 30},
        },
    }
    usage, shown = carriage().answer(json.dumps(message).encode(), 1000)
    assert usage == Usage(input=5, cached_input=70, cache_write=3, output=10, reasoning=30)
    completion = ChatCompletion.model_validate_json(shown)
    (choice,) = completion.choices
    assert (completion.id, completion.model, choice.finish_reason) == ("msg_1", "claude", "tool_calls")
    assert choice.message.model_dump(exclude_none=True) == {
        "role": "assistant",
        "content": "I look it up.",
        "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"a": "\\u00fc"}'}}
        ],
    }
    assert json.loads(shown)["usage"] == {
        "prompt_tokens": 78,
        "completion_tokens": 40,
        "total_tokens": 118,
        "prompt_tokens_details": {"cached_tokens": 70, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 30},
    }


def test_an_answer_of_nothing_has_words_of_none() -> None:
    """Null is for who calls or refuses: said again, it is no message of the protocol."""
    message = {"id": "m", "type": "message", "role": "assistant", "content": [], "stop_reason": "end_turn"}
    (choice,) = ChatCompletion.model_validate_json(carriage().answer(json.dumps(message).encode(), 1000)[1]).choices
    assert (choice.message.content, choice.message.refusal, choice.message.tool_calls) == ("", None, None)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
        ("unheard_of", "stop"),
    ],
)
def test_why_it_ended_has_a_name_there(reason: str, finish: str) -> None:
    """Every one of them."""
    message = {"id": "msg_1", "content": [], "stop_reason": reason}
    assert json.loads(carriage().answer(json.dumps(message).encode(), 1000)[1])["choices"][0]["finish_reason"] == finish


def test_an_answer_that_is_no_message_is_passed_on() -> None:
    """Nothing is known of it, least of all that it cost nothing."""
    assert carriage().answer(b"<html>", 1000) == (None, b"<html>")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (
            400,
            b'{"type":"error","error":{"type":"invalid_request_error","message":"too long"},"request_id":"r"}',
            ("too long", "invalid_request_error", "invalid_request_error"),
        ),
        (
            429,
            b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}',
            ("slow down", "rate_limit_error", "rate_limit_error"),
        ),
        (404, b"<html>", ("the backend answered 404", "not_found_error", "api_error")),
    ],
)
def test_a_refusal_is_an_error_object(status: int, body: bytes, error: tuple[str, str, str]) -> None:
    """With the backend's own words, and its type as the code."""
    message, kind, code = error
    shown = json.loads(carriage().refusal(status, body))
    assert shown == {"error": {"message": message, "type": kind, "param": None, "code": code}}
