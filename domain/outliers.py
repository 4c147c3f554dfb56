"""Which of several backends that share a load does so much worse than the others that it should be left alone for a while.

A circuit looks at one backend alone: half of its requests must fail. Beside others that do well, less is enough.
"""

from collections.abc import Mapping

LEAST = 20
"""Requests that a backend must have ended lately before it is judged."""

WORSE = 0.2
"""Its share of failures must be above that of all others together by this much."""


def outliers(tallies: Mapping[str, tuple[int, int]]) -> set[str]:
    """Of backends with (served, failed), the worst that are to be left alone: at most half of them, rounded down."""
    shares = {name: failed / (served + failed) for name, (served, failed) in tallies.items() if served + failed}
    found = []
    for name, (served, failed) in tallies.items():
        others = [tally for other, tally in tallies.items() if other != name]
        ended = sum(map(sum, others))
        rest = sum(tally[1] for tally in others) / ended if ended else 0.0
        if served + failed >= LEAST and others and shares[name] - rest >= WORSE:
            found.append(name)
    found.sort(key=lambda name: -shares[name])
    return set(found[: len(tallies) // 2])
