"""A chat completion brought to an Anthropic backend: what goes there, and what is refused by name."""

import json
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from pydantic import TypeAdapter

from api.router.errors import RouterError
from api.router.faces.chat import parse_chat
from api.router.faces.face import Carriage
from domain.bound import OVERHEAD, TOOLS_OVERHEAD

USER = {"role": "user", "content": "hi"}
FUNCTION = {
    "name": "f",
    "description": "does",
    "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": "x"}'}}
ODD_CALL = {**CALL, "function": {"name": "f", "arguments": "7"}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}

_params: TypeAdapter[Any] = TypeAdapter(MessageCreateParamsNonStreaming)


def carriage(**fields: Any) -> Carriage:
    doc = {"model": "m", "messages": [USER], **fields}
    return parse_chat(json.dumps(doc).encode()).carriage("anthropic")


def sent(**fields: Any) -> dict[str, Any]:
    """What goes to the backend, but for its model and its cap; the client's own types accept it."""
    doc: dict[str, Any] = json.loads(carriage(**fields).body("up", 20))
    _params.validate_python(
        {name: value for name, value in doc.items() if name not in ("stream", "temperature", "top_p")}
    )
    assert (doc.pop("model"), doc.pop("max_tokens")) == ("up", 20)
    return doc


def said(*messages: dict[str, Any]) -> Any:
    return sent(messages=list(messages))


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


# -- the conversation


def test_a_question_is_a_turn() -> None:
    """And nothing else is sent that was not asked for."""
    assert sent() == {"messages": [{"role": "user", "content": [text("hi")]}]}


def test_instructions_at_the_start_are_the_system_and_later_ones_keep_their_place() -> None:
    """Whether they are called system or developer."""
    went = said(
        {"role": "system", "content": "be kind"},
        {"role": "developer", "content": [text("be"), text("brief")]},
        USER,
        {"role": "system", "content": "now be rude"},
    )
    assert went["system"] == [text("be kind"), text("be"), text("brief")]
    assert went["messages"] == [
        {"role": "user", "content": [text("hi")]},
        {"role": "system", "content": [text("now be rude")]},
    ]


def test_calls_and_their_results_are_blocks_of_two_turns() -> None:
    """Results of calls made in parallel are one turn, with what the user says next."""
    went = said(
        USER,
        {
            "role": "assistant",
            "content": "let me look",
            "refusal": None,
            "annotations": [],
            "audio": None,
            "tool_calls": [CALL, {**CALL, "id": "call_2", "function": {"name": "g", "arguments": ""}}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "1"},
        {"role": "tool", "tool_call_id": "call_2", "content": [text("2")]},
        {"role": "user", "content": "well?"},
    )
    assert went["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                text("let me look"),
                {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": "x"}},
                {"type": "tool_use", "id": "call_2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [text("1")]},
                {"type": "tool_result", "tool_use_id": "call_2", "content": [text("2")]},
                text("well?"),
            ],
        },
    ]


def test_an_empty_text_is_no_block() -> None:
    """The protocol has none; a call without words is one."""
    went = said(USER, {"role": "assistant", "content": "", "tool_calls": [CALL]}, {**USER, "content": "x"})
    assert [block["type"] for block in went["messages"][1]["content"]] == ["tool_use"]


@pytest.mark.parametrize("blank", [" ", "\n\t ", "\u00a0\u3000"])
def test_white_space_alone_is_no_words(blank: str) -> None:
    """The protocol refuses such a text wherever it is; with words in it, it stays as it is."""
    parts = [text("a"), text(blank), text(" b\n")]
    turns = said(
        {"role": "system", "content": blank}, {"role": "user", "content": parts}, {"role": "user", "content": blank}
    )
    assert turns == {"messages": [{"role": "user", "content": [text("a"), text(" b\n")]}]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": blank}
    turns = said(USER, {"role": "assistant", "content": blank, "tool_calls": [CALL]}, result)["messages"]
    assert [block["type"] for block in turns[1]["content"]] == ["tool_use"]
    assert turns[2]["content"] == [{"type": "tool_result", "tool_use_id": "call_1", "content": []}]


def test_who_says_nothing_has_no_turn() -> None:
    """The protocol refuses one without content, which this one has: an answer may be empty, and so is said again."""
    silent = {"role": "assistant", "content": "", "refusal": None}
    went = said(USER, silent, {"role": "user", "content": [text("again")]}, silent)
    assert went["messages"] == [{"role": "user", "content": [text("hi"), text("again")]}]


def test_images_and_documents_are_carried() -> None:
    """Data as data, a URL as a URL."""
    parts = [
        text("see"),
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0=", "detail": "auto"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
    ]
    assert said({"role": "user", "content": parts})["messages"][0]["content"] == [
        text("see"),
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {
            "type": "document",
            "title": "a.pdf",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
        },
    ]


# -- what goes with it


@pytest.mark.parametrize(
    ("fields", "went"),
    [
        ({"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "top_p": 0.9}),
        ({"stop": "x"}, {"stop_sequences": ["x"]}),
        ({"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
        ({"stop": None, "n": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "seed": None}, {}),
        ({"logprobs": False, "store": False, "metadata": {}, "modalities": ["text"], "verbosity": "medium"}, {}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"user": "ü" * 256}, {"metadata": {"user_id": "ü" * 256}}),
        ({"safety_identifier": "s", "user": "s"}, {"metadata": {"user_id": "s"}}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"reasoning_effort": "high"}, {"output_config": {"effort": "high"}}),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ({"stream": True, "stream_options": {"include_usage": False}}, {"stream": True}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "strict": True, "description": "a number"},
                }
            },
            {"output_config": {"format": {"type": "json_schema", "schema": {**SCHEMA, "description": "a number"}}}},
        ),
        ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}, {}),
    ],
)
def test_what_goes_with_it_is_carried(fields: dict[str, Any], went: dict[str, Any]) -> None:
    """By the names that it has there; what says nothing is not sent."""
    doc = sent(**fields)
    del doc["messages"]
    assert doc == went


