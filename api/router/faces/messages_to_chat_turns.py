"""The conversation of a messages request as chat messages.

Results of tools are messages of their own and come before what else their turn says, as they must there too. That a tool
failed is said before its result: a tool's message has no mark for it.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import Raw

from api.router.faces.carrying import Members, bad, cannot, is_text

Message = dict[str, Any]

FAILED = "Error: "


def conversation(body: Members) -> list[Message]:
    """The system and every turn."""
    messages: list[Message] = []
    if system := _texts(body, "system"):
        messages.append({"role": "system", "content": _joined(system)})
    role = ""
    for turn in body.within("messages"):
        role = turn.need("role", str)
        if role not in _READERS:
            raise bad("messages", f"{turn.where}.role must be user, assistant or system")
        messages += _READERS[role](turn)
        turn.end()
    if role == "assistant":
        raise cannot("messages", "the beginning of an answer (a last turn of the assistant's)")
    return messages


def cache(marked: Members) -> None:
    """A mark for a cache of five minutes says what the backend does anyway."""
    control = marked.inside("cache_control")
    control.one_of("type", "ephemeral")
    control.one_of("ttl", "5m")
    control.end()


def _user(turn: Members) -> list[Message]:
    messages: list[Message] = []
    parts: list[Message] = []
    for block, kind in _blocks(turn, "content"):
        if kind == "tool_result":
            if parts:
                raise bad("messages", f"{block.where}: results of tools come first")
            messages.append(_result(block))
        else:
            parts.append(_READ[kind](block) if kind in _READ else _refuse(block))
        block.end()
    return [*messages, {"role": "user", "content": _joined(parts)}] if parts else messages


def _assistant(turn: Members) -> list[Message]:
    parts: list[Message] = []
    calls: list[Message] = []
    for block, kind in _blocks(turn, "content"):
        if kind == "tool_use":
            calls.append(_call(block))
        elif kind != "text":
            _refuse(block)
        elif calls:
            raise cannot("messages", f"{block.where}: words behind a call")
        else:
            parts.append(_text(block))
        block.end()
    nothing = None if calls else ""  # only who calls may say nothing at all
    message: Message = {"role": "assistant", "content": _joined(parts) if parts else nothing}
    return [{**message, "tool_calls": calls} if calls else message]


def _system(turn: Members) -> list[Message]:
    return [{"role": "system", "content": _joined(_texts(turn, "content"))}]


_READERS = {"user": _user, "assistant": _assistant, "system": _system}


def _blocks(holder: Members, name: str) -> Iterator[tuple[Members, str]]:
    content = holder.raw(name)
    if content is None:
        return
    alone = Members({name: content}, holder.param, holder.where)
    if is_text(content):
        yield Members({"text": content}, holder.param or name, alone.where), "text"
        return
    for block in alone.within(name):
        kind = block.need("type", str)
        cache(block)
        yield block, kind


def _texts(holder: Members, name: str) -> list[Message]:
    texts = []
    for block, kind in _blocks(holder, name):
        texts.append(_text(block) if kind == "text" else _refuse(block))
        block.end()
    return texts


def _joined(parts: list[Message]) -> str | list[Message]:
    """One text as what every backend reads, a string."""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _refuse(block: Members) -> Message:
    raise cannot(block.param, f"{block.where} of this type")


def _text(block: Members) -> Message:
    return {"type": "text", "text": block.need("text", str)}


def _image(block: Members) -> Message:
    source = block.inside("source")
    kind = source.one_of("type", "base64", "url")
    url = source.need("url", str) if kind == "url" else _data_url(source)
    source.end()
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: Members) -> Message:
    source = block.inside("source")
    title = block.take("title", str)
    citations = block.inside("citations")
    citations.end()
    if source.one_of("type", "base64", "text") == "text":
        source.take("media_type", str)
        text = source.need("data", str)
        source.end()
        return {"type": "text", "text": f"{title}\n\n{text}" if title else text}
    data = _data_url(source)
    source.end()
    return {"type": "file", "file": {"filename": title or "document.pdf", "file_data": data}}


_READ = {"text": _text, "image": _image, "document": _document}


def _data_url(source: Members) -> str:
    return f"data:{source.need('media_type', str)};base64,{source.need('data', str)}"


def _result(block: Members) -> Message:
    failed = block.take("is_error", bool)
    texts = _texts(block, "content")
    if failed:
        texts = [{"type": "text", "text": FAILED + (texts[0]["text"] if texts else "")}, *texts[1:]]
    return {"role": "tool", "tool_call_id": block.need("tool_use_id", str), "content": _joined(texts) if texts else ""}


def _call(block: Members) -> Message:
    block.inside("caller").one_of("type", "direct")
    given = block.opaque("input") or Raw(b"{}")
    try:
        function = {"name": block.need("name", str), "arguments": bytes(given).decode()}
    except UnicodeDecodeError as error:
        raise bad(block.param, f"{block.where}.input is no text") from error
    return {"id": block.need("id", str), "type": "function", "function": function}
