"""``tollhouse doctor``: looks at each setting and dependency; one line each, with the fix.

It changes nothing and opens no store: a running server may own the folder.
"""

import importlib.util
import os
import resource
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cli.connect import KEY_FILE, URL_FILE, connect, running_url
from cli.finding import Finding
from cli.settings import Settings
from domain.errors import NotFound, TollhouseError, Unavailable
from infra.adapters.api_client import ApiClient

LEAST_FILES = 4096
LEAST_DISK = 1 << 30

_FEED = "start a `tollhouse worker`, or see why it stands still in its log"


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, in the order a person would look."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (_runtime, _folder, _servers, _server)
    for check in checks:
        yield from check(settings)


def _runtime(_settings: Settings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", sys.version_info >= (3, 11), version, "use Python 3.11 or later")
    missing = [
        name for name in ("chdb", "eventsourcing", "uvloop", "httptools") if importlib.util.find_spec(name) is None
    ]
    yield Finding(
        "packages", not missing, "missing: " + ", ".join(missing) if missing else "all there", "pip install -e ."
    )
    try:
        zone = ZoneInfo("Asia/Kathmandu").key
        yield Finding("time zones", True, f"{zone} found")
    except ZoneInfoNotFoundError:
        yield Finding("time zones", False, "no IANA zones", "pip install tzdata")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= LEAST_FILES
    yield Finding("open files", enough, f"limit {soft}", f"ulimit -n {LEAST_FILES}")


def _folder(settings: Settings) -> Iterator[Finding]:
    data = settings.data
    parent = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
    writable = os.access(parent, os.W_OK)
    seen = f"{data}" if data.exists() else f"{data}: made at the first start"
    yield Finding("data folder", writable, seen, f"make {parent} writable, or set TOLLHOUSE_DATA")
    free = shutil.disk_usage(parent).free
    yield Finding("disk", free >= LEAST_DISK, f"{free / (1 << 30):.1f} GiB free", "free at least 1 GiB")
    for name in ("secret", KEY_FILE):
        if (data / name).exists():
            yield _private(data / name)


def _private(path: Path) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    return Finding(path.name, mode & 0o077 == 0, f"mode {mode:04o}", f"chmod 600 {path}")


def _servers(settings: Settings) -> Iterator[Finding]:
    """Of distributed mode, whose clients need not be installed otherwise."""
    if not any((settings.kafka, settings.postgres, settings.redis, settings.clickhouse)):
        return
    wanted = ("kafka", "confluent_kafka", "psycopg", "redis", "faust")
    if missing := [name for name in wanted if importlib.util.find_spec(name) is None]:
        yield Finding("clients", False, "missing: " + ", ".join(missing), "pip install 'tollhouse[distributed]'")
        return
    from cli.doctor_servers import examine_servers

    yield from examine_servers(settings)


def _server(settings: Settings) -> Iterator[Finding]:
    url = settings.url or running_url(settings.data)
    if url is None:
        yield Finding("server", True, f"none runs on {settings.data}; `tollhouse serve` starts one")
        return
    client = connect(settings)
    try:
        yield from _answers(settings, client, url)
    finally:
        client.close()


def _answers(settings: Settings, client: ApiClient, url: str) -> Iterator[Finding]:
    try:
        client.get("/healthz")
    except Unavailable as error:
        stale = settings.url is None
        fix = (
            f"start it again, or remove {settings.data / URL_FILE}"
            if stale
            else "start it, or set another TOLLHOUSE_URL"
        )
        yield Finding("server", False, error.message, fix)
        return
    yield Finding("server", True, f"answers at {url}")
    try:
        client.get("/readyz")
        yield Finding("ready", True, "accepts requests")
    except TollhouseError as error:
        yield Finding("ready", False, error.message, "wait a few seconds; its log (stderr) says what it waits for")
    yield from _prices(client)
    yield from _views(client)


def _prices(client: ApiClient) -> Iterator[Finding]:
    """Whether the key is taken, and every model has a price; a read process knows of none."""
    try:
        priced = {row["id"] for page in client.pages("/admin/v1/prices") for row in page["data"]}
        models = [row["id"] for page in client.pages("/admin/v1/models") for row in page["data"]]
    except NotFound:
        return
    except TollhouseError as error:
        yield Finding("admin key", False, error.message, "set TOLLHOUSE_ADMIN_KEY, or use the folder's admin.key")
        return
    yield Finding("admin key", True, "accepted")
    free = sorted(set(models) - priced)
    yield Finding(
        "prices",
        not free,
        f"without a price: {', '.join(free)}" if free else f"{len(models)} models, all priced",
        "tollhouse price seed, or tollhouse price set MODEL",
    )


def _views(client: ApiClient) -> Iterator[Finding]:
    """How far each view is; a gateway knows of none."""
    try:
        rows = client.get("/admin/v1/projections")["data"]
    except NotFound:
        return
    except TollhouseError as error:
        yield Finding("views", False, error.message, "see its log (stderr)")
        return
    for row in rows:
        seen = f"{row['name']} version {row['version']}: {row['lag']} records behind, {row['parked']} parked"
        yield Finding("view", row["error"] is None, seen + (f"; {row['error']}" if row["error"] else ""), _FEED)
        if row["parked"]:
            yield Finding("parked", False, f"{row['parked']} events of {row['name']}", "tollhouse parked list")
