"""Responses: what is bounded, what is kept or runs at the backend and is not, what is wrong."""

import json
from typing import Any

import pytest

from api.router.errors import RouterError
from api.router.faces.responses import ResponsesFace, ResponsesRequest, parse_responses
from domain.bound import OVERHEAD, TOOLS_OVERHEAD
from domain.facts import Usage

MESSAGE = {"role": "user", "content": "hi"}
PICTURE = {"type": "input_image", "image_url": "https://example.com/a.png"}


def asked(**fields: Any) -> ResponsesRequest:
    return parse_responses(json.dumps({"model": "m", "input": "hi", **fields}).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"input": [MESSAGE]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
        {"input": [MESSAGE, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                   {"type": "function_call_output", "call_id": "c", "output": "fine"}]},
        {"tools": [{"type": "function", "name": "f"}], "reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}}},
        {"previous_response_id": None, "background": False, "service_tier": "auto"},
    ],
)  # fmt: skip
def test_text_and_own_tools_are_bounded(fields: dict[str, Any]) -> None:
    """By the bytes of the body."""
    call = asked(**fields).call
    assert (call.unbounded, call.context_bounded) == (None, False)


def test_reasoning_that_is_kept_at_the_backend_is_bounded_by_the_context_window() -> None:
    """An item that only names it brings in as many tokens as it had; one that holds it, encrypted, is bounded by its bytes."""
    item = {"type": "reasoning", "id": "rs_1", "summary": []}
    assert asked(input=[MESSAGE, item]).call.context_bounded
    assert asked(input=[MESSAGE, {**item, "encrypted_content": None}]).call.context_bounded
    assert asked(input=[MESSAGE, {**item, "encrypted_content": ""}]).call.context_bounded
    assert not asked(input=[MESSAGE, {**item, "encrypted_content": "gAAAAB"}]).call.context_bounded


@pytest.mark.parametrize(
    "fields", [{"tools": [{"type": "function", "name": "f"}]}, {"text": {"format": {"type": "json_schema"}}}]
)
def test_what_the_backend_explains_to_the_model_is_in_the_bound(fields: dict[str, Any]) -> None:
    """It says more of tools and schemas than their bytes do."""
    request = asked(**fields)
    assert request.call.input_bound == len(request.sent) + OVERHEAD + TOOLS_OVERHEAD


@pytest.mark.parametrize(
    "content", [{"content": [PICTURE]}, {"type": "function_call_output", "call_id": "c", "output": [PICTURE]}]
)
def test_pictures_are_bounded_by_the_context_window(content: dict[str, Any]) -> None:
    """Wherever they stand."""
    assert asked(input=[{"role": "user", **content}]).call.context_bounded


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input item 'item_reference'"),
        ({"input": [MESSAGE, {"id": "msg_1"}]}, "input item 'item_reference'"),
        ({"input": [{"type": None, "id": "msg_1"}]}, "input item 'item_reference'"),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "input content part 'input_video'"),
    ],
)
def test_what_is_kept_or_runs_elsewhere_has_no_bound(fields: dict[str, Any], named: str) -> None:
    """And is named."""
    assert asked(**fields).call.unbounded == named


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"input": 5}, "input"), ({"input": [{"role": "user", "content": 5}]}, "input"), ({"tools": 1}, "tools"),
     ({"max_output_tokens": 0}, "max_output_tokens")],
)  # fmt: skip
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    """400 invalid_value with the field."""
    with pytest.raises(RouterError) as refused:
        asked(**fields)
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)


def test_the_granted_cap_goes_upstream() -> None:
    """The rest of the body is the caller's; unknown fields too."""
    request = asked(mystery=[1])
    went = json.loads(request.carriage("openai").body("up", 9))
    assert went == {"model": "up", "input": "hi", "mystery": [1], "max_output_tokens": 9}
    same = asked(max_output_tokens=9)
    assert same.carriage("openai").body("m", 9) == same.sent


def test_usage_is_turned_into_disjoint_classes() -> None:
    """Cached input and reasoning are parts of what is reported."""
    usage = {
        "input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 18,
    }  # fmt: skip
    body = json.dumps({"id": "resp_1", "usage": usage}).encode()
    told, shown = asked().carriage("openai").answer(body, 100)
    assert (told, shown) == (Usage(input=6, cached_input=4, output=5, reasoning=3), body)


def test_a_broken_stream_ends_with_the_protocols_own_event() -> None:
    """Its clients know the type; those that look for an error object find one."""
    event, data = ResponsesFace().error_event(502, "upstream_error", "it broke").decode().strip().split("\n")
    assert event == "event: error"
    told = json.loads(data.removeprefix("data: "))
    assert (told["type"], told["code"], told["error"]["code"]) == ("error", "upstream_error", "upstream_error")
