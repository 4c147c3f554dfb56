"""``tollhouse price seed``: published prices become prices of this installation, by ordinary commands."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from cli.paths import segment
from cli.session import Session
from domain.errors import Invalid, NotFound
from infra.adapters.price_catalog import CatalogPrice, find_price

COLUMNS = ("model", "result", "input_usd", "output_usd", "cached_input_usd", "cache_write_usd", "source_date", "source")

_PRICE_FIELDS = (
    "input_usd",
    "output_usd",
    "cached_input_usd",
    "cache_write_usd",
    "reasoning_usd",
    "audio_input_usd",
    "image_input_usd",
    "audio_output_usd",
    "per_request_usd",
    "source",
    "source_date",
)


def seed_prices(session: Session, named: Sequence[str]) -> None:
    """Lists a price for each model named (``MODEL`` or ``MODEL=PUBLISHED_NAME``), or for each published model the catalogue
    knows. Raises `NotFound` or `Invalid` if a model that was named cannot be priced; the others are priced nevertheless."""
    rows, failed = [], []
    for model, reference, url in _wanted(session, named):
        try:
            price = find_price(reference, url, datetime.now(UTC))
        except (NotFound, Invalid) as error:
            rows.append({"model": model, "result": error.message})
            failed.append(error)
            continue
        rows.append({"model": model, "result": _list(session, model, price), **_body(price)})
    session.print(rows, COLUMNS)
    if named and failed:
        raise failed[0]


def _wanted(session: Session, named: Sequence[str]) -> list[tuple[str, str, str | None]]:
    """(model, what its provider calls it, the backend's URL)."""
    pages = session.client.pages
    urls = {backend["id"]: backend["url"] for page in pages("/admin/v1/backends") for backend in page["data"]}
    known = {}
    for page in pages("/admin/v1/models"):
        for model in page["data"]:
            route = min(model["routes"], key=lambda route: route.get("tier", 0))
            known[model["id"]] = (route["upstream_model"], urls.get(route["backend"]))
    if not named:
        return [(model, *route) for model, route in known.items()]
    wanted = []
    for text in named:
        model, _, name = text.partition("=")
        upstream, url = known.get(model, (model, None))
        wanted.append((model, name or upstream, url))
    return wanted


def _body(price: CatalogPrice) -> dict[str, Any]:
    fields = msgspec.to_builtins(price)
    return {name: fields[name] for name in _PRICE_FIELDS if fields[name] is not None}


def _list(session: Session, model: str, price: CatalogPrice) -> str:
    params = {"dry_run": "true"} if session.dry_run else None
    session.client.send("PUT", f"/admin/v1/prices/{segment(model)}", _body(price), params)
    return "would be listed" if session.dry_run else "listed"
