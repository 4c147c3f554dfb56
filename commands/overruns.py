"""Overruns: a request that cost more than its hold shows that the bound of its model is wrong, and by how much nobody knows.
The model is closed under hard budgets until an admin has published it again.

The process that served the request reports it at once, but it may end before that. So whoever keeps the gate looks at the
facts too, once a second and first of all at each start: the last overrun of each model in each partition must have been
reported. An attempt is reported once, by a command whose key is its id: what an admin has looked at does not come again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from commands.handling import Changes, Commands, Reply, Request
from commands.ports import Balances, Overrun
from domain import model
from domain.ids import PLATFORM


async def close_model(commands: Commands, overrun: Overrun) -> None:
    """Closes a model under hard budgets; an attempt that was reported before changes nothing. Raises `Unavailable`."""
    report = model.ReportExceededBound(request=overrun.request, cost=overrun.cost, hold=overrun.hold)

    def plan(changes: Changes) -> Reply:
        changes.apply(PLATFORM, model.KIND, overrun.model, report)
        return Reply(b"")

    key = f"overrun {overrun.attempt}"
    await commands.execute(Request("system", key, fingerprint="overrun", correlation_id=overrun.request), plan)


@dataclass(slots=True)
class Overruns:
    """`tick` is one round; run it about once a second beside the keeper. A second one does no harm."""

    balances: Callable[[], Balances]
    commands: Commands
    _reported: set[str] = field(default_factory=set)

    async def tick(self) -> None:
        """Raises `Unavailable`: what is not reported yet is reported in a later round."""
        overruns = await asyncio.to_thread(self.balances().overruns)
        self._reported &= {overrun.attempt for overrun in overruns}
        for overrun in overruns:
            if overrun.attempt not in self._reported:
                await close_model(self.commands, overrun)
                self._reported.add(overrun.attempt)
