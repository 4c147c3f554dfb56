"""``tollhouse demo``: the main job in one command.

Two organizations with projects, keys and budgets of which some run out, a real trace through the routers to the Hello service;
then the books against the backend's own journal, request by request. `cli.demo_houses` says what runs.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from cli.demo_books import Books, read_books
from cli.demo_houses import House, distributed, embedded
from cli.demo_report import Figures, report
from cli.exits import CheckFailed
from cli.load import LoadPlan, loads
from cli.output import note
from cli.progress import progress
from domain.errors import Unavailable, invalid
from infra.adapters.api_client import ApiClient
from infra.adapters.data_folder import write_private
from infra.adapters.load_client import Load, LoadClient, LoadResult, Outcome
from infra.adapters.trace_file import TraceRow, chat_body, read_trace

MODEL = "hello"
PRICE = {"input_usd": "0.50", "output_usd": "1.50"}
TRACE = Path("examples/azure-llm-2023/conversation.csv")
CONCURRENCY = 64
ENOUGH = "100000"
"""Dollars that no replay uses up."""

SAMPLE = 200
"""Rows sent one at a time, with and without the router, for the latency that it adds."""

RETRIES = 2
"""Times that a request which could not be decided is sent again: as many as the clients of providers do."""

SETTLE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organization of the demo: projects with one key each, and budgets by id."""

    id: str
    name: str
    timezone: str
    projects: tuple[str, ...]
    budgets: dict[str, dict[str, Any]] = field(default_factory=dict)


TENANTS = (
    Tenant(
        "acme",
        "Acme GmbH",
        "Europe/Berlin",
        ("web", "batch"),
        {
            "acme-month": {"scope": {"kind": "org"}, "limit_usd": "50", "period": "month", "mode": "hard"},
            "batch-day": {
                "scope": {"kind": "project", "id": "batch"},
                "limit_usd": "2.50",
                "period": "day",
                "mode": "hard",
            },
        },
    ),
    Tenant(
        "globex",
        "Globex Nepal",
        "Asia/Kathmandu",
        ("research", "support"),
        {
            "globex-life": {"scope": {"kind": "org"}, "limit_usd": "6", "period": "lifetime", "mode": "hard"},
            "support-week": {
                "scope": {"kind": "project", "id": "support"},
                "limit_usd": "1",
                "period": "week",
                "mode": "soft",
            },
        },
    ),
)


def demo(keep: bool, trace: Path | None, limit: int | None, *, servers: bool = False, refusals: bool = True) -> None:
    """Runs it all and prints the result. `servers`: each process by itself, on real servers; not `refusals`: no budget runs out.

    Raises `CheckFailed` if the books and the backend differ in anything.
    """
    rows = read_trace(trace or _own_trace(), limit)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="tollhouse-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        house = stack.enter_context(distributed(folder) if servers else embedded(folder))
        admin, read = ApiClient(house.admin, house.admin_key), ApiClient(house.read, house.admin_key)
        stack.callback(admin.close)
        stack.callback(read.close)
        keys = _set_up(admin, house.hello, refusals=refusals)
        note(f"replaying {len(rows)} requests of {(trace or _own_trace()).name} through {', '.join(house.routers)}")
        result = uvloop.run(_replay(house.routers, rows, list(keys.values())))
        direct = uvloop.run(_one_by_one(house.hello, rows[:SAMPLE], "none"))
        routed = uvloop.run(_one_by_one(house.routers[0], rows[:SAMPLE], keys["web"]))
        sent = result.requests + routed.requests
        books = _settled(lambda: read_books(read, house.journal, [tenant.id for tenant in TENANTS], PRICE), sent)
        with progress("verifying") as update:
            projections = _verified(admin, update)
        paces = [] if house.world is None else _paces(house.world, house.admin_key)
        agree = report(Figures(result, direct, routed, books, projections, paces))
        if keep:
            _wait(house, admin, folder)
        if not agree:
            raise CheckFailed("the books and the backend differ")


