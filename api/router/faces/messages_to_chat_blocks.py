"""Blocks of content as Anthropic streams them: one after another, each begun and ended once."""

from typing import Any

import msgspec

from api.router.errors import NOT_JSON

_encode = msgspec.json.encode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

_WORDS = -1
"""The key of a block of text; those of tools are the indexes of their calls."""


def event(kind: str, **members: Any) -> bytes:
    """An event of Anthropic's."""
    return b"event: " + kind.encode() + b"\ndata: " + _encode({"type": kind, **members}) + b"\n\n"


class _Block:
    """`waiting` is what has come of it and not passed, `came` all of a tool's input so far."""

    __slots__ = ("came", "key", "start", "waiting")

    def __init__(self, key: int, start: dict[str, Any]) -> None:
        self.key, self.start = key, start
        self.waiting: list[str] = []
        self.came: list[str] = []

    def takes(self, text: str) -> None:
        """The next piece."""
        self.waiting.append(text)
        if self.key != _WORDS:
            self.came.append(text)

    @property
    def named(self) -> bool:
        """Whether it can begin: it is text, or which tool is called is known."""
        return self.key == _WORDS or bool(self.start["name"])

    @property
    def complete(self) -> bool:
        """Whether nothing can follow: text, once another block has begun; a tool's input that is a whole object."""
        if self.key == _WORDS:
            return True
        if not (self.came and self.came[-1].rstrip().endswith("}")):  # parsing it at every piece would cost its square
            return False
        try:
            _object("".join(self.came))
        except NOT_JSON:
            return False
        return self.named


class Blocks:
    """The first of `_queue` is the one that passes."""

    __slots__ = ("_begun", "_calls", "_number", "_queue")

    def __init__(self) -> None:
        self._queue: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._number, self._begun = 0, False

    def words(self, text: str) -> bytes:
        """Words of the answer."""
        if not self._queue or self._queue[-1].key != _WORDS:
            self._queue.append(_Block(_WORDS, {"type": "text", "text": ""}))
        self._queue[-1].takes(text)
        return self._passing()

    @property
    def called(self) -> bool:
        """Whether there was a call of a tool."""
        return bool(self._calls)

    def call(self, index: int, id_: str | None, name: str | None, arguments: str | None) -> bytes:
        """A piece of a tool's call. What comes of one after its input was whole and another block had begun is space."""
        block = self._calls.get(index)
        if block is None or (id_ and name and block.start["id"] not in ("", id_)):  # some number all calls 0
            block = self._calls[index] = _Block(index, {"type": "tool_use", "id": "", "name": "", "input": {}})
            self._queue.append(block)
        block.start["id"], block.start["name"] = block.start["id"] or id_ or "", block.start["name"] or name or ""
        if arguments:
            block.takes(arguments)
        return self._passing()

    def end(self) -> bytes:
        """Nothing more comes: all that waited, block by block."""
        shown = b""
        while self._queue:
            shown += self._first() + self._ended()
        return shown

    def _passing(self) -> bytes:
        """What may pass now: of the first block, and of the next ones while those before them are whole."""
        shown = b""
        while self._queue and self._queue[0].named:
            shown += self._first()
            if len(self._queue) == 1 or not self._queue[0].complete:
                break
            shown += self._ended()
        return shown

    def _first(self) -> bytes:
        block, shown = self._queue[0], b""
        if not self._begun:
            self._begun = True
            shown = event("content_block_start", index=self._number, content_block=block.start)
        for text in block.waiting:
            delta = {"type": "text_delta", "text": text}
            if block.key != _WORDS:
                delta = {"type": "input_json_delta", "partial_json": text}
            shown += event("content_block_delta", index=self._number, delta=delta)
        block.waiting.clear()
        return shown

    def _ended(self) -> bytes:
        shown = event("content_block_stop", index=self._number)
        self._queue.pop(0)
        self._number, self._begun = self._number + 1, False
        return shown
