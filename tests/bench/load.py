"""wrk, told to POST a chat completion, and what it reports."""

import re
import subprocess
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.calls import REST, Call

_LUA = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
%s
wrk.body = [==[%s]==]
%s
done = function(summary, latency)
  io.write(string.format("RESULT %%d %%d %%d %%f %%f %%d\\n", summary.requests, summary.duration, summary.bytes,
    latency:percentile(50), latency:percentile(99),
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout))
end
"""

_IN_TURN = """
local keys, turn = {}, 0
for key in io.lines("%s") do keys[#keys + 1] = key end
request = function()
  turn = turn %% #keys + 1
  wrk.headers["authorization"] = "Bearer " .. keys[turn]
  return wrk.format()
end
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """Requests answered, bytes received, requests a second, milliseconds, and how many requests went wrong."""

    requests: int
    received: int
    per_second: float
    p50: float
    p99: float
    errors: int


def once(call: Call) -> None:
    """Asks once, and waits for the answer. Raises `OSError` if it is a refusal, or takes minutes."""
    headers = {**call.headers, "content-type": "application/json"}
    request = urllib.request.Request(call.url, call.body.encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=180) as answer:
        answer.read()


def run(call: Call, connections: int, seconds: int, folder: Path, keys: Sequence[str] = ()) -> Figures:
    """wrk on the core of the rest. `keys`: service keys that the requests have in turn, instead of the call's own."""
    in_turn = ""
    if keys:
        kept = folder / "keys.txt"
        kept.write_text("\n".join(keys))
        in_turn = _IN_TURN % kept
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in call.headers.items())
    script = folder / "post.lua"
    script.write_text(_LUA % (headers, call.body, in_turn))
    pinned = ["taskset", "-c", str(REST), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    out = subprocess.run([*pinned, "-s", str(script), call.url], check=True, capture_output=True, text=True).stdout
    match = re.search(r"RESULT (\d+) (\d+) (\d+) (\S+) (\S+) (\d+)", out)
    if match is None:
        raise RuntimeError(out)
    requests, micros, received, p50, p99, errors = match.groups()
    per_second = int(requests) / int(micros) * 1e6
    return Figures(int(requests), int(received), per_second, float(p50) / 1e3, float(p99) / 1e3, int(errors))
