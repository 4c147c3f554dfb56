"""Runs every suite, each in its own process, and prints what ran, how long it took and how it ended.

A suite that cannot run counts as failed, with the reason it gave. `tests/run.py unit e2e` runs only those.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUITES = {
    "unit": ["tests/unit"],
    "golden": ["tests/golden"],
    "contract": ["tests/contract"],
    "integration": ["tests/integration"],
    "moving": ["tests/moving"],
    "reads": ["tests/reads_distributed"],
    "docs": ["tests/docs"],
    "e2e": ["tests/e2e"],
    "faults": ["tests/faults"],
    "distributed": ["tests/distributed"],
    "workers": ["tests/workers"],
}
_COUNTS = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|deselected)")


def run(suite: str) -> tuple[bool, dict[str, int], float]:
    """Whether the suite is green, its counts, and its seconds."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", *SUITES[suite], "--durations=5", "--durations-min=5"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        assert child.stdout is not None
        last = ""
        for line in child.stdout:
            print(line, end="", flush=True)
            last = line if _COUNTS.search(line) else last
    counts = {name.rstrip("s") if name.startswith("error") else name: int(n) for n, name in _COUNTS.findall(last)}
    green = child.returncode == 0 and counts.get("passed", 0) > 0 and not counts.get("skipped")
    return green, counts, time.monotonic() - began


def main(wanted: list[str]) -> int:
    results = {suite: run(suite) for suite in SUITES if not wanted or suite in wanted}
    print("\nsuite         seconds  result")
    for suite, (green, counts, seconds) in results.items():
        told = ", ".join(f"{n} {name}" for name, n in counts.items()) or "not run"
        print(f"{suite:<12} {seconds:>8.1f}  {'ok' if green else 'FAILED'}: {told}")
    passed = sum(counts.get("passed", 0) for _, counts, _ in results.values())
    failed = sum(not green for green, _, _ in results.values())
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
