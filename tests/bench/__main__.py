"""``make bench``: Tollhouse, embedded and distributed, beside nginx as plain proxy and other gateways in the same run.

The proxy under measurement is pinned to one core, with all of its processes; the load generator and the backends to the other.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.bench import chart, distributed, embedded, report, scale
from tests.bench.backends import Backends, backends, floor
from tests.bench.peers import gateways
from tests.bench.processes import require
from tests.bench.targets import Seen, Target, seen

COMPARED = ("peers", "embedded", "distributed")
PARTS = (*COMPARED, "scale")


def main(arguments: Sequence[str]) -> None:
    options = argparse.ArgumentParser(prog="make bench", description=__doc__)
    options.add_argument("--seconds", type=int, default=10, help="of each measurement")
    options.add_argument("--only", choices=PARTS, action="append", help="a part of it; may be given again")
    options.add_argument("--keys", type=int, nargs="*", default=scale.KEYS, help="scale: numbers of keys")
    options.add_argument("--past", type=int, nargs="*", default=scale.PAST, help="scale: numbers of past requests")
    options.add_argument(
        "--write", choices=("docs",), help="docs/performance.md gets the tables of what ran, and its chart"
    )
    args = options.parse_args(arguments)
    parts = args.only or PARTS
    require("nginx", "wrk")
    with tempfile.TemporaryDirectory(prefix="tollhouse-bench-") as name:
        folder = Path(name)
        print(report.machine(args.seconds, gateways.versions()), flush=True)
        with backends(folder) as behind:
            if compared := [part for part in COMPARED if part in parts]:
                rows = _compared(compared, folder, behind, args.seconds)
                if args.write and len(compared) == len(COMPARED):
                    report.write("machine", report.machine(args.seconds, gateways.versions()))
                    report.write("comparison", report.PICTURE + report.markdown(report.comparison(rows)))
                    report.CHART.write_text(chart.svg(rows))
            if "scale" in parts:
                table = scale.measured(folder, behind, args.seconds, args.keys, args.past)
                print(report.terminal(table), flush=True)
                if args.write:
                    report.write("scale", report.markdown(table))


def _compared(parts: Sequence[str], folder: Path, behind: Backends, seconds: int) -> Sequence[Seen]:
    """A row for each proxy, the floor first; what else is found of ours is printed as it comes."""
    rows = [_seen(floor(folder, behind), seconds, folder)]
    if "peers" in parts:
        rows += [_seen(made(folder, behind), seconds, folder) for made in gateways.ALL]
    ours: dict[str, Callable[[Path, Backends, int, list[Seen]], Iterator[str]]] = {
        "embedded": embedded.bench,
        "distributed": distributed.bench,
    }
    for name, bench in ours.items():
        if name in parts:
            for line in bench(folder / name, behind, seconds, rows):
                print(f"{name}: {line}", flush=True)
    print(report.terminal(report.comparison(rows)), flush=True)
    best, fastest = rows[0].at(64).per_second, max(row.at(64).per_second for row in rows[1:])
    print(f"the fastest gateway has {fastest / best:.2f} of nginx's requests/s at 64 connections", flush=True)
    return rows


def _seen(made: AbstractContextManager[Target], seconds: int, folder: Path) -> Seen:
    with made as target:
        print(f"measuring {target.name} {target.tier}", flush=True)
        return seen(target, seconds, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
