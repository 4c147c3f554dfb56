"""How fairly something was divided."""

from collections.abc import Iterable


def jain(served: Iterable[float]) -> float:
    """Jain's index: 1 if all have the same, 1/n if one of n has all."""
    figures = list(served)
    return sum(figures) ** 2 / (len(figures) * sum(each * each for each in figures))
