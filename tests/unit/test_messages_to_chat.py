"""Anthropic's messages brought to an OpenAI backend: what goes there, and what is refused by name."""

import json
from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from api.router.errors import RouterError
from api.router.faces.face import Carriage
from api.router.faces.messages import parse_messages

USER = {"role": "user", "content": "hi"}
TOOL = {"name": "f", "description": "does", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
CACHED = {"cache_control": {"type": "ephemeral"}}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}

_params: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)


def carriage(headers: dict[str, str] | None = None, **fields: Any) -> Carriage:
    doc = {"model": "m", "max_tokens": 20, "messages": [USER], **fields}
    named = {name.encode(): value.encode() for name, value in (headers or {}).items()}
    return parse_messages(json.dumps(doc).encode(), named.get).carriage("openai")


def sent(headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """What goes to the backend, but for its model and its cap; the client's own types accept it."""
    doc: dict[str, Any] = json.loads(carriage(headers, **fields).body("up", 20))
    _params.validate_python({name: value for name, value in doc.items() if not name.startswith("stream")})
    assert (doc.pop("model"), doc.pop("max_completion_tokens")) == ("up", 20)
    return doc


def test_the_cap_has_the_name_that_the_backend_heeds() -> None:
    """The usual one, where nothing is known."""
    caps = {name: json.loads(carriage().body("up", 7, name)) for name in (None, "max_completion_tokens", "max_tokens")}
    assert [doc.get("max_completion_tokens") for doc in caps.values()] == [7, 7, None]
    assert [doc.get("max_tokens") for doc in caps.values()] == [None, None, 7]


def said(*messages: dict[str, Any], **fields: Any) -> Any:
    return sent(messages=list(messages), **fields)["messages"]


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def result(id_: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id_, **more}


def call(id_: str, name: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": name, "input": given}


# -- the conversation


def test_a_question_is_a_message() -> None:
    """And nothing else is sent that was not asked for."""
    assert sent() == {"messages": [USER]}


@pytest.mark.parametrize(
    ("system", "content"),
    [
        ("be kind", "be kind"),
        ([text("be kind", **CACHED)], "be kind"),
        ([text("be"), text("kind")], [text("be"), text("kind")]),
    ],
)
def test_the_system_comes_first(system: Any, content: Any) -> None:
    """One text is a string, which every backend reads; later system turns keep their place."""
    went = said(USER, {"role": "system", "content": "be brief"}, USER, system=system)
    assert went == [{"role": "system", "content": content}, USER, {"role": "system", "content": "be brief"}, USER]


def test_uses_of_tools_and_their_results_are_calls_and_messages() -> None:
    """Results come first, one message each; that one failed is said before it."""
    went = said(
        USER,
        {"role": "assistant", "content": [text("let me look"), call("t1", "f", a="x"), call("t2", "g")]},
        {
            "role": "user",
            "content": [
                result("t1", content="1"),
                result("t2", content=[text("no"), text("way")], is_error=True),
                result("t3"),
                text("well?", **CACHED),
            ],
        },
    )
    assert went[1:] == [
        {
            "role": "assistant",
            "content": "let me look",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": "x"}'}},
                {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "1"},
        {"role": "tool", "tool_call_id": "t2", "content": [text("Error: no"), text("way")]},
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {"role": "user", "content": "well?"},
    ]


def test_an_assistant_who_only_calls_says_nothing() -> None:
    """Null, as the protocol has it."""
    assert said(USER, {"role": "assistant", "content": [call("t", "f")]}, USER)[1]["content"] is None


def test_an_assistant_who_said_nothing_said_so() -> None:
    """Without words or calls a message is none; an answer may be empty, and so is said again."""
    assert said(USER, {"role": "assistant", "content": []}, USER)[1] == {"role": "assistant", "content": ""}


def test_images_and_documents_are_carried() -> None:
    """Data as data, a URL as a URL, a document of text as text."""
    blocks = [
        text("see"),
        {"type": "image", "source": PNG},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
        {"type": "document", "title": "a.txt", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
    ]
    assert said({"role": "user", "content": blocks})[0]["content"] == [
        text("see"),
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
        text("a.txt\n\nwords"),
    ]


# -- what goes with it


@pytest.mark.parametrize(
    ("fields", "went"),
    [
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"stop_sequences": ["x"]}, {"stop": ["x"]}),
        ({"stop_sequences": [], "metadata": {}, "mcp_servers": [], "container": None}, {}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"speed": "standard", **CACHED}, {}),
        ({"thinking": {"type": "disabled"}}, {}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "max"}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        ({"tools": [], "tool_choice": {"type": "auto"}}, {}),
    ],
)
def test_what_goes_with_it_is_carried(fields: dict[str, Any], went: dict[str, Any]) -> None:
    """By the names that it has there; what says nothing is not sent."""
    doc = sent(**fields)
    del doc["messages"]
    assert doc == went


@pytest.mark.parametrize(
    ("choice", "went"),
    [
        (None, {}),
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "any", "disable_parallel_tool_use": True}, {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"type": "tool", "name": "f"}, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
    ],
)
def test_tools_and_their_choice_are_carried(choice: Any, went: dict[str, Any]) -> None:
    """Marks for a cache need no place there."""
    doc = sent(tools=[{**TOOL, "type": "custom", "strict": True, **CACHED}, {**TOOL, "name": "g"}], tool_choice=choice)
    function = {"name": "f", "description": "does", "parameters": TOOL["input_schema"], "strict": True}
    assert doc["tools"][0] == {"type": "function", "function": function}
    assert doc["tools"][1]["function"]["name"] == "g"
    assert {name: doc[name] for name in ("tool_choice", "parallel_tool_calls") if name in doc} == went


