"""What the demo prints."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cli.demo_books import Books
from cli.output import Format, emit_list
from infra.adapters.load_client import LoadResult


@dataclass(frozen=True, slots=True)
class Figures:
    """The replay, the two samples of single requests (straight to the backend, through the router), books and projections."""

    replay: LoadResult
    direct: LoadResult
    routed: LoadResult
    books: Books
    projections: list[dict[str, Any]]
    paces: list[dict[str, Any]]
    """Of the World service, if it runs."""


def report(figures: Figures) -> bool:
    """Prints everything; whether the books agree with the backend and every projection with its rebuild."""
    replay, books = figures.replay, figures.books
    print("\nOutcomes of the replay")
    _print(
        [{"outcome": name, "requests": count} for name, count in sorted(replay.outcomes.items())],
        ("outcome", "requests"),
    )
    print("\nCost per project")
    _print(books.usage, ("org", "project", "requests", "denied", "input_tokens", "output_tokens", "cost_usd"))
    print("\nBudgets")
    _print(
        [{**budget, "used": f"{_used(budget):.1%}"} for budget in books.budgets],
        ("org", "id", "mode", "limit_usd", "consumed_usd", "held_usd", "used"),
    )
    print("\nProjections")
    columns = ("name", "events", "live_hash", "rebuilt_hash", "equal")
    _print([{**row, **_short(row)} for row in figures.projections], columns)
    if figures.paces:
        print("\nSlowest models of the last hour, as the World service sees it")
        _print(figures.paces, ("org", "model", "requests", "mean_ms", "slowest_ms"))
    _speed(figures)
    equal = all(row["equal"] for row in figures.projections)
    if not equal:
        print("a projection differs from its rebuild")
    if books.differences:
        print(f"THE BOOKS DIFFER in {len(books.differences)} places: books ${books.booked}, backend ${books.backend}")
        for line in books.differences[:20]:
            print(f"  {line}")
        return False
    count = sum(row["outcome"] == "completed" for row in books.rows)
    print(f"the books agree with the backend: {count} requests, ${books.booked}, to the nano-dollar")
    return equal


def _used(budget: dict[str, Any]) -> Decimal:
    limit = Decimal(budget["limit_usd"])
    return Decimal(budget["consumed_usd"]) / limit if limit else Decimal(0)


def _short(row: dict[str, Any]) -> dict[str, str]:
    return {name: str(row[name])[:16] for name in ("live_hash", "rebuilt_hash")}


def _speed(figures: Figures) -> None:
    replay = figures.replay
    print(
        f"\n{replay.requests} requests in {replay.seconds:.1f} s: {replay.requests / replay.seconds:,.0f} requests/s, "
        f"{replay.prompt_tokens:,} prompt and {replay.completion_tokens:,} completion tokens reported to clients"
    )
    if replay.repeats:
        print(
            f"{replay.repeats} times a request that could not be decided (503) was sent again, as clients of providers do"
        )
    added = []
    for quantile in (0.5, 0.99):
        routed, direct = figures.routed.latency_ms(quantile), figures.direct.latency_ms(quantile)
        if routed is not None and direct is not None:
            added.append(f"p{quantile * 100:.0f} {routed - direct:.2f} ms")
    print(f"latency added to one request at a time: {', '.join(added)}")


def _print(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    emit_list(rows, Format.table, columns)
