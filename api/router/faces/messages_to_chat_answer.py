"""What a backend that speaks OpenAI's chat completions answered, as a message of Anthropic's: answers, refusals, usage, and
why it ended."""

import math
from typing import Any

import msgspec

from api.router.errors import NOT_JSON
from api.router.faces.anthropic import error_doc
from api.router.faces.chat_usage import usage_of_answer
from api.router.faces.fault import Fault, fault_of
from commands.admission import Call
from domain.facts import Usage

_STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str | None = None


class _Call(msgspec.Struct):
    id: str = ""
    function: _Function | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Said
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    id: str = ""
    model: str = ""


_answer = msgspec.json.Decoder(_Answer).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode


def message_of_chat(body: bytes, ceiling: int, call: Call) -> tuple[Usage | None, bytes]:
    """See `Carriage.answer`. An answer that is no completion reaches the caller as it came."""
    usage = usage_of_answer(body, ceiling)
    try:
        answer = _answer(body)
        choice = answer.choices[0]
    except (*NOT_JSON, IndexError):
        return usage, body
    said = choice.message
    content: list[dict[str, Any]] = []
    if words := (said.content or "") + (said.refusal or ""):
        content.append({"type": "text", "text": words})
    content += [_tool_use(made) for made in said.tool_calls or ()]
    doc = {
        "id": answer.id,
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": stop_of(choice.finish_reason, refused=bool(said.refusal), called=bool(said.tool_calls)),
        "stop_sequence": None,
        "usage": usage_shown(usage or counted(call, math.ceil(len(body) / 4))),
    }
    return usage, msgspec.json.encode(doc)


def stop_of(finish: str | None, *, refused: bool, called: bool) -> str:
    """Why it ended, in Anthropic's words. Where a tool was `called` because it had to be, OpenAI says ``stop``."""
    stop = "refusal" if refused else _STOPS.get(finish or "", "end_turn")
    return "tool_use" if called and stop == "end_turn" else stop


def usage_shown(usage: Usage) -> dict[str, Any]:
    """As Anthropic reports it: cached tokens are none of the input's, thinking is part of the output."""
    return {
        "input_tokens": usage.all_input - usage.cache_write - usage.cached_input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached_input,
        "output_tokens": usage.all_output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def counted(call: Call, output: int) -> Usage:
    """What the caller is told where nothing was reported, for its protocol has no message without usage: what is booked."""
    return Usage(input=call.estimated_input, output=min(output, call.cap or 0))


def message_refusal(status: int, body: bytes) -> bytes:
    """See `Carriage.refusal`."""
    return fault_shown(status, fault_of(body, f"the backend answered {status}"))


def fault_shown(status: int, fault: Fault) -> bytes:
    """An error of the backend's as one of Anthropic's."""
    code = None if fault.code is None else str(fault.code)
    return msgspec.json.encode(error_doc(status, code, fault.message, fault.param))


def _tool_use(call: _Call) -> dict[str, Any]:
    function = call.function or _Function()
    return {"type": "tool_use", "id": call.id, "name": function.name, "input": _input(function.arguments)}


def _input(arguments: str | None) -> dict[str, Any]:
    """A model may call a tool with what is no JSON; the protocol has a name for that."""
    if not arguments:
        return {}
    try:
        return _object(arguments)
    except NOT_JSON:
        return {"INVALID_JSON": arguments}
