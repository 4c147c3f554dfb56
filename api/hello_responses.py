"""Responses as Hello speaks them: one message, or a call of the tool that must be called."""

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from api.hello_shapes import chosen, sampled
from api.hello_text import Content, TokenCap, text_of, words

Described = dict[str, Any]


class Item(Struct, frozen=True):
    content: Content = None
    output: Content = None


class Tool(Struct, frozen=True):
    name: str = ""
    parameters: dict[str, Any] | None = None


class Format(Struct, frozen=True):
    type: str = "text"
    schema: dict[str, Any] = {}


class Text(Struct, frozen=True):
    format: Format = Format()


class ResponsesRequest(Struct, frozen=True, kw_only=True):
    """POST /v1/responses."""

    model: str
    input: str | list[Item]
    instructions: str | None = None
    max_output_tokens: TokenCap | None = None
    stream: bool = False
    tools: list[Tool] | None = None
    tool_choice: Any = None
    text: Text | None = None

    @property
    def completion_tokens(self) -> int:
        """Exactly the cap, or 16 without one."""
        return self.max_output_tokens or 16

    @property
    def prompt_tokens(self) -> int:
        said = words(self.instructions)
        if isinstance(self.input, str):
            return max(1, said + words(self.input))
        return max(1, said + sum(words(item.content) + words(item.output) for item in self.input))

    def plain(self, name: bytes, prompt: int, /) -> bytes:
        return msgspec.json.encode(self._response(name, prompt, self._output(name)))

    def events(self, name: bytes, prompt: int, step: int, /) -> Iterator[tuple[int, bytes]]:
        number = 0

        def event(type: str, **members: Any) -> bytes:
            nonlocal number
            body = msgspec.json.encode({"type": type, **members, "sequence_number": number})
            number += 1
            return b"event: %b\ndata: %b\n\n" % (type.encode(), body)

        begun = self._response(name, prompt, None)
        yield 0, event("response.created", response=begun)
        yield 0, event("response.in_progress", response=begun)
        item = self._output(name)
        place = {"item_id": item["id"], "output_index": 0}
        nothing: Described = {"content": []} if "content" in item else {"arguments": ""}
        hollow = {**item, "status": "in_progress", **nothing}
        yield 0, event("response.output_item.added", output_index=0, item=hollow)
        total = self.completion_tokens
        if "content" not in item:
            yield total, event("response.function_call_arguments.delta", **place, delta=item["arguments"])
            yield total, event("response.function_call_arguments.done", **place, arguments=item["arguments"])
        else:
            place["content_index"] = 0
            part = item["content"][0]
            yield 0, event("response.content_part.added", **place, part={**part, "text": ""})
            for produced, text in self._pieces(step):
                yield produced, event("response.output_text.delta", **place, delta=text, logprobs=[])
            yield total, event("response.output_text.done", **place, text=part["text"], logprobs=[])
            yield total, event("response.content_part.done", **place, part=part)
        yield total, event("response.output_item.done", output_index=0, item=item)
        ended = self._response(name, prompt, item)
        yield total, event(f"response.{ended['status']}", response=ended)

    def _pieces(self, step: int) -> Iterator[tuple[int, str]]:
        """The text of a message: (tokens produced so far, text)."""
        total = self.completion_tokens
        if (shaped := self._shaped()) is not None:
            yield total, shaped
            return
        for left in range(total, 0, -step):
            count = min(step, left)
            yield total - left + count, text_of(count).decode()

    def _output(self, name: bytes) -> Described:
        tools = self.tools or []
        called = chosen([tool.name for tool in tools], self.tool_choice)
        if called is not None:
            arguments = sampled(tools[called].parameters or {}).decode()
            made = {"id": f"fc_{name.decode()}", "type": "function_call", "status": "completed"}
            return {**made, "call_id": f"call_{name.decode()}", "name": tools[called].name, "arguments": arguments}
        text = self._shaped()
        if text is None:
            text = text_of(self.completion_tokens).decode()
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        made = {"id": f"msg_{name.decode()}", "type": "message", "status": "completed"}
        return {**made, "role": "assistant", "content": [part]}

    def _shaped(self) -> str | None:
        """The JSON that is asked for."""
        if self.text is None or self.text.format.type == "text":
            return None
        return sampled(self.text.format.schema).decode()

    def _response(self, name: bytes, prompt: int, output: Described | None) -> Described:
        """A response, that has ended if it has an output."""
        total = self.completion_tokens
        cut = (
            output is not None
            and self.max_output_tokens is not None
            and output["type"] == "message"
            and not self._shaped()
        )
        status = "in_progress" if output is None else "incomplete" if cut else "completed"
        usage = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": total,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + total,
        }
        return {
            "id": f"resp_{name.decode()}",
            "object": "response",
            "created_at": int(time.time()),
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "model": self.model,
            "output": [] if output is None else [output],
            "parallel_tool_calls": True,
            "tool_choice": self.tool_choice or "auto",
            "tools": [],
            "metadata": {},
            "usage": None if output is None else usage,
        }
