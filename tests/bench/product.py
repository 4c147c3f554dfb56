"""The product under measurement: one embedded server on one core, its admin steps, and the lag of its views."""

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.backends import Backends
from tests.bench.calls import GATEWAY, MODEL, STREAM_MODEL
from tests.bench.processes import free_port, process, wait_for

_PATIENCE = 300.0
"""Seconds: a folder with a long past is folded at the start."""

GOVERNED, UNBUDGETED = "T1, T2, T3", "T1, T3"
"""Tiers of a request whose key has a hard budget in scope, and of one whose key has none. Both are recorded durably."""

ORG, FREE, COMMANDED = "bench", "free", "commanded"
"""Organizations: with a hard budget, with none, and one that only gets commands: it has hundreds of budgets."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Service keys: one with a hard budget in scope, one with none."""

    budget: str
    free: str


@dataclass(frozen=True, slots=True)
class Server:
    """A running server and its admin key."""

    url: str
    pid: int
    admin_key: str
    data: Path

    def call(self, method: str, path: str, body: Any = None, position: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self.admin_key}", "content-type": "application/json"}
        if position is not None:
            headers["x-tollhouse-position"] = position
        request = urllib.request.Request(self.url + path, method=method, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def set_up(self, backends: Backends) -> Keys:
        """A model on each backend, and the organizations; `ORG` with a hard monthly budget."""
        for model, url in ((MODEL, backends.plain), (STREAM_MODEL, backends.streaming)):
            self.call("PUT", f"/admin/v1/backends/{model}", {"url": f"{url}/v1", "protocol": "openai"})
            routes = [{"backend": model, "upstream_model": model}]
            limits = {"max_output_tokens": 4096, "context_tokens": 128_000}
            self.call("PUT", f"/admin/v1/models/{model}", {"routes": routes, **limits})
            self.call("PUT", f"/admin/v1/prices/{model}", {"input_usd": "1", "output_usd": "2"})
        for org in (ORG, FREE, COMMANDED):
            self.call("POST", "/admin/v1/orgs", {"id": org, "name": org})
            self.call("POST", f"/admin/v1/orgs/{org}/projects", {"id": "main", "name": "main"})
        budget = {"scope": {"kind": "org"}, "limit_usd": "9000000", "period": "month", "mode": "hard"}
        self.call("PUT", f"/admin/v1/orgs/{ORG}/budgets/cap", budget)
        return Keys(self._key(ORG), self._key(FREE))

    def _key(self, org: str) -> str:
        body = {"name": "k", "project": "main"}
        secret: str = self.call("POST", f"/admin/v1/orgs/{org}/keys", body)["secret"]
        return secret

    def rebuild(self, name: str) -> str:
        """Rebuilds a projection of everything there is, and says how it went."""
        began = time.monotonic()
        operation = self.call("POST", f"/admin/v1/projections/{name}/rebuild")["operation"]
        while (state := self.call("GET", f"/admin/v1/operations/{operation}"))["status"] == "running":
            time.sleep(0.05)
        seconds, result = time.monotonic() - began, state["result"]
        return (
            f"rebuild {name}: {result['events']:,} events in {seconds:.1f} s: {result['events'] / seconds:,.0f} events/s, "
            f"equal: {result['equal']}"
        )

    def lag(self) -> int:
        """Records that the slowest view has yet to take in."""
        return max(int(row["lag"]) for row in self.call("GET", "/admin/v1/projections")["data"])

    def seconds_to_zero(self) -> float:
        """Waits until no view lags."""
        began = time.monotonic()
        while self.lag():
            time.sleep(0.1)
        return time.monotonic() - began


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """`tollhouse serve` on the data folder in `folder`, both of its processes on one core."""
    port, data, log = free_port(), folder / "data", folder / "serve.log"
    command = [sys.executable, "-m", "cli.main", "serve", "--data", str(data), "--listen", f"127.0.0.1:{port}"]
    with process(command, GATEWAY, log) as child:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/readyz", log, _PATIENCE)
        found = Server(url, child.pid, (data / "admin.key").read_text().strip(), data)
        wait_for(f"{url}/read/v1/orgs/none/budgets", log, _PATIENCE)
        yield found
