"""``stack.json``: the ports that a stack's servers were given, once and for all, and the processes that run them now."""

import os
from pathlib import Path

import msgspec

from domain.errors import Unavailable
from infra.stack.process import Process

FILE = "stack.json"


class ServerState(msgspec.Struct):
    """`ports`: the one for clients first. `process`: the one that was started last, which may have ended since."""

    ports: list[int]
    process: Process | None = None


class State(msgspec.Struct):
    """`password`: PostgreSQL's and ClickHouse's. `servers` by name."""

    brokers: int
    password: str
    servers: dict[str, ServerState]


def load(folder: Path) -> State | None:
    """None where no stack was made yet. Raises `Unavailable` if the file is not one of ours."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(f"{path} is no stack's file: {error}", code="stack_failed") from None


def save(folder: Path, state: State) -> None:
    """Replaces the file whole. Only its owner may read it."""
    path, fresh = folder / FILE, folder / f"{FILE}.new"
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(state)) + b"\n")
    fresh.rename(path)
