"""Commands a second: budget adjustments by some admins at once, each decided, journaled with fsync, relayed and acknowledged.

The load is wrk's, with a connection for each admin: a client in Python costs a core more than the process under measurement.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import own_cpu_seconds
from tests.bench.product import COMMANDED, Server

_SPREAD = 4
"""Budgets for each admin: the admins take them in turn, and hardly ever two the same at once."""

_LUA = """
local budgets, turn = %d, 0
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer %s"
wrk.body = '{"amount_usd": "0.01", "reason": "bench"}'
request = function()
  turn = turn + 1
  return wrk.format(nil, "/admin/v1/orgs/%s/budgets/b" .. turn %% budgets .. "/adjust")
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %%d %%d %%f %%f %%d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True)
class Commanded:
    """Commands a second, microseconds of the process's CPU for each, milliseconds, and how many were not carried out."""

    per_second: float
    cpu: float
    p50: float
    p99: float
    errors: int

    def __str__(self) -> str:
        return (
            f"{self.per_second:,.0f} commands/s, {self.cpu:.0f} us CPU, p50 {self.p50:.1f} ms, p99 {self.p99:.1f} ms"
            + f", {self.errors} not carried out" * bool(self.errors)
        )


def commanded(target: Server, admins: int, seconds: int, core: int, folder: Path) -> Commanded:
    """wrk on one core against `target`, whose organization is made."""
    for number in range(admins * _SPREAD):
        body = {"scope": {"kind": "org"}, "limit_usd": "1", "period": "month", "mode": "soft"}
        target.call("PUT", f"/admin/v1/orgs/{COMMANDED}/budgets/b{number}", body)
    script = folder / "adjust.lua"
    script.write_text(_LUA % (admins * _SPREAD, target.admin_key, COMMANDED))
    pinned = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{admins}", f"-d{seconds}s", "--timeout", "10s"]
    before = own_cpu_seconds(target.pid)
    out = subprocess.run([*pinned, "-s", str(script), target.url], check=True, capture_output=True, text=True).stdout
    used = own_cpu_seconds(target.pid) - before
    match = re.search(r"RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+)", out)
    if match is None:
        raise RuntimeError(out)
    done, micros, p50, p99, errors = match.groups()
    per_second = int(done) / int(micros) * 1e6
    return Commanded(per_second, used / max(1, int(done)) * 1e6, float(p50) / 1e3, float(p99) / 1e3, int(errors))


@contextmanager
def moved(core: int, elsewhere: int, alone: int, others: list[int]) -> Iterator[None]:
    """The process `alone` has `core` to itself meanwhile; the `others` that were on it are `elsewhere`."""
    _pin(alone, core)
    for pid in others:
        _pin(pid, elsewhere)
    try:
        yield
    finally:
        _pin(alone, elsewhere)
        for pid in others:
            _pin(pid, core)


def _pin(pid: int, core: int) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