def test_betas_that_only_name_what_the_body_says_are_no_hindrance() -> None:
    """What they are for is refused where it is asked for."""
    assert sent({"anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14"}) == {"messages": [USER]}


# -- what is not carried is refused


def user(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"messages": [USER, {"role": "assistant", "content": list(blocks)}, USER]}


@pytest.mark.parametrize(
    ("fields", "param", "named"),
    [
        ({"top_k": 5}, "top_k", "top_k"),
        ({"max_tokens": 0}, "max_tokens", "filling a cache"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking", "thinking.type of this value"),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, "thinking", "thinking.display"),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, "cache_control", "cache_control.ttl of this value"),
        ({"speed": "fast"}, "speed", "speed of this value"),
        ({"container": "c"}, "container", "container"),
        ({"mcp_servers": [{"url": "https://x"}]}, "mcp_servers", "mcp_servers"),
        ({"context_management": {"edits": [1]}}, "context_management", "context_management"),
        ({"unheard_of": 0}, "unheard_of", "unheard_of"),
        ({"metadata": {"user_id": "u", "else": 1}}, "metadata", "metadata.else"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "tools",
            "tools[0].type of this value",
        ),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools", "tools[0].defer_loading"),
        ({"tools": [{**TOOL, "input_examples": [{"a": "x"}]}]}, "tools", "tools[0].input_examples"),
        ({"output_config": {"format": {"type": "grammar"}}}, "output_config", "output_config.format.type"),
        (user({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages", "source.type of this value"),
        (
            user({"type": "document", "source": {"type": "url", "url": "https://x"}}),
            "messages",
            "messages[0].content[0].source.type of this value",
        ),
        (
            user({"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}}),
            "messages",
            "messages[0].content[0].citations.enabled",
        ),
        (
            user({"type": "search_result", "source": "x", "title": "t", "content": []}),
            "messages",
            "messages[0].content[0] of this type",
        ),
        (
            user(result("t", content=[{"type": "image", "source": PNG}])),
            "messages",
            "messages[0].content[0].content[0] of this type",
        ),
        (
            user(text("x", cache_control={"type": "ephemeral", "ttl": "1h"})),
            "messages",
            "cache_control.ttl of this value",
        ),
        (
            assistant({"type": "thinking", "thinking": "hm", "signature": "s"}),
            "messages",
            "messages[1].content[0] of this type",
        ),
        (assistant({"type": "redacted_thinking", "data": "x"}), "messages", "messages[1].content[0] of this type"),
        (assistant(text("x", citations=[{"type": "char_location"}])), "messages", "messages[1].content[0].citations"),
        (assistant(call("t", "f"), text("then")), "messages", "words behind a call"),
        ({"messages": [USER, {"role": "assistant", "content": "Once"}]}, "messages", "the beginning of an answer"),
        ({"system": [{"type": "image", "source": PNG}]}, "system", "system[0] of this type"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(fields: dict[str, Any], param: str, named: str) -> None:
    """Never left out in silence."""
    with pytest.raises(RouterError) as refused:
        carriage(**fields)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", param)
    assert named in refused.value.message


def test_a_beta_that_may_change_anything_is_refused() -> None:
    """No backend of another protocol knows what it is."""
    with pytest.raises(RouterError) as refused:
        carriage({"anthropic-beta": "context-1m-2025-08-07"})
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "anthropic-beta")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages"),
        (user({"type": "text"}), "messages"),
        (user(text("x"), result("t")), "messages"),
        (user({"type": "tool_result", "content": "x"}), "messages"),
        ({"tools": [{"name": "f"}]}, "tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "some"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "f"}, "tools": []}, "tool_choice"),
        ({"metadata": {"user_id": 7}}, "metadata"),
    ],
)
def test_what_no_backend_would_take_is_named(fields: dict[str, Any], param: str) -> None:
    """It could not be turned into anything."""
    with pytest.raises(RouterError) as refused:
        carriage(**fields)
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)
