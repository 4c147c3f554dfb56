"""A chat completion request: what it may cost, what is wrong with it, and what goes upstream."""

import json
from typing import Any

import msgspec
import pytest

from api.router.errors import RouterError
from api.router.faces.chat import MAX_CHOICES, ChatRequest, parse_chat
from api.router.faces.fields import MAX_OUTPUT
from commands.admission import Call
from domain.bound import OVERHEAD, TOOLS_OVERHEAD

TEXT = [{"role": "user", "content": "hi"}]


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": TEXT, **fields}).encode()


def said(**fields: Any) -> Call:
    return parse_chat(body(**fields)).call


# -- what is wrong with it


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b'{"model":', "invalid_json", None),
        (b"[]", "invalid_value", None),
        (b'{"messages":[{"role":"user"}]}', "missing_model", "model"),
        (body(model=""), "missing_model", "model"),
        (body(model=7), "invalid_value", "model"),
        (body(Model="dear"), "invalid_value", "model"),
        (b'{"model":"m"}', "invalid_value", "messages"),
        (body(messages=[]), "invalid_value", "messages"),
        (body(messages="hi"), "invalid_value", "messages"),
        (body(messages=[{"content": "hi"}]), "invalid_value", "messages"),
        (body(messages=[{"role": "user", "content": 7}]), "invalid_value", "messages"),
        (body(messages=[{"role": "user", "content": ["hi"]}]), "invalid_value", "messages"),
        (body(stream="yes"), "invalid_value", "stream"),
        (body(stream_options=[]), "invalid_value", "stream_options"),
        (body(n=0), "invalid_value", "n"),
        (body(n=MAX_CHOICES + 1), "invalid_value", "n"),
        (body(n=1.5), "invalid_value", "n"),
        (body(max_tokens=0), "invalid_value", "max_tokens"),
        (body(max_tokens=5, max_completion_tokens=MAX_OUTPUT + 1), "invalid_value", "max_completion_tokens"),
        (body(max_completion_tokens="5"), "invalid_value", "max_completion_tokens"),
        (body(tools=[7]), "invalid_value", "tools"),
        (body(modalities="audio"), "invalid_value", "modalities"),
    ],
)
def test_the_field_at_fault_is_named(sent: bytes, code: str, param: str | None) -> None:
    """Nothing that decides about money is guessed."""
    with pytest.raises(RouterError) as refused:
        parse_chat(sent)
    assert (refused.value.code, refused.value.param) == (code, param)


# -- what it may cost


def test_text_is_bounded_by_its_bytes() -> None:
    """No tokenizer makes more tokens than bytes."""
    sent = body()
    call = parse_chat(sent).call
    assert call.input_bound == len(sent) + OVERHEAD
    assert call == Call("chat.completions", "m", False, call.input_bound, len(sent) // 4)


@pytest.mark.parametrize(
    ("fields", "cap"),
    [
        ({}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 9),
        ({"max_tokens": MAX_OUTPUT}, MAX_OUTPUT),
    ],
)
def test_of_two_caps_the_larger_counts(fields: dict[str, Any], cap: int | None) -> None:
    """Which of them a backend heeds is not known."""
    assert said(**fields).cap == cap


def test_choices_are_one_unless_stated() -> None:
    """Null is not stated."""
    assert [said().choices, said(n=None).choices, said(n=3).choices] == [1, 1, 3]


@pytest.mark.parametrize(
    ("fields", "unbounded"),
    [
        ({"temperature": 0, "seed": 1, "stop": ["x"], "response_format": {"type": "json_object"}}, None),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, None),
        ({"audio": {"voice": "alloy"}, "modalities": ["text", "audio"]}, None),
        ({"modalities": ["text", "image"]}, "modalities"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"whatever": True}, "whatever"),
        ({"whatever": 0}, "whatever"),
        ({"a": None, "b": False, "c": [], "d": {}}, None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"function": {}}]}, None),
        ({"tools": None}, None),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, "tools"),
        ({"service_tier": "auto"}, None),
        ({"service_tier": "default"}, None),
        ({"service_tier": None}, None),
        ({"service_tier": "priority"}, "service_tier"),
    ],
)
def test_only_known_fields_have_a_bound(fields: dict[str, Any], unbounded: str | None) -> None:
    """A whitelist: what is not on it and says something is named."""
    assert said(**fields).unbounded == unbounded


@pytest.mark.parametrize("name", ["tools", "functions", "response_format"])
def test_what_the_backend_explains_to_the_model_is_in_the_bound(name: str) -> None:
    """It says more of tools and schemas than their bytes do."""
    fields: dict[str, Any] = {name: None}
    assert said(**fields).input_bound == len(body(**fields)) + OVERHEAD + TOOLS_OVERHEAD


