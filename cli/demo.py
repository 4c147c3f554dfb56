"""``tollhouse demo``: the main job in one command.

An embedded server and the Hello service as processes of their own, two organizations with projects, keys and budgets of
which some run out, a real trace through the router; then the books against the backend's own journal, request by request.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from cli.demo_books import Books, read_books
from cli.demo_report import Figures, report
from cli.exits import CheckFailed
from cli.load import LoadPlan, loads
from cli.output import note
from cli.progress import progress
from domain.errors import TollhouseError, Unavailable, invalid
from infra.adapters.api_client import ApiClient
from infra.adapters.load_client import Load, LoadClient, LoadResult, Outcome
from infra.adapters.trace_file import TraceRow, chat_body, read_trace

MODEL = "hello"
PRICE = {"input_usd": "0.50", "output_usd": "1.50"}
TRACE = Path("examples/azure-llm-2023/conversation.csv")
CONCURRENCY = 64
SAMPLE = 200
"""Rows sent one at a time, with and without the router, for the latency that it adds."""

START_SECONDS = 60.0
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


def demo(keep: bool, trace: Path | None, limit: int | None) -> None:
    """Runs it all and prints the result. Raises `CheckFailed` if the books and the backend differ in anything."""
    rows = read_trace(trace or _own_trace(), limit)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="tollhouse-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        journal = folder / "hello.ndjson"
        hello = stack.enter_context(_process("hello", folder, "--journal", str(journal)))
        server = stack.enter_context(_process("serve", folder, "--data", str(folder / "data")))
        admin = ApiClient(server, (folder / "data" / "admin.key").read_text().strip())
        stack.callback(admin.close)
        keys = _set_up(admin, hello)
        note(f"replaying {len(rows)} requests of {(trace or _own_trace()).name} through {server}")
        result = _replay(server, rows, list(keys.values()))
        direct = uvloop.run(_one_by_one(hello, rows[:SAMPLE], "none"))
        routed = uvloop.run(_one_by_one(server, rows[:SAMPLE], keys["web"]))
        sent = result.requests + routed.requests
        books = _settled(lambda: read_books(admin, journal, [tenant.id for tenant in TENANTS], PRICE), sent)
        with progress("verifying") as update:
            projections = _verified(admin, update)
        agree = report(Figures(result, direct, routed, books, projections))
        if keep:
            _wait(server, admin, folder)
        if not agree:
            raise CheckFailed("the books and the backend differ")


def _own_trace() -> Path:
    """The trace that comes with the source tree."""
    path = Path(__file__).resolve().parent.parent / TRACE
    if not path.exists():
        raise invalid("--trace", f"must name a trace: {TRACE} is part of the source tree only")
    return path


@contextmanager
def _process(command: str, folder: Path, *options: str) -> Iterator[str]:
    """A process of the product on a free port: its URL. Ended by SIGTERM; its log is shown if it does not start."""
    log = folder / f"{command}.log"
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "cli.main", command, "--listen", "127.0.0.1:0", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("ready "):
                yield line.split()[1]
                break
        else:
            raise TollhouseError(f"{command} did not start:\n{log.read_text()[-2000:]}")
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()  # type: ignore[union-attr]  # it was asked for


def _set_up(admin: ApiClient, hello: str) -> dict[str, str]:
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
            admin.send("PUT", f"{org}/budgets/{name}", budget)
    return keys


def _replay(server: str, rows: list[TraceRow], keys: list[str]) -> LoadResult:
    plan = LoadPlan(trace=TRACE, url=server, keys=keys, models=(MODEL,), concurrency=CONCURRENCY, stream_share=0.1)
    with progress("requests") as update:
        done = 0

        def seen(_load: Load, _outcome: Outcome) -> None:
            nonlocal done
            done += 1
            if done % 100 == 0:
                update(done, len(rows))

        client = LoadClient(server)
        return uvloop.run(client.run(loads(plan, rows), plan.concurrency, seen))


async def _one_by_one(url: str, rows: list[TraceRow], key: str) -> LoadResult:
    """The rows over one connection, each after the other."""
    sample = (Load(0.0, chat_body(row, MODEL, False), key, False) for row in rows)
    return await LoadClient(url).run(sample, 1)


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


def _wait(server: str, admin: ApiClient, folder: Path) -> None:
    note(f"\nrunning at {server}; admin key in {folder / 'data' / 'admin.key'}; Ctrl-C ends it and removes the folder")
    try:
        while True:
            time.sleep(1)
            admin.get("/healthz")
    except (KeyboardInterrupt, Unavailable):
        note("ended")
