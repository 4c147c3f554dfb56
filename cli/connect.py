"""Finds the server that a command talks to: the URL that was set, else the one that runs on the data folder."""

from pathlib import Path

from cli.settings import Settings
from domain.errors import Unavailable
from infra.adapters.api_client import ApiClient

URL_FILE = "server.url"
"""In the data folder while a server runs on it: one line, its URL."""

KEY_FILE = "admin.key"
"""In the data folder: the platform admin key of its first start."""


def connect(settings: Settings) -> ApiClient:
    """A client of that server. Raises `Unavailable` (``no_server``) if there is none."""
    running = running_url(settings.data)
    url = settings.url or running
    if url is None:
        raise Unavailable(
            f"no server runs on {settings.data}: start one with `tollhouse serve --data {settings.data}`, "
            "or set TOLLHOUSE_URL",
            code="no_server",
        )
    key = None if settings.admin_key is None else settings.admin_key.get_secret_value()
    if key is None and url == running:
        key = _line(settings.data / KEY_FILE)  # never sent to another server than the folder's own
    return ApiClient(url, key)


def connect_if_running(settings: Settings) -> ApiClient | None:
    """A client, or None when no URL was set and no server answers for the data folder: it is stopped then."""
    if settings.url is None and running_url(settings.data) is None:
        return None
    client = connect(settings)
    try:
        client.get("/healthz")
    except Unavailable as error:
        client.close()
        if settings.url is None and error.code == "unreachable":
            return None
        raise
    return client


def running_url(data: Path) -> str | None:
    """What the folder's ``server.url`` says; it may be left over from a server that was killed."""
    url = _line(data / URL_FILE)
    return None if url is None else url.rstrip("/")


def _line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
