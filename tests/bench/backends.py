"""What stands behind every proxy, on the other core: nginx with one answer, and the Hello service for streams."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import nginx
from tests.bench.calls import GATEWAY, REST, Call, plain, streamed
from tests.bench.processes import free_port, process, wait_for
from tests.bench.targets import Target

PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Backends:
    """Base URLs without ``/v1``: what answers plain calls at once, and what streams."""

    plain: str
    streaming: str

    @property
    def direct(self) -> Call:
        """A streamed call without any proxy."""
        return streamed(self.streaming + PATH, {})


@contextmanager
def backends(folder: Path) -> Iterator[Backends]:
    """Both, running."""
    answering, streaming = free_port(), free_port()
    hello = [sys.executable, "-m", "cli.main", "hello", "--listen", f"127.0.0.1:{streaming}"]
    with (
        process(["nginx", "-c", str(nginx.backend(folder, answering))], REST, folder / "backend.log"),
        process(hello, REST, folder / "hello.log"),
    ):
        wait_for(f"http://127.0.0.1:{answering}/", folder / "backend.log")
        wait_for(f"http://127.0.0.1:{streaming}/v1/models", folder / "hello.log")
        yield Backends(f"http://127.0.0.1:{answering}", f"http://127.0.0.1:{streaming}")


@contextmanager
def floor(folder: Path, behind: Backends) -> Iterator[Target]:
    """nginx as plain proxy: what no gateway is below."""
    port = free_port()
    config = nginx.proxy(folder, port, *(int(url.rpartition(":")[2]) for url in (behind.plain, behind.streaming)))
    with process(["nginx", "-c", str(config)], GATEWAY, folder / "proxy.log") as child:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, folder / "proxy.log")
        yield Target(
            "nginx", "proxy", child.pid, plain(url + PATH, {}), streamed(f"{url}/streams{PATH}", {}), behind.direct
        )
