"""The embedded part of ``make bench``: `tollhouse serve`, both of its processes on one core."""

from collections.abc import Iterator
from pathlib import Path

from tests.bench import load
from tests.bench.backends import PATH, Backends
from tests.bench.calls import REST, bearer, plain, streamed
from tests.bench.commands import commanded
from tests.bench.product import GOVERNED, UNBUDGETED, Server, server
from tests.bench.targets import Seen, Target, seen

NAME = "Tollhouse embedded"
ADMINS = (1, 16, 64)


def target(made: Server, tier: str, key: str, behind: Backends) -> Target:
    """The server as the comparison sees it."""
    url, headers = made.url + PATH, bearer(key)
    return Target(NAME, tier, made.pid, plain(url, headers), streamed(url, headers), behind.direct)


def bench(folder: Path, behind: Backends, seconds: int, rows: list[Seen]) -> Iterator[str]:
    """Adds the comparison's rows of embedded mode to `rows`, and tells every other figure of it."""
    folder.mkdir()
    with server(folder) as made:
        keys = made.set_up(behind)
        for tier, key in ((GOVERNED, keys.budget), (UNBUDGETED, keys.free)):
            rows.append(seen(target(made, tier, key, behind), seconds, folder))
            made.seconds_to_zero()
        load.run(plain(made.url + PATH, bearer(keys.budget)), 64, seconds, folder)
        lag = made.lag()
        yield f"views: {lag:,} records behind at the end of the load, {made.seconds_to_zero():.1f} s to zero"
        for name in ("balances", "usage"):
            yield made.rebuild(name)
        for admins in ADMINS:
            yield f"{admins} admins: {commanded(made, admins, max(2, seconds // 2), REST, folder)}"
