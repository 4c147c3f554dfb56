"""The folder of embedded mode: who may open it, the secret, and where each file is."""

import fcntl
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domain.errors import Conflict

SECRET_BYTES = 32
_SOCKET_PATH = 100


class DataFolder:
    """Paths inside the folder. `make` creates it; nothing is read or locked until asked."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.journal = self.root / "journal.db"
        self.log = self.root / "log.db"
        self.views = self.root / "views.db"
        self.analytics = self.root / "analytics"
        self.admin_key = self.root / "admin.key"
        self.server_url = self.root / "server.url"
        self.views_socket = self.root / "views.sock"

    def make(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def secret(self) -> bytes:
        """The installation's secret, made at the first start (mode 0600): the same text is a `TOLLHOUSE_SECRET`."""
        path = self.root / "secret"
        if not path.exists():
            write_private(path, secrets.token_hex(SECRET_BYTES))
        return path.read_text().strip().encode()


@contextmanager
def short_socket(path: Path) -> Iterator[Path]:
    """`path`, or one in a private folder of its own while the context lasts: a socket's path cannot be long."""
    if len(os.fsencode(path)) < _SOCKET_PATH:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="tollhouse-") as folder:
        yield Path(folder) / path.name


class FolderLock:
    """Held by the one process that may open the folder (`name` tells several kinds apart). Ends with the process."""

    def __init__(self, folder: DataFolder, name: str) -> None:
        self._path = folder.root / name
        self._file: int | None = None

    def take(self, patience: float = 0.0) -> None:
        """Raises `Conflict` when another process holds it for longer than `patience` seconds."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    owner = os.pread(file, 20, 0).decode() or "unknown"
                    os.close(file)
                    raise Conflict(
                        f"{self._path.parent} is open in another process (pid {owner})", code="folder_in_use"
                    ) from None
                time.sleep(0.02)
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(file, f"{text}\n".encode())
        os.fsync(file)
    finally:
        os.close(file)
    temporary.replace(path)
