"""What Hello remembers: one line of JSON per request it served, handed to the operating system in one write call.

Lines of several processes that share a file do not mix (append mode), and a line survives the death of the process as
soon as `Journal.write` returns. It does not survive the death of the machine: nothing is synced.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

State = Literal["served", "dropped", "abandoned"]
"""The whole answer was made; it was, but the connection was cut on purpose; the caller left a stream before its end."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One request as this backend bills it. `completion_tokens` are those produced, whoever received them."""

    request_id: str | None
    time: datetime
    model: str
    prompt_tokens: int
    completion_tokens: int
    stream: bool
    state: State


class Journal:
    """Appends `Served` lines to a file; without a path it keeps nothing. Raises `OSError` if the file cannot be opened."""

    def __init__(self, path: Path | None) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._file = (
            None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        )

    def write(
        self, request_id: str | None, model: str, prompt_tokens: int, completion_tokens: int, stream: bool, state: State
    ) -> None:
        """Writes one line. Call it before the last byte of the answer leaves."""
        if self._file is None:
            return
        line = Served(
            request_id=request_id,
            time=datetime.now(UTC),
            model=model,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            stream=stream,
            state=state,
        )
        os.write(self._file, self._encode(line) + b"\n")

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
