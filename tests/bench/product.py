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

from tests.bench.processes import free_port, process, wait_for


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, its admin key and a service key with a hard budget in scope."""

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

    def set_up(self, backend: str) -> str:
        """One model on `backend`, one organization with a hard monthly budget; its service key."""
        self.call("PUT", "/admin/v1/backends/bench", {"url": f"{backend}/v1", "protocol": "openai"})
        model = {"routes": [{"backend": "bench", "upstream_model": "bench"}], "max_output_tokens": 4096}
        self.call("PUT", "/admin/v1/models/bench", {**model, "context_tokens": 128_000})
        self.call("PUT", "/admin/v1/prices/bench", {"input_usd": "1", "output_usd": "2"})
        self.call("POST", "/admin/v1/orgs", {"id": "bench", "name": "bench"})
        budget = {"scope": {"kind": "org"}, "limit_usd": "9000000", "period": "month", "mode": "hard"}
        self.call("PUT", "/admin/v1/orgs/bench/budgets/cap", budget)
        self.call("POST", "/admin/v1/orgs/bench/projects", {"id": "main", "name": "main"})
        secret: str = self.call("POST", "/admin/v1/orgs/bench/keys", {"name": "k", "project": "main"})["secret"]
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
def server(folder: Path, core: int) -> Iterator[Server]:
    """`tollhouse serve`, both of its processes on one core."""
    port, data, log = free_port(), folder / "data", folder / "serve.log"
    command = [sys.executable, "-m", "cli.main", "serve", "--data", str(data), "--listen", f"127.0.0.1:{port}"]
    with process(command, core, log) as child:
        wait_for(f"http://127.0.0.1:{port}/readyz", log)
        key = (data / "admin.key").read_text().strip()
        found = Server(f"http://127.0.0.1:{port}", child.pid, key, data)
        wait_for(f"{found.url}/read/v1/orgs/none/budgets", log)
        yield found
