"""Whole answers as CSV or NDJSON, streamed: every row, with the numbers that the JSON answer has.

Text that a spreadsheet would run as a formula gets an apostrophe in front. An export that fails on its way is cut off: it
never looks whole.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec
from fastapi import Response
from fastapi.responses import StreamingResponse

from api.read.call import completeness
from projections.reads.freshness import Standing

Row = Mapping[str, Any]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_encode_lines = msgspec.json.Encoder().encode_lines


def exported(
    form: str, name: str, columns: Sequence[str], rows: Iterable[Sequence[Row]], standing: Standing
) -> Response:
    """The rows as `form`. The first piece is made before the answer begins, so that what fails at once is an error."""
    pieces = _csv(columns, rows) if form == "csv" else (_encode_lines(some) for some in rows)
    first = next(pieces, b"")
    headers = {
        "content-disposition": f'attachment; filename="{name}.{form}"',
        "x-tollhouse-as-of": str(completeness(standing)["as_of"]),
        "x-tollhouse-lag-ms": str(standing.lag_ms),
    }
    kind = "text/csv; charset=utf-8" if form == "csv" else "application/x-ndjson"
    return StreamingResponse(chain([first], pieces), 200, headers, kind)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Row]]) -> Iterator[bytes]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for some in chain([()], rows):
        writer.writerows([_cell(row.get(name)) for name in columns] for row in some)
        if written := text.getvalue():
            yield written.encode()
        text.seek(0)
        text.truncate()


def _cell(value: Any) -> Any:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return f"'{value}" if value.startswith(_FORMULA) and not _is_number(value) else value
        case _:
            return value


def _is_number(text: str) -> bool:
    """An amount below zero is no formula."""
    return text[:1] == "-" and text[1:].replace(".", "", 1).isdecimal()


def flat(row: Row) -> dict[str, Any]:
    """A row with one level of nesting as one without: ``latency_ms: {p50}`` becomes ``latency_ms_p50``."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            cells.update({f"{name}_{part}": inner for part, inner in value.items()})
        else:
            cells[name] = value
    return cells