@pytest.mark.parametrize(
    ("fields", "spoken"),
    [
        (b"", False),
        (b',"modalities":null,"audio":null', False),
        (b',"modalities":["text"]', False),
        (b',"modalities":["text","\\u0061udio"]', True),
        (b',"audio":{"voice":"alloy"}', True),
    ],
)
def test_an_answer_that_may_be_sound_is_told(fields: bytes, spoken: bool) -> None:
    """However it is spelt: sound may cost more than text."""
    assert parse_chat(body()[:-1] + fields + b"}").call.spoken is spoken


@pytest.mark.parametrize(
    ("message", "unbounded", "context"),
    [
        ({"role": "user", "content": None}, None, False),
        ({"role": "assistant"}, None, False),
        ({"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "refusal"}]}, None, False),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://i"}}]}, None, True),
        ({"role": "user", "content": [{"type": "input_audio"}, {"type": "file"}]}, None, True),
        ({"role": "assistant", "audio": {"id": "audio_1"}}, None, True),
        ({"role": "user", "content": [{"type": "hologram"}]}, "messages content part 'hologram'", False),
        ({"role": "user", "content": [{}]}, "messages content part ''", False),
    ],
)
def test_parts_of_messages_have_a_bound_or_the_contexts_or_none(
    message: dict[str, Any], unbounded: str | None, context: bool
) -> None:
    """Wherever in the conversation they are."""
    call = said(messages=[*TEXT, message, *TEXT])
    assert (call.unbounded, call.context_bounded) == (unbounded, context)


# -- what goes upstream

ODD = b' {"model" : "m","temperature":1.0e0, "messages":[ {"role":"user","content":"\\u00e9 \xc3\xa9"}]%b } \n'


def odd(more: bytes = b"") -> tuple[bytes, ChatRequest]:
    """A body as nobody would write it, and what it is read as."""
    sent = ODD.replace(b"%b", more)
    return sent, parse_chat(sent)


def raw(sent: bytes) -> dict[str, bytes]:
    """The fields, each as its bytes."""
    return {name: bytes(value) for name, value in msgspec.json.decode(sent, type=dict[str, msgspec.Raw]).items()}


@pytest.mark.parametrize(
    "more",
    [
        b',"max_tokens": 20',
        b',"max_completion_tokens":20, "max_tokens":null',
        b',"max_tokens":20,"stream":true,"stream_options":{ "include_usage":true}',
        b',"max_tokens":20,"stream":false',
    ],
)
def test_what_needs_no_change_goes_as_it_came(more: bytes) -> None:
    """Byte for byte."""
    sent, request = odd(more)
    assert request.carriage("openai").body("m", 20) == sent


@pytest.mark.parametrize(
    ("more", "upstream", "changed"),
    [
        (b',"max_tokens":20', "m-up", {"model": b'"m-up"'}),
        (b"", "m", {"max_completion_tokens": b"20"}),
        (b',"max_tokens":null', "m", {"max_completion_tokens": b"20"}),
        (b',"max_tokens":20,"stream":true', "m", {"stream_options": b'{"include_usage":true}'}),
        (
            b',"max_tokens":20,"stream":true,"stream_options":{"include_usage":false,"x":1}',
            "m",
            {"stream_options": b'{"include_usage":true,"x":1}'},
        ),
        (b',"max_tokens":20,"stream":true,"stream_options":null', "m", {"stream_options": b'{"include_usage":true}'}),
        (
            b',"stream":true',
            "m-up",
            {"model": b'"m-up"', "max_completion_tokens": b"20", "stream_options": b'{"include_usage":true}'},
        ),
    ],
)
def test_only_what_must_change_is_touched(more: bytes, upstream: str, changed: dict[str, bytes]) -> None:
    """Model name, granted cap, usage on streams; every other value keeps its bytes, and fields their order."""
    sent, request = odd(more)
    went = raw(request.carriage("openai").body(upstream, 20))
    assert went == {**raw(sent), **changed}
    assert list(went) == list({**raw(sent), **changed})


@pytest.mark.parametrize("cap_field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"max_tokens": None},
        {"max_tokens": 20},
        {"max_completion_tokens": 20},
        {"max_completion_tokens": 30},
        {"max_tokens": 9, "max_completion_tokens": 30},
    ],
)
def test_the_cap_is_in_the_one_field_that_the_backend_heeds(cap_field: str, stated: dict[str, int | None]) -> None:
    """However the caller spelled it, and if he did not."""
    sent = body(**stated)
    went = json.loads(parse_chat(sent).carriage("openai").body("m", 20, cap_field))
    others = {name: value for name, value in json.loads(sent).items() if name not in stated}
    assert went == {**others, cap_field: 20}


def test_the_cap_in_force_is_the_one_that_is_changed() -> None:
    """Of two caps the larger is the one that was held for."""
    for fields in ({"max_tokens": 9, "max_completion_tokens": 7}, {"max_tokens": 7, "max_completion_tokens": 9}):
        sent = body(**fields)
        went = json.loads(parse_chat(sent).carriage("openai").body("m", 8))
        assert sorted((went["max_tokens"], went["max_completion_tokens"])) == [7, 8]
