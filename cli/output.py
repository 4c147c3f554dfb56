"""What commands print: the same rows as a table, JSON, NDJSON or CSV, on stdout; everything else goes to stderr.

A table is for people: plain columns without colour or truncation, so that it can also be read by `awk`. Amounts and ids are
printed as the server gave them in every format.
"""

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

Row = Mapping[str, Any]


class Format(StrEnum):
    """The values of ``-o``."""

    table = "table"
    json = "json"
    ndjson = "ndjson"
    csv = "csv"


def emit_list(rows: Iterable[Row], form: Format, columns: Sequence[str] = (), **extra: Any) -> None:
    """Prints a list. `columns` are those of the table, in order; the other formats have every field. JSON is
    ``{"data": [...]}`` with `extra` beside it."""
    match form:
        case Format.json:
            emit({**extra, "data": list(rows)}, form)
        case Format.ndjson:
            for row in rows:
                _line(json.dumps(row, ensure_ascii=False))
        case Format.csv:
            _csv(list(rows))
        case Format.table:
            _table(list(rows), columns)


def emit(doc: Row, form: Format) -> None:
    """Prints one thing: as a table, a line per field."""
    match form:
        case Format.json:
            _line(json.dumps(doc, indent=2, ensure_ascii=False))
        case Format.ndjson:
            _line(json.dumps(doc, ensure_ascii=False))
        case Format.csv:
            _csv([doc])
        case Format.table:
            width = max((len(name) for name in doc), default=0)
            for name, value in doc.items():
                _line(f"{name:<{width}}  {cell(value)}".rstrip())


def note(text: str) -> None:
    """A line for the person at the terminal: stderr."""
    print(text, file=sys.stderr)


def cell(value: Any) -> str:
    """One value in a table or in CSV: nothing for null, plain text for text, compact JSON for what is nested."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case list() if all(isinstance(item, str) for item in value):
            return ",".join(value)
        case dict() | list():
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        case _:
            return str(value)


def _line(text: str) -> None:
    sys.stdout.write(text + "\n")


def _csv(rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if columns:
        writer.writerow(columns)
        writer.writerows([cell(row.get(name)) for name in columns] for row in rows)
    sys.stdout.write(buffer.getvalue())


def _table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    present = dict.fromkeys(name for row in rows for name in row)
    names = [name for name in columns if name in present or not rows] or list(present)
    cells = [[cell(row.get(name)).replace("\n", " ") for name in names] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(names, *cells, strict=True)]
    for line in [[name.upper() for name in names], *cells]:
        _line("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())
