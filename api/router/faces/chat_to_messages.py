"""A chat completion brought to a backend that speaks Anthropic's messages.

`chat_to_messages_turns` carries the conversation, this module all that goes with it; `docs/translation.md` is the table of
both. What has no place there is refused before anything is held.
"""

from typing import Any

import msgspec
from msgspec import Raw

from api.router.faces.carrying import Members, bad, is_text
from api.router.faces.chat_to_messages_answer import chat_of_message, chat_refusal
from api.router.faces.chat_to_messages_stream import ChatOfMessages
from api.router.faces.chat_to_messages_turns import conversation
from api.router.faces.fields import Fields
from api.router.faces.messages import protocol_headers
from domain.facts import Usage

_TIERS = {"auto": "auto", "default": "standard_only"}
_MAX_USER = 256
"""Characters of ``metadata.user_id``."""

_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_CHOICES = {"auto": "auto", "none": "none", "required": "any"}

_encode = msgspec.json.encode


class ChatToMessages:
    """See `Carriage`. Raises `RouterError` (``unsupported_parameter``, ``invalid_value``) when it is made."""

    __slots__ = ("_asked_usage", "_rest")
    path = "/v1/messages"
    headers = protocol_headers()

    def __init__(self, fields: Fields, asked_usage: bool) -> None:
        self._asked_usage, self._rest = asked_usage, _encode(messages_doc(fields))[1:]

    def body(self, upstream_model: str, grant: int, cap_field: str | None = None) -> bytes:
        """See `Carriage.body`."""
        del cap_field  # there is one name
        return b'{"model":%b,"max_tokens":%d,' % (_encode(upstream_model), grant) + self._rest

    def answer(self, body: bytes, ceiling: int) -> tuple[Usage | None, bytes]:
        """See `Carriage.answer`."""
        return chat_of_message(body, ceiling)

    def refusal(self, status: int, body: bytes) -> bytes:
        """See `Carriage.refusal`."""
        return chat_refusal(status, body)

    def relay(self, ceiling: int) -> ChatOfMessages:
        """See `Carriage.relay`."""
        return ChatOfMessages(self._asked_usage, ceiling)


def messages_doc(fields: Fields) -> dict[str, Any]:
    """The body that goes to the backend, but for its model and its cap."""
    body = Members(fields)
    for name in ("model", "max_tokens", "max_completion_tokens"):
        body.raw(name)
    body.one_of("n", "1")
    options = body.inside("stream_options")
    options.take("include_usage", bool)
    options.end()
    doc: dict[str, Any] = {}
    system, doc["messages"] = conversation(body.within("messages"))
    if system:
        doc["system"] = system
    if body.take("stream", bool):
        doc["stream"] = True
    _sampling(body, doc)
    _tools(body, doc)
    _output(body, doc)
    _about(body, doc)
    body.end()
    return doc


def _sampling(body: Members, doc: dict[str, Any]) -> None:
    temperature, top_p = body.raw("temperature"), body.raw("top_p")
    if temperature is not None:
        if not 0 <= (value := number(temperature, "temperature")) <= 2:
            raise bad("temperature", "temperature must be between 0 and 2")
        if value > 1:
            raise body.cannot("temperature", " above 1")
        doc["temperature"] = temperature
    if top_p is not None:
        doc["top_p"] = top_p
    if (stop := body.raw("stop")) is not None:
        doc["stop_sequences"] = [stop] if is_text(stop) else stop
    for neutral in ("presence_penalty", "frequency_penalty", "top_logprobs"):
        if number(body.raw(neutral) or Raw(b"0"), neutral) != 0:
            raise body.cannot(neutral, " of this value")


def _tools(body: Members, doc: dict[str, Any]) -> None:
    tools = [_tool(tool) for tool in body.within("tools")]
    choice, parallel = body.raw("tool_choice"), body.take("parallel_tool_calls", bool)
    made = None if choice is None else _choice(Members({"tool_choice": choice}), is_text(choice))
    if not tools:
        if made is not None and made["type"] not in ("auto", "none"):
            raise bad("tool_choice", "tool_choice wants a call, and there are no tools")
        return
    doc["tools"] = tools
    if parallel is False and (made is None or made["type"] != "none"):
        made = {**(made or {"type": "auto"}), "disable_parallel_tool_use": True}
    if made is not None:
        doc["tool_choice"] = made


def _tool(tool: Members) -> dict[str, Any]:
    tool.one_of("type", "function")
    function = tool.inside("function")
    made: dict[str, Any] = {"name": function.need("name", str)}
    if (description := function.take("description", str)) is not None:
        made["description"] = description
    made["input_schema"] = function.opaque("parameters") or {"type": "object", "properties": {}}
    if function.take("strict", bool):
        made["strict"] = True
    function.end()
    tool.end()
    return made


def _choice(body: Members, in_a_word: bool) -> dict[str, Any]:
    if in_a_word:
        word = body.need("tool_choice", str)
        if word not in _CHOICES:
            raise bad("tool_choice", "tool_choice must be auto, none, required or a tool")
        return {"type": _CHOICES[word]}
    named = body.inside("tool_choice")
    named.one_of("type", "function")
    function = named.inside("function")
    made = {"type": "tool", "name": function.need("name", str)}
    function.end()
    named.end()
    return made


def _output(body: Members, doc: dict[str, Any]) -> None:
    config: dict[str, Any] = {}
    wanted = body.inside("response_format")
    if wanted.one_of("type", "text", "json_schema") == "json_schema":
        config["format"] = _schema(wanted.inside("json_schema"))
    wanted.end()
    effort = body.one_of("reasoning_effort", "none", *_EFFORTS)
    if effort == "none":
        doc["thinking"] = {"type": "disabled"}
    elif effort is not None:
        config["effort"] = effort
    body.one_of("verbosity", "medium")
    if config:
        doc["output_config"] = config


def _schema(wanted: Members) -> dict[str, Any]:
    """The name is a label that only the caller sees; what the schema is for is said in the schema."""
    wanted.take("name", str)
    wanted.take("strict", bool)  # it always is
    schema, description = wanted.need("schema", dict), wanted.raw("description")
    if description is not None:
        if bytes(schema.get("description", description)) != bytes(description):
            raise wanted.cannot("description", " beside another in its schema")
        schema = {**schema, "description": description}
    wanted.end()
    return {"type": "json_schema", "schema": schema}


def _about(body: Members, doc: dict[str, Any]) -> None:
    """Who asks, and how it is served."""
    user, safety = body.take("user", str), body.take("safety_identifier", str)
    if user and safety and user != safety:
        raise body.cannot("user", " beside another safety_identifier")
    if named := safety or user:
        if len(named) > _MAX_USER:
            raise body.cannot("safety_identifier" if safety else "user", f" of more than {_MAX_USER} characters")
        doc["metadata"] = {"user_id": named}
    if tier := body.one_of("service_tier", *_TIERS):
        doc["service_tier"] = _TIERS[tier]
    if body.take("modalities", list) not in (None, [Raw(b'"text"')]):
        raise body.cannot("modalities", " other than text")


def number(value: Raw, name: str) -> float:
    """A field that is a number."""
    return Members({name: value}).need(name, float)
