"""The conversation of a chat completion as turns of Anthropic's messages.

System and developer messages at the start are the system; later ones keep their place, which not every model takes. Tool
messages are results in a user's turn: all results of one turn of calls are in the turn that follows it.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Raw

from api.router.errors import NOT_JSON
from api.router.faces.carrying import Members, bad, cannot, is_text

Block = dict[str, Any]

_DATA_URL = re.compile(r"data:([a-z]+/[a-z0-9.+-]+);base64,(.*)", re.DOTALL)
_object = msgspec.json.Decoder(dict[str, Raw]).decode


def conversation(messages: Iterable[Members]) -> tuple[list[Block], list[dict[str, Any]]]:
    """System blocks and turns."""
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = message.need("role", str)
        blocks = _READERS[role](message) if role in _READERS else None
        if blocks is None:
            raise cannot("messages", f"{message.where}.role of this value")
        message.end()
        worded = _worded(blocks)
        if role in ("system", "developer") and not turns:
            system += worded
        elif worded:  # there, a turn has content
            _add(turns, _ROLES.get(role, role), worded)
    if not turns:
        raise cannot("messages", "a conversation of no words, or of instructions alone")
    if turns[-1]["role"] == "assistant":  # there, it would be the beginning of the answer
        raise cannot("messages", "a conversation that ends with the assistant's words")
    return system, turns


def _add(turns: list[dict[str, Any]], role: str, blocks: list[Block]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _worded(blocks: list[Block]) -> list[Block]:
    """Without texts that are empty or white space alone, which the protocol does not have."""
    return [block for block in blocks if "text" not in block or _says_words(block["text"])]


def _says_words(text: str) -> bool:
    return text != "" and not text.isspace()


def _system(message: Members) -> list[Block]:
    return _texts(message)


def _user(message: Members) -> list[Block]:
    return _content(message, _user_part)


def _assistant(message: Members) -> list[Block]:
    blocks = _content(message, _assistant_part)
    if refusal := message.take("refusal", str):
        blocks.append({"type": "text", "text": refusal})
    return blocks + [_call(call) for call in message.within("tool_calls")]


def _tool(message: Members) -> list[Block]:
    result = {"type": "tool_result", "tool_use_id": message.need("tool_call_id", str)}
    return [{**result, "content": _worded(_texts(message))}]


_READERS = {"system": _system, "developer": _system, "user": _user, "assistant": _assistant, "tool": _tool}
_ROLES = {"developer": "system", "tool": "user"}


def _texts(message: Members) -> list[Block]:
    return _content(message, _text_part)


def _content(message: Members, read: Callable[[Members, str], Block]) -> list[Block]:
    content = message.raw("content")
    if content is None:
        return []
    alone = Members({"content": content}, message.param, message.where)
    if is_text(content):
        return [{"type": "text", "text": alone.need("content", str)}]
    return [_part(part, read) for part in alone.within("content")]


def _part(part: Members, read: Callable[[Members, str], Block]) -> Block:
    block = read(part, part.need("type", str))
    part.end()
    return block


def _text_part(part: Members, kind: str) -> Block:
    if kind != "text":
        raise cannot(part.param, f"{part.where} of this type")
    return {"type": "text", "text": part.need("text", str)}


def _assistant_part(part: Members, kind: str) -> Block:
    if kind == "refusal":
        return {"type": "text", "text": part.need("refusal", str)}
    return _text_part(part, kind)


def _user_part(part: Members, kind: str) -> Block:
    if kind == "image_url":
        return _image(part.inside("image_url"))
    if kind == "file":
        return _file(part.inside("file"))
    return _text_part(part, kind)


def _image(image: Members) -> Block:
    url = image.need("url", str)
    image.one_of("detail", "auto", "high")
    image.end()
    if data := _DATA_URL.fullmatch(url):
        return {"type": "image", "source": {"type": "base64", "media_type": data[1], "data": data[2]}}
    if not url.startswith(("http://", "https://")):
        raise bad(image.param, f"{image.where}.url must be a URL, or data in base64")
    return {"type": "image", "source": {"type": "url", "url": url}}


def _file(file: Members) -> Block:
    data, title = _DATA_URL.fullmatch(file.take("file_data", str) or ""), file.take("filename", str)
    file.end()
    if data is None or data[1] != "application/pdf":
        raise cannot(file.param, f"{file.where} that is no PDF in base64")
    block: Block = {"type": "document", "source": {"type": "base64", "media_type": data[1], "data": data[2]}}
    return {**block, "title": title} if title else block


def _call(call: Members) -> Block:
    call.one_of("type", "function")
    function = call.inside("function")
    block = {"type": "tool_use", "id": call.need("id", str), "name": function.need("name", str)}
    arguments = function.take("arguments", str)
    function.end()
    call.end()
    try:
        return {**block, "input": _object(arguments or "{}")}
    except NOT_JSON as error:
        raise bad(call.param, f"{call.where}.function.arguments must be a JSON object") from error
