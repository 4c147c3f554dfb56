"""``tollhouse serve``: embedded mode, everything on one port. Applications under ``/v1``, admins under ``/admin/v1``."""

import asyncio
from contextlib import suppress

import uvloop

from api.admin.app import create_app
from api.admin.call import AdminDeps
from api.backends_page import BackendsPage
from api.metrics import Metrics
from api.proxy import Proxy
from api.site import App, Site
from cli import log_lines
from cli.http_server import serve_app
from cli.paths import READ_SIDE, READ_SIDE_OF_ADMIN
from cli.running import allow_many_files
from cli.serving import count_tasks, counted_slow_callers
from cli.settings import Settings
from cli.wiring import Embedded, open_embedded, views_child
from domain.errors import invalid
from infra.adapters.data_folder import short_socket
from infra.adapters.ids import new_id
from infra.adapters.keyring_directory import KeyringDirectory


def serve(settings: Settings) -> None:
    """Runs until SIGTERM. Raises `Conflict` if another process has the folder, `Invalid` if more than one is to take requests."""
    if settings.workers > 1:
        raise invalid(
            "TOLLHOUSE_WORKERS", "must be 1 for `tollhouse serve`: its one gate is in the process that takes requests"
        )
    log_lines.configure()
    allow_many_files()
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    async with open_embedded(settings) as core:
        metrics = Metrics()
        slow = counted_slow_callers(settings, metrics)
        count_tasks(metrics)
        metrics.gauge("tollhouse_not_ready_reasons", "Reasons why requests are refused", lambda: len(core.reasons()))
        if core.first_admin_key is not None:
            print(f"admin key {core.first_admin_key}", flush=True)

        def ready(url: str) -> None:
            core.folder.server_url.write_text(f"{url}\n")
            print(f"ready {url}", flush=True)

        with short_socket(core.folder.views_socket) as socket:
            running = asyncio.create_task(views_child(core.folder, socket).run())
            reads = Proxy(core.reads, f"unix://{socket}")
            try:
                await serve_app(
                    site(core, metrics, reads),
                    settings.address,
                    ready,
                    core.failed,
                    reads.end,
                    slow=slow,
                    observe=metrics.observe,
                )
            finally:
                core.folder.server_url.unlink(missing_ok=True)
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running


def site(core: Embedded, metrics: Metrics, reads: Proxy) -> Site:
    """Which application answers which path; `reads` is the way to the read side."""

    async def read_side(scope: object, receive: object, send: object) -> None:
        await reads(scope, receive, send, new_id("req"))  # type: ignore[arg-type]  # ASGI's own shapes

    deps = AdminDeps(
        commands=core.commands,
        directory=KeyringDirectory(core.keyring),
        secrets=core.secrets,
        balances=lambda: core.balances,
        reconciliation=core.reconciliation,
        clock=core.clock,
        max_body=core.settings.max_body,
    )
    mounts: dict[str, App] = {
        "/v1/": core.router(metrics),
        "/admin/v1": create_app(deps),
        "/backendz": BackendsPage(core.backends),
    }
    for prefix in (*READ_SIDE, *READ_SIDE_OF_ADMIN):
        mounts[prefix] = read_side
    return Site(mounts, core.reasons, metrics, new_id)