def _own_trace() -> Path:
    """The trace that comes with the source tree."""
    path = Path(__file__).resolve().parent.parent / TRACE
    if not path.exists():
        raise invalid("--trace", f"must name a trace: {TRACE} is part of the source tree only")
    return path


def _set_up(admin: ApiClient, hello: str, *, refusals: bool) -> dict[str, str]:
    """Backend, model, price, and every tenant; the secret of each project's key."""
    admin.send("PUT", "/admin/v1/backends/hello", {"url": f"{hello}/v1", "protocol": "openai"})
    routes = [{"backend": "hello", "upstream_model": MODEL}]
    model = {"routes": routes, "max_output_tokens": 1024, "context_tokens": 128_000}
    admin.send("PUT", f"/admin/v1/models/{MODEL}", model)
    admin.send("PUT", f"/admin/v1/prices/{MODEL}", PRICE)
    keys = {}
    for tenant in TENANTS:
        org = f"/admin/v1/orgs/{tenant.id}"
        admin.send("POST", "/admin/v1/orgs", {"id": tenant.id, "name": tenant.name, "timezone": tenant.timezone})
        for project in tenant.projects:
            admin.send("POST", f"{org}/projects", {"id": project, "name": project})
            keys[project] = admin.send("POST", f"{org}/keys", {"name": project, "project": project}).doc["secret"]
        for name, budget in tenant.budgets.items():
            limit = {} if refusals else {"limit_usd": ENOUGH}
            admin.send("PUT", f"{org}/budgets/{name}", {**budget, **limit})
    return keys


async def _replay(routers: Sequence[str], rows: list[TraceRow], keys: list[str]) -> LoadResult:
    """The trace, through all routers at once: each takes the next request when it can."""
    plan = LoadPlan(trace=TRACE, url=routers[0], keys=keys, models=(MODEL,), stream_share=0.1)
    requests = loads(plan, rows)
    with progress("requests") as update:
        done = 0

        def seen(_load: Load, _outcome: Outcome) -> None:
            nonlocal done
            done += 1
            if done % 100 == 0:
                update(done, len(rows))

        clients = [LoadClient(router, retries=RETRIES) for router in routers]
        results = await asyncio.gather(*(c.run(requests, CONCURRENCY // len(clients), seen) for c in clients))
    return LoadResult.of(results)


async def _one_by_one(url: str, rows: list[TraceRow], key: str) -> LoadResult:
    """The rows over one connection, each after the other."""
    sample = (Load(0.0, chat_body(row, MODEL, False), key, False) for row in rows)
    return await LoadClient(url, retries=RETRIES).run(sample, 1)


def _settled(read: Callable[[], Books], sent: int) -> Books:
    """The books once every request that was sent is in them and ended, or as they are when patience is over."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        books = read()
        if (books.requests >= sent and not books.open) or time.monotonic() > deadline:
            return books
        time.sleep(0.5)


def _verified(admin: ApiClient, update: Callable[[int, int], None]) -> list[dict[str, Any]]:
    from cli.operations import finished

    started = admin.send("POST", "/admin/v1/projections/all/verify").doc
    result: dict[str, Any] = finished(admin, started, update)
    rows: list[dict[str, Any]] = result["data"]
    return rows


def _paces(world: str, key: str) -> list[dict[str, Any]]:
    """What the World service says of each tenant."""
    client = ApiClient(world, key)
    try:
        rows = []
        for tenant in TENANTS:
            found = client.get(f"/world/v1/orgs/{tenant.id}/slowest-models")["data"]
            rows += [{"org": tenant.id, **row} for row in found]
        return rows
    finally:
        client.close()


def _wait(house: House, admin: ApiClient, folder: Path) -> None:
    key = folder / "admin.key"
    if not key.exists():
        write_private(key, house.admin_key)
    note(f"\nrunning at {house.admin}; admin key in {key}; Ctrl-C ends it and removes the folder")
    try:
        while True:
            time.sleep(1)
            admin.get("/healthz")
    except (KeyboardInterrupt, Unavailable):
        note("ended")
