"""P8 under kill -9: a command whose answer was lost is repeated, and is applied once all the same."""

import asyncio
import random

from tests.exact import nano
from tests.http1 import Answer, Cut
from tests.lab import Lab

ROUNDS, COMMANDS = 5, 8
PATH = "/orgs/acme/budgets/cap/adjust"
BODY = {"amount_usd": "1", "reason": "top-up"}


async def test_a_crash_between_append_and_answer_does_not_apply_twice(lab: Lab) -> None:
    """Killed while eight top-ups are under way, then all eight repeated with their keys: each counts once, and a repeat of
    one that had been answered gets the same bytes."""
    await lab.org("acme")
    await lab.budget("acme", "cap", "100")
    for number in range(ROUNDS):

        async def adjust(place: int, turn: int = number) -> Answer | None:
            try:
                return await lab.command("POST", PATH, BODY, idempotency_key=f"{turn}-{place}")
            except Cut:
                return None

        under_way = [asyncio.create_task(adjust(place)) for place in range(COMMANDS)]
        await asyncio.sleep(random.uniform(0, 0.04))  # the moment of the crash is what varies
        await lab.product.kill()
        before = await asyncio.gather(*under_way)
        await lab.start()
        after = await asyncio.gather(*(adjust(place) for place in range(COMMANDS)))
        for first, again in zip(before, after, strict=True):
            assert again is not None
            assert again.status == 200
            assert first is None or first.body == again.body
        budget = await lab.admin("GET", "/orgs/acme/budgets/cap")
        assert nano(budget["adjustments_usd"]) == nano("1") * COMMANDS * (number + 1)
