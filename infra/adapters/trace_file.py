"""A trace of real traffic as a CSV file (``TIMESTAMP,ContextTokens,GeneratedTokens``), and the chat request each row stands for.

A row's request has exactly `context` words in its prompt and asks for exactly `generated` tokens, so that a backend that
counts words reports the row's own figures.
"""

import csv
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from domain.errors import invalid

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


class TraceRow(Struct, frozen=True):
    """One request of a trace: `at` is seconds after the first row; sizes in tokens, at least 1."""

    at: float
    context: int
    generated: int


def read_trace(path: Path, limit: int | None = None) -> list[TraceRow]:
    """The first `limit` rows of the trace, all without one. Raises `Invalid` naming the row and column, or the missing file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise invalid("trace", f"must have the columns {', '.join(COLUMNS)}; {path} lacks {sorted(missing)[0]}")
            rows: list[TraceRow] = []
            first: datetime | None = None
            for number, row in enumerate(reader, start=2):
                if limit is not None and len(rows) >= limit:
                    break
                time, context, generated = _parsed(row, number)
                first = first or time
                rows.append(TraceRow((time - first).total_seconds(), context, generated))
            return rows
    except OSError as error:
        raise invalid("trace", f"must be a readable file: {error.strerror}: {path}") from None


def _parsed(row: dict[str, str], number: int) -> tuple[datetime, int, int]:
    try:
        sizes = int(row["ContextTokens"]), int(row["GeneratedTokens"])
        if min(sizes) < 0:
            raise ValueError("sizes must not be negative")
        return datetime.fromisoformat(row["TIMESTAMP"]), max(1, sizes[0]), max(1, sizes[1])
    except (TypeError, ValueError) as error:
        raise invalid("trace", f"line {number}: {error}") from None


def chat_body(row: TraceRow, model: str, stream: bool) -> bytes:
    """The chat completion request of a row; a streamed one asks for its usage."""
    extra = b',"stream":true,"stream_options":{"include_usage":true}' if stream else b""
    prompt = (b"w " * row.context)[:-1]
    return b'{"model":%b,"messages":[{"role":"user","content":"%b"}],"max_completion_tokens":%d%b}' % (
        msgspec.json.encode(model),
        prompt,
        row.generated,
        extra,
    )
