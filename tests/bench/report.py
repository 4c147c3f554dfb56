"""The comparison as a table, on a terminal and in `docs/performance.md`, with the machine and the versions it was made on."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.targets import LEVELS, Seen
from tests.pinned import ROOT

DOCUMENT, CHART = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance.svg"

PICTURE = f"![Gateways compared]({CHART.name})\n\n"

_HEAD = (
    "",
    "has",
    *(f"requests/s at {level}" for level in LEVELS),
    *(f"CPU us/request at {level}" for level in LEVELS),
    *(f"p50 / p99 ms at {level}" for level in LEVELS),
    "CPU us/event of a stream",
    "first byte later by, ms",
    "memory MB",
)

Table = Sequence[Sequence[str]]


def comparison(rows: Iterable[Seen]) -> Table:
    """A head, and a line for each proxy. CPU in brackets is the first process's part; memory of further ones follows a +."""
    return [_HEAD, *(_line(row) for row in rows)]


def _line(row: Seen) -> Sequence[str]:
    return [
        row.name,
        row.tier,
        *(f"{level.per_second:,.0f}" for level in row.levels),
        *(_cpu(level.cpu, level.own_cpu) for level in row.levels),
        *(f"{level.p50:.2f} / {level.p99:.2f}" for level in row.levels),
        f"{row.chunk:.1f}",
        f"{row.first:.2f}",
        " + ".join(f"{mb:.0f}" for mb in row.memory),
    ]


def _cpu(every: float, own: float) -> str:
    return f"{every:,.0f}" if not 0.01 * every < own < 0.99 * every else f"{every:,.0f} ({own:,.0f})"


def terminal(table: Table) -> str:
    """One line for each column of `table` (they are many), one column for each of its lines."""
    turned = list(zip(*table, strict=True))
    widths = [max(map(len, row)) for row in table]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in turned
    )


def markdown(table: Table) -> str:
    """The same, turned: a column for each proxy would not fit a page, so that each is a line."""
    head, *lines = table
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *lines)) + "\n"


def machine(seconds: int, peers: Mapping[str, str]) -> str:
    """Where and when, and of which versions: one line of Markdown."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    nginx = (
        subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr.rpartition("/")[2].strip()
    )
    versions = {
        "Tollhouse": _commit(),
        "nginx": nginx,
        "Python": platform.python_version(),
        **peers,
        **{name: importlib.metadata.version(name) for name in ("uvicorn", "uvloop", "confluent-kafka", "chdb-core")},
    }
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{datetime.now(UTC).date()}, {cpu}, {_system()}, {seconds} s a figure. {named}.\n"


def _system() -> str:
    found = Path("/etc/os-release")
    fields = (
        dict(line.split("=", 1) for line in found.read_text().splitlines() if "=" in line) if found.exists() else {}
    )
    return f"{fields.get('PRETTY_NAME', platform.system()).strip(chr(34))}, Linux {platform.release()}"


def _commit() -> str:
    ran = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or importlib.metadata.version("tollhouse")


def write(block: str, text: str) -> None:
    """Puts `text` in the place of the document's block of that name. Raises `ValueError` if it has none."""
    begin, end = f"<!-- {block} -->\n", f"<!-- end of {block} -->\n"
    before, _, rest = DOCUMENT.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{DOCUMENT.name} has no block {block!r}")
    DOCUMENT.write_text(before + begin + text + end + after)
