"""A request of Anthropic's messages: what it may cost, what is wrong with it, and what goes upstream."""

import json
from typing import Any

import msgspec
import pytest

from api.router.errors import RouterError
from api.router.faces.anthropic import AnthropicFace
from api.router.faces.fields import MAX_OUTPUT
from api.router.faces.messages import MessagesRequest, parse_messages
from api.router.faces.messages_bound import PICTURE_TOKENS
from commands.admission import Call
from domain.bound import OVERHEAD, TOOLS_OVERHEAD

TEXT = [{"role": "user", "content": "hi"}]
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 4000}}
TOOL = {"name": "f", "input_schema": {"type": "object"}}
HOUR = {"type": "ephemeral", "ttl": "1h"}


def body(**fields: Any) -> bytes:
    doc = {"model": "m", "max_tokens": 20, "messages": TEXT, **fields}
    return json.dumps({name: value for name, value in doc.items() if value is not ...}).encode()


def asked(sent: bytes, **headers: str) -> MessagesRequest:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return parse_messages(sent, named.get)


def said(*, headers: dict[str, str] | None = None, **fields: Any) -> Call:
    return asked(body(**fields), **(headers or {})).call


# -- what is wrong with it


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"[]", "invalid_value", None),
        (body(model=...), "missing_model", "model"),
        (body(max_tokens=...), "invalid_value", "max_tokens"),
        (body(max_tokens=None), "invalid_value", "max_tokens"),
        (body(max_tokens=-1), "invalid_value", "max_tokens"),
        (body(max_tokens=MAX_OUTPUT + 1), "invalid_value", "max_tokens"),
        (body(max_tokens="20"), "invalid_value", "max_tokens"),
        (body(messages=...), "invalid_value", "messages"),
        (body(messages=[]), "invalid_value", "messages"),
        (body(messages="hi"), "invalid_value", "messages"),
        (body(messages=[{"role": "user"}]), "invalid_value", "messages"),
        (body(messages=[{"role": "user", "content": 7}]), "invalid_value", "messages"),
        (body(messages=[{"role": "user", "content": ["hi"]}]), "invalid_value", "messages"),
        (
            body(messages=[{"role": "user", "content": [{"type": "tool_result", "content": {}}]}]),
            "invalid_value",
            "messages",
        ),
        (body(system=7), "invalid_value", "system"),
        (body(tools=[7]), "invalid_value", "tools"),
        (body(stream="yes"), "invalid_value", "stream"),
        (body(cache_control=7), "invalid_value", "cache_control"),
    ],
)
def test_the_field_at_fault_is_named(sent: bytes, code: str, param: str | None) -> None:
    """Nothing that decides about money is guessed; a cap is required, as the protocol has it."""
    with pytest.raises(RouterError) as refused:
        asked(sent)
    assert (refused.value.code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("name", "value"), [("anthropic-version", "yesterday"), ("anthropic-beta", "a b"), ("anthropic-beta", "x\r\ny: z")]
)
def test_headers_of_the_protocol_are_looked_at(name: str, value: str) -> None:
    """They go upstream: nothing but dates and names may."""
    with pytest.raises(RouterError) as refused:
        parse_messages(body(), {name.encode(): value.encode()}.get)
    assert (refused.value.code, refused.value.param) == ("invalid_value", name)


# -- what it may cost


