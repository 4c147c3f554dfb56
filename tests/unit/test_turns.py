"""Turns at streams: one at a time at each, nobody waits for ever, nothing is kept."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from commands.turns import Turns

STREAMS = st.sets(st.sampled_from("abc"), max_size=3)


@given(st.lists(st.tuples(STREAMS, st.integers(0, 3), st.booleans()), max_size=12))
def test_no_two_have_a_turn_at_the_same_stream(visitors: list[tuple[set[str], int, bool]]) -> None:
    """However many want however many, in whatever order, and though some fail in the middle: everybody is served."""
    asyncio.run(_attack(visitors))


async def _attack(visitors: list[tuple[set[str], int, bool]]) -> None:
    turns, inside, served = Turns(), list[str](), list[int]()

    async def visit(number: int, streams: set[str], pauses: int, fails: bool) -> None:
        try:
            async with turns.at(streams):
                assert not streams & set(inside)
                inside.extend(streams)
                for _ in range(pauses):
                    await asyncio.sleep(0)
                for stream in streams:
                    inside.remove(stream)
                if fails:
                    raise ValueError
        except ValueError:
            pass
        served.append(number)

    async with asyncio.timeout(10):
        await asyncio.gather(*(visit(number, *visitor) for number, visitor in enumerate(visitors)))
    assert sorted(served) == list(range(len(visitors)))
    assert not turns._locks
    assert not turns._wanted
