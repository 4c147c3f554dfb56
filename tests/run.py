"""Runs every suite, each in its own process, and prints what ran, how long it took and how it ended.

Two suites run at a time: one that computes beside one that waits for real servers. A suite that cannot run counts as
failed, with the reason it gave. `tests/run.py unit e2e` runs only those.
"""

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LANES = {
    "computing": ("unit", "golden", "contract", "integration", "docs", "e2e", "attack", "canaries"),
    "waiting": ("distributed", "workers", "sdk", "reads", "moving", "faults", "soak"),
}
FOLDERS = {"reads": "reads_distributed"}
"""Of suites whose folder has another name."""

_COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|deselected)")


def run(suite: str) -> tuple[bool, dict[str, int], float]:
    """Whether the suite is green, its counts, and its seconds. Prints what it said when it has ended."""
    print(f"---- {suite} begins", flush=True)
    began = time.monotonic()
    folder = f"tests/{FOLDERS.get(suite, suite)}"
    command = [sys.executable, "-m", "pytest", folder, "--durations=5", "--durations-min=5"]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(f"---- {suite}\n{ran.stdout}", flush=True)
    last = next((line for line in reversed(ran.stdout.splitlines()) if _COUNTS.search(line)), "")
    counts = {name.rstrip("s") if name.startswith("error") else name: int(n) for n, name in _COUNTS.findall(last)}
    green = ran.returncode == 0 and counts.get("passed", 0) > 0 and not counts.get("skipped")
    return green, counts, time.monotonic() - began


def main(wanted: list[str]) -> int:
    if unknown := set(wanted) - {suite for lane in LANES.values() for suite in lane}:
        print(f"no such suite: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(len(LANES)) as lanes:
        running = [
            lanes.submit(
                lambda suites: [(suite, run(suite)) for suite in suites if not wanted or suite in wanted], lane
            )
            for lane in LANES.values()
        ]
        results = [result for lane in running for result in lane.result()]
    print("\nsuite         seconds  result")
    for suite, (green, counts, seconds) in results:
        told = ", ".join(f"{n} {name}" for name, n in counts.items()) or "not run"
        print(f"{suite:<12} {seconds:>8.1f}  {'ok' if green else 'FAILED'}: {told}")
    passed = sum(counts.get("passed", 0) for _, (_, counts, _) in results)
    failed = sum(not green for _, (green, _, _) in results)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