def test_text_is_bounded_by_its_bytes_and_its_cap() -> None:
    """No tokenizer makes more tokens than bytes."""
    sent = body()
    call = asked(sent).call
    assert call.input_bound == len(sent) + OVERHEAD
    assert call == Call("messages", "m", False, call.input_bound, len(sent) // 4, cap=20)


def test_filling_a_cache_puts_nothing_out() -> None:
    """A cap of zero is a cap."""
    assert said(max_tokens=0).cap == 0


@pytest.mark.parametrize("fields", [{"tools": [TOOL]}, {"output_config": {"format": {"type": "json_schema"}}}])
def test_what_the_backend_explains_to_the_model_is_in_the_bound(fields: dict[str, Any]) -> None:
    """It says more of tools and schemas than their bytes do."""
    assert said(**fields).input_bound == len(body(**fields)) + OVERHEAD + TOOLS_OVERHEAD


def test_pictures_are_not_counted_as_text() -> None:
    """What is charged against tokens per minute is about what they have, not their bytes."""
    sent = body(messages=[{"role": "user", "content": [PNG]}])
    assert asked(sent).call.estimated_input == (len(sent) - 4002) // 4 + PICTURE_TOKENS


@pytest.mark.parametrize(
    ("fields", "unbounded", "context"),
    [
        (
            {
                "temperature": 0,
                "top_k": 3,
                "stop_sequences": ["x"],
                "metadata": {"user_id": "u"},
                "service_tier": "auto",
                "thinking": {"type": "enabled", "budget_tokens": 1024},
                "speed": "standard",
                "cache_control": {"type": "ephemeral"},
            },
            None,
            False,
        ),
        ({"container": "c"}, "container", False),
        ({"mcp_servers": [{"url": "http://x"}]}, "mcp_servers", False),
        ({"mcp_servers": [], "container": None}, None, False),
        ({"context_management": {"edits": [1]}}, "context_management", False),
        ({"inference_geo": "us"}, "inference_geo", False),
        ({"speed": "fast"}, "speed", False),
        ({"cache_control": HOUR}, "cache_control", False),
        ({"system": [{"type": "text", "text": "x", "cache_control": HOUR}]}, "cache_control", False),
        ({"tools": [{**TOOL, "cache_control": HOUR}]}, "cache_control", False),
        ({"tools": [TOOL, {**TOOL, "type": "custom"}, {**TOOL, "type": None}]}, None, False),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, None, True),
        ({"tools": [{"type": "text_editor_20250728", "name": "e"}]}, None, True),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools", False),
        ({"tools": [{"type": "code_execution_20250825", "name": "c"}]}, "tools", False),
        ({"tools": [{"type": "bash", "name": "b"}]}, None, True),
    ],
)
def test_only_known_fields_have_a_bound(fields: dict[str, Any], unbounded: str | None, context: bool) -> None:
    """A whitelist: what is not on it and says something is named."""
    call = said(**fields)
    assert (call.unbounded, call.context_bounded) == (unbounded, context)


@pytest.mark.parametrize(
    ("block", "unbounded", "context"),
    [
        ({"type": "text", "text": "hi"}, None, False),
        ({"type": "thinking", "thinking": "x", "signature": "s"}, None, False),
        ({"type": "redacted_thinking", "data": "x"}, None, False),
        ({"type": "tool_use", "id": "t", "name": "f", "input": {"type": "image"}}, None, False),
        ({"type": "search_result", "source": "http://x", "title": "t", "content": []}, None, False),
        ({"type": "tool_result", "tool_use_id": "t"}, None, False),
        ({"type": "tool_result", "tool_use_id": "t", "content": None}, None, False),
        ({"type": "tool_result", "tool_use_id": "t", "content": "ok"}, None, False),
        ({"type": "tool_result", "tool_use_id": "t", "content": [PNG]}, None, True),
        ({"type": "tool_result", "content": [{"type": "hologram"}]}, "messages content block 'hologram'", False),
        (PNG, None, True),
        ({"type": "image", "source": {"type": "url", "url": "http://x"}}, None, True),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}}, None, True),
        ({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": "5m"}}, None, False),
        ({"type": "text", "text": "hi", "cache_control": HOUR}, "cache_control", False),
        (
            {"type": "search_result", "content": [{"type": "text", "text": "x", "cache_control": HOUR}]},
            "cache_control",
            False,
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "cache_control": HOUR}]}},
            "cache_control",
            True,
        ),
        ({"type": "document", "source": {"type": "content", "content": "x"}}, None, True),
        ({"type": "container_upload", "file_id": "f"}, "messages content block 'container_upload'", False),
        ({}, "messages content block ''", False),
    ],
)
def test_blocks_have_a_bound_or_the_contexts_or_none(
    block: dict[str, Any], unbounded: str | None, context: bool
) -> None:
    """Wherever in the conversation they are."""
    call = said(messages=[*TEXT, {"role": "user", "content": [block]}, *TEXT])
    assert (call.unbounded, call.context_bounded) == (unbounded, context)


