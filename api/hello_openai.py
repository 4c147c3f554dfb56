"""OpenAI's shapes as Hello speaks them: completions, embeddings, and what chat completions share with them.

Each request type knows its own size and its own answers: `prompt_tokens`, `completion_tokens`, `plain`, `events`. An answer
is put together from ready-made bytes; only the model's name is ever encoded.
"""

import time
from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from api.hello_text import Input, TokenCap, encoded, text_of, words

Choices = Annotated[int, Meta(ge=1, le=16)]

USAGE = b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}'
_TEXT_CHOICE = b'{"index":%d,"text":"%b","logprobs":null,"finish_reason":"%b"}'
_TEXT = b'{"id":"cmpl-%b","object":"text_completion","created":%d,"model":%b,"choices":[%b],"usage":' + USAGE + b"}"
_CHUNK = b'data: {"id":"%b","object":"%b","created":%d,"model":%b,"choices":[%b]%b}\n\n'
_EMBEDDING = b'{"object":"embedding","index":%d,"embedding":%b}'
_EMBEDDINGS = b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
_VECTOR = {"float": b"[1.0,0.0,0.0,0.0]", "base64": b'"AACAPwAAAAAAAAAAAAAAAA=="'}
_DONE = b"data: [DONE]\n\n"


class StreamOptions(Struct, frozen=True):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class Completion(Struct, frozen=True, kw_only=True):
    """What chat and plain completions have in common."""

    model: str
    max_tokens: TokenCap | None = None
    n: Choices = 1
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def cap(self) -> int | None:
        return self.max_tokens

    @property
    def completion_tokens(self) -> int:
        """Exactly the cap, or 16 without one; of each choice."""
        return (self.cap or 16) * self.n

    @property
    def finish(self) -> bytes:
        return b"stop" if self.cap is None else b"length"

    def frames(
        self,
        head: tuple[bytes, bytes, int, bytes],
        prompt: int,
        step: int,
        opening: bytes,
        delta: bytes,
        closing: bytes,
        whole: tuple[bytes, bytes] | None = None,
    ) -> Iterator[tuple[int, bytes]]:
        """(tokens produced so far, event) of a stream, by the three kinds of choice it is made of. `whole`: what comes in one
        delta, and why it ends then."""
        options = self.stream_options or StreamOptions()
        produced, each = 0, self.completion_tokens // self.n

        def frame(choice: bytes) -> tuple[int, bytes]:
            usage = b""
            if options.continuous_usage_stats:
                usage = b',"usage":' + USAGE % (prompt, produced, prompt + produced)
            elif options.include_usage:
                usage = b',"usage":null'
            return produced, _CHUNK % (*head, choice, usage)

        for index in range(self.n):
            if opening:
                yield frame(opening % index)
            for left in range(0 if whole else each, 0, -step):
                count = min(step, left)
                produced += count
                yield frame(delta % (index, text_of(count)))
            if whole is not None:
                produced += each
                yield frame(delta % (index, whole[0]))
            yield frame(closing % (index, self.finish if whole is None else whole[1]))
        if options.include_usage:
            yield produced, _CHUNK % (*head, b"", b',"usage":' + USAGE % (prompt, produced, prompt + produced))
        yield produced, _DONE


class TextRequest(Completion, frozen=True, kw_only=True):
    """POST /v1/completions."""

    prompt: Input

    @property
    def prompt_tokens(self) -> int:
        return max(1, words(self.prompt))

    def plain(self, name: bytes, prompt: int, /) -> bytes:
        each, total = text_of(self.completion_tokens // self.n), self.completion_tokens
        choices = b",".join([_TEXT_CHOICE % (index, each, self.finish) for index in range(self.n)])
        return _TEXT % (name, int(time.time()), encoded(self.model), choices, prompt, total, prompt + total)

    def events(self, name: bytes, prompt: int, step: int, /) -> Iterator[tuple[int, bytes]]:
        return self.frames(
            (b"cmpl-" + name, b"text_completion", int(time.time()), encoded(self.model)),
            prompt,
            step,
            b"",
            b'{"index":%d,"text":"%b","logprobs":null,"finish_reason":null}',
            b'{"index":%d,"text":"","logprobs":null,"finish_reason":"%b"}',
        )


class EmbeddingRequest(Struct, frozen=True, kw_only=True):
    """POST /v1/embeddings: one fixed unit vector per input."""

    model: str
    input: Input
    encoding_format: str = "float"

    stream = False
    completion_tokens = 0

    @property
    def prompt_tokens(self) -> int:
        return max(1, words(self.input))

    def plain(self, _name: bytes, prompt: int, /) -> bytes:
        vector = _VECTOR.get(self.encoding_format, _VECTOR["float"])
        several = isinstance(self.input, list) and not isinstance(next(iter(self.input), None), int)
        count = len(self.input) if several else 1
        data = b",".join([_EMBEDDING % (index, vector) for index in range(count)])
        return _EMBEDDINGS % (data, encoded(self.model), prompt, prompt)

    def events(self, _name: bytes, _prompt: int, _step: int, /) -> Iterator[tuple[int, bytes]]:
        return iter(())


def refusal(kind: str, message: str, code: str | None, param: str | None = None) -> bytes:
    """An error object of OpenAI's."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})
