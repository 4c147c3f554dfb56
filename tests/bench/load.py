"""wrk, told to POST a chat completion, and what it reports."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_LUA = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer %s"
wrk.body = [==[%s]==]
done = function(summary, latency)
  io.write(string.format("RESULT %%d %%d %%f %%f %%f %%d\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency.mean,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout))
end
"""


@dataclass(frozen=True)
class Figures:
    """Requests a second, milliseconds, and how many requests went wrong."""

    requests: int
    per_second: float
    p50: float
    p99: float
    errors: int


def run(url: str, key: str, body: str, connections: int, seconds: int, core: int, folder: Path) -> Figures:
    """wrk on one core against `url`."""
    script = folder / "post.lua"
    script.write_text(_LUA % (key, body))
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    match = re.search(r"RESULT (\d+) (\d+) ([\d.]+) ([\d.]+) ([\d.]+) (\d+)", out)
    if match is None:
        raise RuntimeError(out)
    requests, micros, p50, p99, _, errors = match.groups()
    return Figures(int(requests), int(requests) / int(micros) * 1e6, float(p50) / 1e3, float(p99) / 1e3, int(errors))