@pytest.mark.parametrize(
    ("choice", "parallel", "went"),
    [
        (None, None, None),
        ("auto", True, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", None, {"type": "any"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"type": "function", "function": {"name": "f"}},
            False,
            {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_tools_and_their_choice_are_carried(choice: Any, parallel: bool | None, went: Any) -> None:
    """A function without parameters takes an empty object."""
    tools = [
        {"type": "function", "function": {**FUNCTION, "strict": True}},
        {"type": "function", "function": {"name": "g"}},
    ]
    doc = sent(tools=tools, tool_choice=choice, parallel_tool_calls=parallel)
    assert doc["tools"] == [
        {"name": "f", "description": "does", "input_schema": FUNCTION["parameters"], "strict": True},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]
    assert doc.get("tool_choice") == went


def test_tools_are_in_the_bound() -> None:
    """An Anthropic backend says more of them than their bytes do."""
    body = json.dumps(
        {"model": "m", "messages": [USER], "tools": [{"type": "function", "function": FUNCTION}]}
    ).encode()
    assert parse_chat(body).call.input_bound == len(body) + OVERHEAD + TOOLS_OVERHEAD


# -- what is not carried is refused


def user(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts), **more}]}


@pytest.mark.parametrize(
    ("fields", "param", "named"),
    [
        ({"n": 2}, "n", "n of this value"),
        ({"seed": 7}, "seed", "seed"),
        ({"logit_bias": {"1": 2}}, "logit_bias", "logit_bias"),
        ({"logprobs": True}, "logprobs", "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs", "top_logprobs of this value"),
        ({"presence_penalty": 0.5}, "presence_penalty", "presence_penalty of this value"),
        ({"temperature": 1.5}, "temperature", "temperature above 1"),
        ({"store": True}, "store", "store"),
        ({"metadata": {"a": "b"}}, "metadata", "metadata"),
        ({"modalities": ["text", "audio"]}, "modalities", "modalities other than text"),
        ({"verbosity": "low"}, "verbosity", "verbosity of this value"),
        ({"reasoning_effort": "minimal"}, "reasoning_effort", "reasoning_effort of this value"),
        ({"service_tier": "flex"}, "service_tier", "service_tier of this value"),
        ({"prompt_cache_key": "k"}, "prompt_cache_key", "prompt_cache_key"),
        ({"user": "a", "safety_identifier": "b"}, "user", "user beside another"),
        ({"response_format": {"type": "json_object"}}, "response_format", "response_format.type of this value"),
        ({"functions": [FUNCTION]}, "functions", "functions"),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options", "web_search_options"),
        ({"web_search_options": {}}, "web_search_options", "web_search_options"),
        ({"unheard_of": 0}, "unheard_of", "unheard_of"),
        ({"stream_options": {"include_obfuscation": True}}, "stream_options", "stream_options.include_obfuscation"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools", "tools[0].type of this value"),
        (
            {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": {"type": "allowed_tools"}},
            "tool_choice",
            "tool_choice.type of this value",
        ),
        (
            {
                "tools": [{"type": "function", "function": FUNCTION}],
                "tool_choice": {"type": "function", "function": {"name": "f", "mode": "x"}},
            },
            "tool_choice",
            "tool_choice.function.mode",
        ),
        (user({"type": "input_audio", "input_audio": {}}), "messages", "messages[0].content[0] of this type"),
        (user({"type": "file", "file": {"file_id": "f"}}), "messages", "messages[0].content[0].file.file_id"),
        (
            user({"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}}),
            "messages",
            "messages[0].content[0].image_url.detail of this value",
        ),
        (user({**text("x"), "prompt_cache_breakpoint": {"mode": "explicit"}}), "messages", "prompt_cache_breakpoint"),
        (user(text("x"), name="bob"), "messages", "messages[0].name"),
        ({"messages": [USER, {"role": "assistant", "audio": {"id": "a"}}, USER]}, "messages", "messages[1].audio"),
        (
            {"messages": [USER, {"role": "function", "name": "f", "content": "x"}]},
            "messages",
            "messages[1].role of this value",
        ),
        ({"messages": [USER, {"role": "assistant", "content": "Once"}]}, "messages", "ends with the assistant's words"),
        ({"messages": [{"role": "system", "content": "be kind"}]}, "messages", "instructions alone"),
        ({"user": "u" * 257}, "user", "user of more than 256 characters"),
        ({"safety_identifier": "s" * 257}, "safety_identifier", "safety_identifier of more than 256 characters"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages", "no words"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages", "no words"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(fields: dict[str, Any], param: str, named: str) -> None:
    """Never left out in silence."""
    with pytest.raises(RouterError) as refused:
        carriage(**fields)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", param)
    assert named in refused.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"tool_choice": "any", "tools": [{"type": "function", "function": FUNCTION}]}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}, "tools": []}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"messages": [{**USER, "content": [{"type": "text"}]}]}, "messages"),
        (user({"type": "image_url", "image_url": {"url": "ftp://x"}}), "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "7"}}]}
                ]
            },
            "messages",
        ),
    ],
)
def test_what_no_backend_would_take_is_named(fields: dict[str, Any], param: str) -> None:
    """It could not be turned into anything."""
    with pytest.raises(RouterError) as refused:
        carriage(**fields)
    assert (refused.value.code, refused.value.param) == ("invalid_value", param)
