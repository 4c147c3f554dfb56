"""The demo's comparison: the books as anybody can export them, against the backend's own journal, id by id.

Deliberately independent: prices are computed here with `fractions`, and nothing of the domain is imported.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, Protocol


class Reader(Protocol):
    """What is needed of an API client."""

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any: ...

    def text(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[bytes]: ...


@dataclass(slots=True)
class Books:
    """`rows` of the requests export, `served` the journal's lines by request id, `differences` in words (none: they agree)."""

    rows: list[dict[str, str]]
    served: dict[str, dict[str, Any]]
    budgets: list[dict[str, Any]]
    usage: list[dict[str, Any]]
    denied: int
    """Refusals, each counted, also those that share a row."""
    booked: Decimal = Decimal(0)
    backend: Decimal = Decimal(0)
    differences: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Requests in the books, refused ones included."""
        return sum(row["outcome"] != "denied" for row in self.rows) + self.denied

    @property
    def open(self) -> int:
        return sum(row["outcome"] == "open" for row in self.rows)


def price_of(line: Mapping[str, Any], price: Mapping[str, str]) -> Decimal:
    """Dollars of one served request, exact, rounded once, up, to the nano-dollar."""
    dollars = line["prompt_tokens"] * Fraction(price["input_usd"]) + line["completion_tokens"] * Fraction(
        price["output_usd"]
    )
    return Decimal(ceil(dollars / 1_000_000 * 10**9)).scaleb(-9)


def read_books(reader: Reader, journal: Path, orgs: Sequence[str], price: Mapping[str, str]) -> Books:
    """Reads everything and compares."""
    rows: list[dict[str, str]] = []
    budgets, usage = [], []
    denied = 0
    for org in orgs:
        text = b"".join(reader.text(f"/read/v1/orgs/{org}/requests", {"format": "csv"})).decode()
        rows += csv.DictReader(io.StringIO(text))
        budgets += [{"org": org, **budget} for budget in reader.get(f"/read/v1/orgs/{org}/budgets")["data"]]
        grouped = reader.get(f"/read/v1/orgs/{org}/usage", {"bucket": "all", "group_by": "project"})["data"]
        usage += [{"org": org, **row} for row in grouped]
        denied += sum(row["denied"] for row in grouped)
    served = {}
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        if entry["request_id"] is not None:
            served[entry["request_id"]] = entry
    books = Books(rows, served, budgets, usage, denied)
    _compare(books, price)
    return books


def _compare(books: Books, price: Mapping[str, str]) -> None:
    booked = {row["attempt"]: row for row in books.rows if row["outcome"] in ("completed", "unconfirmed")}
    if len({row["attempt"] for row in books.rows}) != len(books.rows):
        books.differences.append("an attempt is in the books twice")
    for attempt in booked.keys() | books.served.keys():
        row, line = booked.get(attempt), books.served.get(attempt)
        cost = Decimal(row["cost_usd"]) if row else Decimal(0)
        true = price_of(line, price) if line else Decimal(0)
        books.booked += cost
        books.backend += true
        if row is None or line is None or cost != true or row["outcome"] != "completed":
            books.differences.append(
                f"{attempt}: books {row['outcome'] if row else 'nothing'} ${cost}, backend ${true}"
            )
    for org in {budget["org"] for budget in books.budgets}:
        whole = [b for b in books.budgets if b["org"] == org and b["scope"]["kind"] == "org"]
        total = sum((Decimal(u["cost_usd"]) for u in books.usage if u["org"] == org), Decimal(0))
        for budget in whole:
            if Decimal(budget["consumed_usd"]) != total:
                books.differences.append(
                    f"budget {budget['id']}: consumed {budget['consumed_usd']}, usage says {total}"
                )
    for budget in books.budgets:
        if budget["mode"] == "hard" and Decimal(budget["consumed_usd"]) + Decimal(budget["held_usd"]) > Decimal(
            budget["limit_usd"]
        ):
            books.differences.append(f"budget {budget['id']} is exceeded")
