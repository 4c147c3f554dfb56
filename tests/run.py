"""Runs every suite, each in its own process, and prints what ran, how long it took and how it ended.

As many suites run at a time as there are processors, two at least: all of them wait for real servers now and then. Those that
take longest begin first, so that none is left alone at the end. A suite that cannot run counts as failed, with its reason.
`tests/run.py unit e2e` runs only those.
"""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUITES = (
    *("contract", "distributed", "workers", "e2e", "integration", "reads", "sdk", "faults"),
    *("unit", "moving", "soak", "golden", "attack", "canaries", "docs"),
)
"""Those that take longest first."""

AT_A_TIME = max(2, os.cpu_count() or 1)
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
    if unknown := set(wanted) - set(SUITES):
        print(f"no such suite: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [suite for suite in SUITES if not wanted or suite in wanted]
    with ThreadPoolExecutor(AT_A_TIME) as lanes:
        results = list(zip(chosen, lanes.map(run, chosen), strict=True))
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