@pytest.mark.parametrize(
    ("betas", "unbounded"),
    [
        ("interleaved-thinking-2025-05-14", None),
        ("claude-code-20250219, fine-grained-tool-streaming-2025-05-14,", None),
        ("context-1m-2025-08-07", "anthropic-beta"),
        ("interleaved-thinking-2025-05-14,fast-mode-2026-02-01", "anthropic-beta"),
        ("unheard-of", "anthropic-beta"),
    ],
)
def test_betas_that_may_change_the_price_have_no_bound(betas: str, unbounded: str | None) -> None:
    """A longer context, a faster mode: no listed price holds for them."""
    assert said(headers={"anthropic-beta": betas}).unbounded == unbounded


# -- what goes upstream

ODD = b' {"model" : "m","max_tokens":20,"temperature":1.0e0, "messages":[ {"role":"user","content":"\\u00e9 \xc3\xa9"}] } \n'


def raw(sent: bytes) -> dict[str, bytes]:
    """The fields, each as its bytes."""
    return {name: bytes(value) for name, value in msgspec.json.decode(sent, type=dict[str, msgspec.Raw]).items()}


def test_what_needs_no_change_goes_as_it_came() -> None:
    """Byte for byte."""
    assert asked(ODD).carriage("anthropic").body("m", 20) == ODD


def test_only_the_models_name_is_touched() -> None:
    """Every other value keeps its bytes, and fields their order."""
    went = raw(asked(ODD).carriage("anthropic").body("up", 20))
    assert went == {**raw(ODD), "model": b'"up"'}
    assert list(went) == list(raw(ODD))


@pytest.mark.parametrize(
    ("headers", "lines"),
    [
        ({}, b"anthropic-version: 2023-06-01\r\n"),
        ({"anthropic-version": "2026-10-21"}, b"anthropic-version: 2026-10-21\r\n"),
        (
            {"anthropic-beta": "pdfs-2024-09-25 , token-counting-2024-11-01"},
            b"anthropic-version: 2023-06-01\r\nanthropic-beta: pdfs-2024-09-25,token-counting-2024-11-01\r\n",
        ),
    ],
)
def test_the_protocols_headers_go_along(headers: dict[str, str], lines: bytes) -> None:
    """The caller's version and betas, or the version that this was written for."""
    assert asked(body(), **headers).carriage("anthropic").headers == lines


# -- errors


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_value", "invalid_request_error"),
        (401, "invalid_api_key", "authentication_error"),
        (402, "insufficient_quota", "billing_error"),
        (429, "insufficient_quota", "billing_error"),
        (403, "model_not_allowed", "permission_error"),
        (404, "model_not_found", "not_found_error"),
        (409, "duplicate_request", "invalid_request_error"),
        (422, "unbounded_cost", "invalid_request_error"),
        (429, "budget_busy", "rate_limit_error"),
        (502, "upstream_error", "api_error"),
        (503, "overloaded", "overloaded_error"),
        (503, "not_ready", "api_error"),
        (504, "upstream_timeout", "timeout_error"),
    ],
)
def test_errors_have_anthropics_shape_and_our_codes(status: int, code: str, kind: str) -> None:
    """With the field at fault, what else there is to say, and the request's id."""
    shown = json.loads(AnthropicFace().error(status, code, "why", "messages", {"budget": {"id": "b"}}, "req_1"))
    error = {"type": kind, "message": "why", "param": "messages", "code": code, "budget": {"id": "b"}}
    assert shown == {"type": "error", "error": error, "request_id": "req_1"}


def test_a_stream_ends_with_an_error_event() -> None:
    """As Anthropic's own clients expect it."""
    event = AnthropicFace().error_event(504, "upstream_timeout", "late")
    assert event.startswith(b'event: error\ndata: {"type":"error","error":{"type":"timeout_error"')
    assert event.endswith(b"\n\n")
