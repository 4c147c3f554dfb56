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
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cli.connect import KEY_FILE, URL_FILE, connect, running_url
from cli.settings import Settings
from domain.errors import TollhouseError, Unavailable
from infra.adapters.api_client import ApiClient

LEAST_FILES = 4096
LEAST_DISK = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `ok`, what was seen, and what to do if it is not ok."""

    check: str
    ok: bool
    seen: str
    fix: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, in the order a person would look."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (_runtime, _folder, _server)
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
    try:
        priced = {row["id"] for page in client.pages("/admin/v1/prices") for row in page["data"]}
        models = [row["id"] for page in client.pages("/admin/v1/models") for row in page["data"]]
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
