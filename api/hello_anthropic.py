"""Anthropic's shapes as Hello speaks them: messages and their token count."""

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from api.hello_text import Content, TokenCap, encoded, text_of, words

_MESSAGE = (
    b'{"id":"msg_%b","type":"message","role":"assistant","model":%b,"content":[%b],"stop_reason":%b,"stop_sequence":null,'
    b'"usage":{"input_tokens":%d,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":%d}}'
)
_TEXT = b'{"type":"text","text":"%b"}'
_START = b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n'
_BLOCK = (
    b"event: content_block_start\n"
    b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
)
_DELTA = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"%b"}}\n\n'
)
_BLOCK_END = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
_END = (
    b"event: message_delta\n"
    b'data: {"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null},'
    b'"usage":{"output_tokens":%d}}\n\n'
)
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


class Message(Struct, frozen=True):
    content: Content = None


class CountRequest(Struct, frozen=True, kw_only=True):
    """POST /v1/messages/count_tokens."""

    model: str
    messages: list[Message]
    system: Content = None

    @property
    def prompt_tokens(self) -> int:
        return max(1, words(self.system) + sum(words(message.content) for message in self.messages))


class MessagesRequest(CountRequest, frozen=True, kw_only=True):
    """POST /v1/messages. The answer always has exactly `max_tokens` tokens."""

    max_tokens: TokenCap
    stream: bool = False

    @property
    def completion_tokens(self) -> int:
        return self.max_tokens

    def plain(self, name: bytes, prompt: int, /) -> bytes:
        text = _TEXT % text_of(self.max_tokens)
        return _MESSAGE % (name, encoded(self.model), text, b'"max_tokens"', prompt, self.max_tokens)

    def events(self, name: bytes, prompt: int, step: int, /) -> Iterator[tuple[int, bytes]]:
        yield 0, _START % (_MESSAGE % (name, encoded(self.model), b"", b"null", prompt, 0))
        yield 0, _BLOCK
        produced = 0
        for left in range(self.max_tokens, 0, -step):
            count = min(step, left)
            produced += count
            yield produced, _DELTA % text_of(count)
        yield produced, _BLOCK_END
        yield produced, _END % produced
        yield produced, _STOP


def refusal(kind: str, message: str) -> bytes:
    """An error object of Anthropic's."""
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})
