"""What was committed last is remembered: never with something left out."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from commands.ports import Stored
from infra.adapters import committed as module
from infra.adapters.committed import Committed

COMMITS = st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 2)), max_size=30)
"""Ours or another process's; how many events; holes before them."""


@given(COMMITS, st.integers(1, 5), st.integers(2, 6))
def test_what_is_remembered_is_what_the_journal_has(
    commits: list[tuple[bool, int, int]], limit: int, kept: int
) -> None:
    """From whichever position one asks: the next events without a gap, or nothing."""
    before, module.KEPT = module.KEPT, kept
    try:
        journal, ours = _committed(commits)
        for position in range(-1, journal[-1].position + 2 if journal else 2):
            found = list(ours.after(position, limit))
            assert found == [event for event in journal if event.position > position][: len(found)]
            assert len(found) <= limit
    finally:
        module.KEPT = before


def _committed(commits: Sequence[tuple[bool, int, int]]) -> tuple[list[Stored], Committed]:
    journal, ours, end = list[Stored](), Committed(), 0
    for mine, events, holes in commits:
        last, end = (journal[-1].position if journal else 0), end + holes
        added = [Stored(end + number, b"") for number in range(1, events + 1)]
        end += events
        journal += added
        if mine:
            ours.add(last, added)
    return journal, ours


def test_who_is_close_behind_is_answered() -> None:
    """Behind the last of another process, and behind each of ours."""
    ours, events = Committed(), [Stored(position, b"") for position in (8, 9, 12)]
    ours.add(7, events[:2])
    ours.add(9, events[2:])
    assert ours.after(7, 10) == events
    assert ours.after(9, 10) == events[2:]
    assert ours.after(12, 10) == []
    assert ours.after(6, 10) == ()
